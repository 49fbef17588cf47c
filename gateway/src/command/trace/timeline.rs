//! One message's way, a line an event.

use std::io::Write;

use sluicegate_engine::inbox::Waypoint;
use sluicegate_engine::receipt::{Happening, StepResult};

use crate::command::dlq::text::{inline, time};
use crate::trace::{Moment, Trace, What};

/// Of a plugin's digest, `sha256:` included.
const DIGEST_CHARS: usize = 19;

pub(super) fn write(trace: &Trace, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "Message {}", inline(&trace.id))?;
    let last = trace.trail.stretches.last().map(|stretch| &stretch.summary);
    let fields = [
        ("status", Some(trace.status().name().to_owned())),
        ("source", last.map(|last| last.source.clone())),
        ("type", last.map(|last| last.kind.clone())),
        ("correlation id", last.and_then(|last| last.correlation_id.clone())),
        ("key", last.and_then(|last| last.key.as_deref()).map(|key| String::from_utf8_lossy(key).into_owned())),
        ("trace", last.and_then(|last| last.trace_id.clone())),
        ("configuration", last.map(|last| last.config_version.clone())),
        ("body", last.map(|last| format!("{} bytes", last.body_bytes))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            writeln!(out, "  {name:<14}  {}", inline(&value))?;
        }
    }
    for part in trace.waiting() {
        let until = until(part.until_ms);
        writeln!(out, "  waits at {} {until}: {}", place(part.waypoint), inline(part.why))?;
    }
    let moments = trace.moments();
    if !moments.is_empty() {
        writeln!(out)?;
    }
    if trace.trail.is_cut {
        writeln!(out, "… (earlier stretches are left out)")?;
    }
    let width = moments.iter().map(|moment| inline(moment.pipeline).to_string().chars().count()).max().unwrap_or(0);
    for moment in &moments {
        let (at, pipeline) = (time(moment.at_ms, 3), inline(moment.pipeline).to_string());
        writeln!(out, "{at}  {pipeline:<width$}  {}", inline(&describe(moment)))?;
    }
    if !trace.letters.is_empty() {
        writeln!(out, "\nDead letters, kept until they are redriven or deleted")?;
        for letter in &trace.letters {
            let (at, class) = (time(letter.failed_at_ms, 3), letter.class.name());
            writeln!(out, "  {}  {at}  {class}  {}", inline(&letter.id), inline(&letter.error))?;
        }
    }
    Ok(())
}

fn place(waypoint: &Waypoint) -> String {
    match waypoint {
        Waypoint::Start => "the start".to_owned(),
        Waypoint::Step(name) => format!("step `{name}`"),
        Waypoint::Target(name) => format!("target `{name}`"),
    }
}

fn until(until_ms: u64) -> String {
    if until_ms == 0 {
        "until its target takes messages or its turn comes".to_owned()
    } else {
        format!("until {}", time(until_ms, 3))
    }
}

fn describe(moment: &Moment<'_>) -> String {
    match moment.what {
        What::Accepted => "accepted".to_owned(),
        What::GivenBack => "given back: its source, or the inbox, delivers it again".to_owned(),
        What::Postponed => "postponed: its source delivers it again later".to_owned(),
        What::LeftOut(events) => format!("… ({events} events left out)"),
        What::Noted(happening) => describe_noted(happening),
    }
}

fn describe_noted(happening: &Happening) -> String {
    match happening {
        Happening::Resumed { waypoint, attempt } => format!("goes on at {}, attempt {attempt}", place(waypoint)),
        Happening::Step { step, plugin_digest, result } => {
            let digest = plugin_digest.as_deref().map(|digest| format!(" ({})", shortened(digest))).unwrap_or_default();
            format!("{step}{digest}: {}", describe_result(result))
        }
        Happening::Failed { place, attempt, error, retry_after } => match retry_after {
            Some(after) => format!("attempt {attempt} at {place} failed: {error}; again in {after:?}"),
            None => format!("attempt {attempt} at {place} failed: {error}; it was the last"),
        },
        Happening::Parked { waypoint, until_ms, why } => {
            format!("parked at {} {}: {why}", place(waypoint), until(*until_ms))
        }
        Happening::Delivered { target } => format!("delivered to {target}"),
        Happening::DeadLettered { id, class, error } => format!("dead letter {id} ({}): {error}", class.name()),
    }
}

fn describe_result(result: &StepResult) -> String {
    match result {
        StepResult::Passed => "passed".to_owned(),
        StepResult::Made { messages: 1 } => "changed it".to_owned(),
        StepResult::Made { messages } => format!("made {messages} messages of it"),
        StepResult::Dropped(reason) => format!("dropped: {reason}"),
        StepResult::Routed(targets) => format!("routed to {}", targets.join(", ")),
    }
}

fn shortened(digest: &str) -> String {
    if digest.chars().count() <= DIGEST_CHARS {
        return digest.to_owned();
    }
    digest.chars().take(DIGEST_CHARS).chain(['…']).collect()
}
