//! `sluicegate check`: every mistake of a configuration, or else what each pipeline promises.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Exit, Style};
use crate::config::{self, Config, Diagnostic, Diagnostics, End, Guarantee, Loaded, PluginSchemas, Surroundings};

/// Checks a configuration without connecting to anything. `plugins` inspects components.
///
/// Blocking: reads files, and `plugins` may compile.
///
/// # Errors
/// Writing fails.
pub fn check(
    paths: &[PathBuf],
    surroundings: &dyn Surroundings,
    plugins: &dyn PluginSchemas,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<Exit> {
    let checked =
        config::load(paths, surroundings).and_then(|loaded| config::check_plugins(&loaded, plugins).map(|()| loaded));
    match checked {
        Ok(loaded) => {
            report(&loaded, style, out)?;
            Ok(Exit::Clean)
        }
        Err(diagnostics) => {
            mistakes(&diagnostics, style, out)?;
            Ok(Exit::Mistakes)
        }
    }
}

/// Writes mistakes as every command does.
///
/// # Errors
/// Writing fails.
pub fn mistakes(diagnostics: &Diagnostics, style: Style, out: &mut dyn Write) -> io::Result<()> {
    match style {
        Style::Text { colour } => out.write_all(diagnostics.render(colour).as_bytes()),
        Style::Json => {
            let mut object = diagnostics.to_json();
            object["ok"] = json!(false);
            writeln!(out, "{object:#}")
        }
    }
}

fn report(loaded: &Loaded, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let config = &loaded.config;
    let guarantees: Vec<(&str, Guarantee)> =
        config.pipelines.iter().map(|p| (&*p.name, config::guarantee(loaded, p))).collect();
    let warnings: Vec<Diagnostic> = guarantees.iter().flat_map(|(_, g)| g.warnings.iter().cloned()).collect();
    let warnings = loaded.diagnostics(warnings);
    match style {
        Style::Text { colour } => {
            for (name, guarantee) in &guarantees {
                describe(name, guarantee, out)?;
            }
            if !warnings.is_empty() {
                out.write_all(warnings.render(colour).as_bytes())?;
            }
            writeln!(out, "{}", summary(config))
        }
        Style::Json => {
            let pipelines: Vec<Value> = guarantees.iter().map(|(name, guarantee)| to_json(name, guarantee)).collect();
            let mut object = warnings.to_json();
            object["ok"] = json!(true);
            object["version"] = json!(config.version);
            object["pipelines"] = json!(pipelines);
            writeln!(out, "{object:#}")
        }
    }
}

fn describe(name: &str, guarantee: &Guarantee, out: &mut dyn Write) -> io::Result<()> {
    let promise = if guarantee.at_least_once { "at least once" } else { "messages can be lost" };
    writeln!(out, "{name}: {promise}")?;
    writeln!(out, "  source {}", because(&guarantee.source))?;
    for target in &guarantee.targets {
        writeln!(out, "  target {}, {}", target.name, because(target))?;
    }
    writeln!(out, "  duplicates: {}", guarantee.duplicates)?;
    writeln!(out, "  order: {}\n", guarantee.order)
}

fn because(end: &End) -> String {
    let risk = if end.at_least_once { "" } else { "not safe: " };
    let reason = if end.because.is_empty() { "as its system does" } else { end.because.as_str() };
    format!("{}: {risk}{reason}", end.system)
}

fn summary(config: &Config) -> String {
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "configuration {}: {}, {}, {}, no mistakes",
        config.version,
        plural(config.pipelines.len(), "pipeline"),
        plural(config.plugins.len(), "plugin"),
        plural(config.schemas.len(), "schema"),
    )
}

fn to_json(name: &str, guarantee: &Guarantee) -> Value {
    let end = |end: &End| {
        json!({
            "name": end.name, "system": end.system, "at_least_once": end.at_least_once, "because": end.because,
        })
    };
    json!({
        "name": name,
        "at_least_once": guarantee.at_least_once,
        "source": end(&guarantee.source),
        "targets": guarantee.targets.iter().map(end).collect::<Vec<_>>(),
        "duplicates": guarantee.duplicates,
        "order": guarantee.order,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_memory::InMemory;
    use crate::config::{PluginConfig, PluginDescription};

    struct NoPlugins;

    impl PluginSchemas for NoPlugins {
        fn describe(&self, _: &PluginConfig) -> Result<PluginDescription, String> {
            Err("there are none here".to_owned())
        }
    }

    const GOOD: &str = "pipelines: { p: { source: { stdio: {} }, targets: { out: { stdio: {} } } } }\n";

    fn run(text: &str, style: Style) -> (Exit, String) {
        let mut out = Vec::new();
        let files = [("c.yaml", text)];
        let exit = check(&["/folder/c.yaml".into()], &InMemory(&files), &NoPlugins, style, &mut out).expect("write");
        (exit, String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn a_clean_configuration_exits_clean_and_says_what_it_promises() {
        let (exit, text) = run(GOOD, Style::Text { colour: false });
        assert_eq!(exit, Exit::Clean);
        assert!(text.starts_with("p: ") && text.contains("  target out, stdio: "), "{text}");
        assert!(text.contains("1 pipeline, 0 plugins, 0 schemas, no mistakes"), "{text}");
        let (exit, json) = run(GOOD, Style::Json);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((exit, &json["ok"], &json["pipelines"][0]["name"]), (Exit::Clean, &json!(true), &json!("p")));
    }

    #[test]
    fn mistakes_exit_2_in_either_style_wherever_they_are_found() {
        let unknown = GOOD.replace("source", "sauce");
        let plugin = GOOD.replace("source: { stdio: {} }", "source: { stdio: {} }, steps: [filter: { plugin: jq }]");
        for (text, said) in [(unknown, "unknown key `sauce`"), (plugin, "cannot be used: there are none here")] {
            let (exit, printed) = run(&text, Style::Text { colour: false });
            assert_eq!(exit, Exit::Mistakes);
            assert!(printed.contains(said), "{printed}");
            let (exit, json) = run(&text, Style::Json);
            let json: Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!((exit, &json["ok"]), (Exit::Mistakes, &json!(false)));
            assert!(json["diagnostics"].to_string().contains(said), "{json}");
        }
    }
}
