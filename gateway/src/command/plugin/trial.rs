//! `sluicegate plugin test`: one message through one component, as a pipeline would call it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents;
use sluicegate_engine::message::{Message, parse_json};
use sluicegate_engine::step::{Destination, Verdict};
use sluicegate_plugin_host::{Capability, Grants, Limits, Measurement, Outcome, Plugin, Role, Settings};

use super::load;
use crate::command::Exit;
use crate::command::plugin::scaffold;
use crate::grants::Doubles;

/// `plugin test`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TestArgs {
    /// A component file, or the name of a built-in plugin.
    #[arg(value_name = "FILE")]
    pub component: PathBuf,
    /// A file with the message: a CloudEvent in JSON (it has `specversion`), or else just the body.
    #[arg(long, value_name = "FILE")]
    pub message: PathBuf,
    /// A file with the plugin's configuration in JSON, or the JSON itself.
    #[arg(long, value_name = "FILE or JSON", default_value = "{}")]
    pub config: String,
    /// A file with doubles of what the plugin has to be granted, in JSON, or the JSON itself: `{"state": {"key": "value"},
    /// "http": [{"url": "https://…", "status": 200, "body": {}}], "secrets": {"name": "value"}, "metrics": true}`.
    #[arg(long, value_name = "FILE or JSON", default_value = "{}")]
    pub doubles: String,
    /// The role to call; all that it has if not given.
    #[arg(long, value_enum)]
    pub role: Option<scaffold::Role>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn test(args: &TestArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let plugin = load(&args.component).await?;
    let config = read_json(&args.config, "configuration")?;
    let grants = doubles(&plugin, &args.doubles)?;
    let message = Arc::new(read_message(&args.message)?);
    let settings = Settings { limits: Limits::default(), grants, ..Settings::default() };
    let configured = plugin.configure(&config, settings).await?;
    let asked = args.role.map(|role| match role {
        scaffold::Role::Filter => Role::Filter,
        scaffold::Role::Transform => Role::Transform,
        scaffold::Role::Router => Role::Route,
    });
    let roles: Vec<Role> =
        plugin.roles().iter().copied().filter(|role| asked.is_none_or(|asked| asked == *role)).collect();
    if roles.is_empty() {
        let has: Vec<&str> = plugin.roles().iter().map(|role| role.name()).collect();
        bail!("the component has no such role; it has: {}", has.join(", "));
    }
    if let Some(reason) = &configured.isolation().fallback_reason {
        writeln!(out, "note: instances are reused: {reason}")?;
    }
    let mut exit = Exit::Clean;
    for role in roles {
        let Some(measured) = configured.measure(role, &message).await else { continue };
        if measured.outcome.is_err() {
            exit = Exit::Failed;
        }
        if args.json { writeln!(out, "{}", to_json(role, &measured))? } else { print(role, &measured, out)? }
    }
    Ok(exit)
}

/// Nothing real is behind a trial's grants; what has no double is refused in words that say how to give one.
fn doubles(plugin: &Plugin, given: &str) -> anyhow::Result<Grants> {
    let doubles: Doubles = serde_json::from_value(read_json(given, "doubles")?)
        .with_context(|| format!("the doubles {given} cannot be used"))?;
    let grants = doubles.grants();
    let missing: Vec<_> = plugin.capabilities().iter().filter(|capability| !grants.has(**capability)).collect();
    if missing.is_empty() {
        return Ok(grants);
    }
    let example = |capability: &Capability| match capability {
        Capability::State => r#""state": {"key": "value"}"#,
        Capability::Http => r#""http": [{"url": "https://api.example.org/", "status": 200, "body": {}}]"#,
        Capability::Secrets => r#""secrets": {"api": "value"}"#,
        Capability::Metrics => r#""metrics": true"#,
    };
    let names: Vec<&str> = missing.iter().map(|capability| capability.name()).collect();
    let examples: Vec<&str> = missing.iter().map(|capability| example(capability)).collect();
    bail!(
        "the component has to be granted {}, and a trial has nothing real behind that; give doubles: --doubles '{{{}}}'",
        names.join(", "),
        examples.join(", ")
    )
}

fn read_json(given: &str, what: &str) -> anyhow::Result<Value> {
    let text = if given.trim_start().starts_with(['{', '[', '"']) {
        given.to_owned()
    } else {
        std::fs::read_to_string(given).with_context(|| format!("cannot read the {what} {given}"))?
    };
    parse_json(text.as_bytes()).with_context(|| format!("the {what} {given} cannot be used"))
}

fn read_message(path: &Path) -> anyhow::Result<Message> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the message {}", path.display()))?;
    let is_event = parse_json(&bytes).is_ok_and(|value| value.get("specversion").is_some());
    if is_event {
        return cloudevents::decode(&bytes).with_context(|| format!("{} is no good CloudEvent", path.display()));
    }
    Ok(Message { content_type: Some("application/json".to_owned()), ..Message::new("plugin-test", "test", bytes) })
}

fn print(role: Role, measured: &Measurement, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    write!(out, "{}: ", role.name())?;
    match &measured.outcome {
        Err(failure) => writeln!(out, "failed ({}): {failure}", failure.class())?,
        Ok(Outcome::Verdict(Verdict::Keep)) => writeln!(out, "keeps the message")?,
        Ok(Outcome::Verdict(Verdict::Drop(reason))) => writeln!(out, "drops the message: {reason}")?,
        Ok(Outcome::Messages(messages)) if messages.is_empty() => writeln!(out, "drops the message")?,
        Ok(Outcome::Messages(messages)) => {
            writeln!(out, "makes {} message(s)", messages.len())?;
            for message in messages {
                writeln!(out, "  {}", String::from_utf8_lossy(&cloudevents::encode(message)))?;
            }
        }
        Ok(Outcome::Destinations(destinations)) if destinations.is_empty() => {
            writeln!(out, "names no target: unroutable")?
        }
        Ok(Outcome::Destinations(destinations)) => {
            writeln!(
                out,
                "routes to {}",
                destinations.iter().map(|d| d.target.as_str()).collect::<Vec<_>>().join(", ")
            )?;
            for destination in destinations {
                if destination.key.is_some() || destination.delay_ms.is_some() {
                    writeln!(out, "  {}", destination_json(destination))?;
                }
            }
        }
    }
    let micros = measured.wall.as_secs_f64() * 1e6;
    writeln!(out, "  time {micros:.1} µs, memory {} KiB", measured.peak_memory_bytes / 1024)?;
    if measured.log_lines_dropped > 0 {
        writeln!(out, "  {} log lines were over the limit and dropped", measured.log_lines_dropped)?;
    }
    Ok(())
}

fn to_json(role: Role, measured: &Measurement) -> Value {
    let outcome = match &measured.outcome {
        Err(failure) => json!({ "failure": failure.to_string(), "class": failure.class().name() }),
        Ok(Outcome::Verdict(Verdict::Keep)) => json!({ "verdict": "keep" }),
        Ok(Outcome::Verdict(Verdict::Drop(reason))) => {
            json!({ "verdict": "drop", "code": reason.code, "text": reason.text })
        }
        Ok(Outcome::Messages(messages)) => {
            let events: Vec<Value> =
                messages.iter().filter_map(|m| serde_json::from_slice(&cloudevents::encode(m)).ok()).collect();
            json!({ "messages": events })
        }
        Ok(Outcome::Destinations(all)) => {
            json!({ "destinations": all.iter().map(destination_json).collect::<Vec<_>>() })
        }
    };
    json!({
        "role": role.name(),
        "outcome": outcome,
        "wallMicros": measured.wall.as_secs_f64() * 1e6,
        "peakMemoryBytes": measured.peak_memory_bytes,
        "logLinesDropped": measured.log_lines_dropped,
    })
}

fn destination_json(destination: &Destination) -> Value {
    json!({ "target": destination.target, "key": destination.key, "delayMs": destination.delay_ms })
}
