//! Configurations and what is said about them. Each file or folder of `tests/config/bad` has beside it the text that
//! `sluicegate check` prints; run with `UPDATE_EXPECTED=1` to write those texts anew, then read the difference.

use std::env::VarError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use sluicegate::config::{self, Diagnostics, Isolation, Loaded, Process, StepConfig, Surroundings};
use sluicegate_connectors::registry::SourceConfig;

/// The real file system, and variables that are the same everywhere.
struct Fixed;

impl Surroundings for Fixed {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        match name {
            "HOST" => Ok("private-host-name".to_owned()),
            "NUMBER" => Ok("7".to_owned()),
            "TRUTH" => Ok("true".to_owned()),
            _ => Err(VarError::NotPresent),
        }
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        Process.read(path, limit_bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        Process.list(path)
    }
}

fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    config::load(&[path.to_owned()], &Fixed)
}

/// What is in a folder of `tests/config`, without expected texts and files that others name.
fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new("tests/config").join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("folder").map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths
}

#[test]
fn every_bad_configuration_is_explained_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let here = std::env::current_dir().expect("folder").display().to_string();
    let mut different = Vec::new();
    for path in examples("bad") {
        let diagnostics = load(&path).expect_err(&path.display().to_string());
        assert!(!diagnostics.is_empty(), "{}", path.display());
        let actual = diagnostics.render(false).replace(&here, "<gateway>");
        let expected_path = path.with_extension("txt");
        if update {
            std::fs::write(&expected_path, &actual).expect("write");
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if actual != expected {
            different.push(format!("== {}\n-- expected\n{expected}-- actual\n{actual}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_good_configuration_loads() {
    for path in examples("good") {
        if let Err(diagnostics) = load(&path) {
            panic!("{}:\n{diagnostics}", path.display());
        }
    }
}

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let loaded = load(Path::new("tests/config/good/design.yaml")).unwrap_or_else(|wrong| panic!("{wrong}"));
    let config = &loaded.config;
    let orders = config.pipeline("orders").expect("orders");
    assert_eq!(
        orders.steps.iter().map(StepConfig::kind).collect::<Vec<_>>(),
        ["validate", "filter", "transform", "route"]
    );
    assert_eq!(orders.targets.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["eu", "us", "hook", "log"]);
    assert_eq!(orders.max_in_flight, 7, "a number in a text that was filled in");
    assert_eq!(orders.retry.max_delay, Duration::from_secs(60));
    assert_eq!(orders.handler_timeout, None);
    assert_eq!(orders.base_dir, std::env::current_dir().expect("folder").join("tests/config/good"));
    assert_eq!(config.data_dir, orders.base_dir.join("data"));
    let plugins: Vec<(&str, Isolation)> = config.plugins.iter().map(|p| (&*p.name, p.isolation)).collect();
    let expected = [("region-router", Isolation::Message), ("jq", Isolation::Reuse), ("redact", Isolation::Reuse)];
    assert_eq!(plugins, expected, "declared, then built in and used");
    let SourceConfig::Rabbitmq(events) = &config.pipeline("events").expect("events").source else { panic!("rabbitmq") };
    assert_eq!((events.prefetch, events.concurrency), (64, 4));
    assert_eq!(config.tests[0].given.body.bytes(), r#"{"id":"o-1","customer":{"tier":"gold","email":"a@b.c"}}"#);
    assert!(!format!("{config:?}").contains("whsec_"), "secrets are not shown");
}

/// Files in memory, all in one folder.
struct InMemory<'t>(&'t [(&'t str, &'t str)]);

impl Surroundings for InMemory<'_> {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        Fixed.variable(name)
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(name, _)| path == Path::new("/folder").join(name));
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        Ok(None)
    }
}

/// Fingerprints of the pipelines, and the version, of a configuration with two schemas and a plugin.
fn identity(config: &str, a: &str, b: &str, plugin: &str) -> (Vec<String>, String) {
    let files = [("c.yaml", config), ("a.json", a), ("b.json", b), ("p.wasm", plugin)];
    let loaded = config::load(&["/folder/c.yaml".into()], &InMemory(&files));
    let config = loaded.unwrap_or_else(|wrong| panic!("{wrong}")).config;
    (config.pipelines.iter().map(|p| p.fingerprint().to_owned()).collect(), config.version.to_string())
}

#[test]
fn a_pipelines_identity_is_all_that_it_is_made_of_and_nothing_else() {
    let config = |step: &str| {
        format!(
            "schemas: {{ a: {{ file: a.json }}, b: {{ file: b.json }} }}\nplugins: {{ p: {{ file: p.wasm }} }}\n\
             pipelines:\n  one: {{ source: {{ stdio: {{}} }}, steps: [{step}], targets: {{ out: {{ stdio: {{}} }} }} }}\n  \
             two: {{ source: {{ stdio: {{}} }}, steps: [validate: {{ schema: a }}], targets: {{ out: {{ stdio: {{}} }} }} }}\n"
        )
    };
    let filter = config("filter: { plugin: p }");
    let (first, version) = identity(&filter, "true", "true", "1");
    assert_eq!(version.len(), 12);
    let same = identity(&format!("# a comment\n{filter}"), "true", "true", "1");
    assert_eq!(same, (first.clone(), version.clone()), "comments and layout change nothing");
    let changed = |now: (Vec<String>, String)| {
        assert_ne!(now.1, version, "any change of content changes the version");
        [now.0[0] != first[0], now.0[1] != first[1]]
    };
    assert_eq!(changed(identity(&filter, "true", "true", "2")), [true, false], "the plugin's file");
    assert_eq!(changed(identity(&filter, "{}", "true", "1")), [false, true], "the schema's file");
    assert_eq!(changed(identity(&filter, "true", "{}", "1")), [false, false], "a schema that neither uses");
    let reference = r#"{"$ref": "b"}"#;
    let (before, _) = identity(&filter, reference, "true", "1");
    let (after, _) = identity(&filter, reference, "{}", "1");
    assert_eq!([before[0] != after[0], before[1] != after[1]], [false, true], "a schema that is referred to");
    assert_eq!(changed(identity(&config("filter: { plugin: p, config: {} }"), "true", "true", "1")), [true, false]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_as_configuration_never_panics(text in "\\PC{0,100}") {
        arbitrary(&text);
    }

    #[test]
    fn arbitrary_pieces_of_configuration_never_panic(
        pieces in proptest::collection::vec(prop_oneof![
            Just("pipelines:"), Just("  a:"), Just("    source:"), Just("{ stdio: {} }"), Just("    targets: "),
            Just("plugins: "), Just("schemas:"), Just("  b: { inline: "), Just("{ $ref: b } }"), Just("tests:"),
            Just("- {"), Just("}"), Just("["), Just("]"), Just("'${HOST}'"), Just("'${file:x}'"), Just("steps:"),
            Just("- validate: { schema: b }"), Just("- route: { plugin: jq }"), Just("~"), Just("1e9"), Just("\n"),
            Just("\n    "), Just("\n  "), Just(", "), Just(": "), Just("&a "), Just("*a "), Just("\t"), Just("0s"),
        ], 0..40)
    ) {
        arbitrary(&pieces.concat());
    }
}

/// Loads a text, and shows what is wrong with it.
fn arbitrary(text: &str) {
    if let Err(diagnostics) = config::load(&["/folder/c.yaml".into()], &InMemory(&[("c.yaml", text)])) {
        assert!(!diagnostics.render(true).is_empty());
        assert!(diagnostics.to_json()["total"].as_u64() > Some(0));
    }
}
