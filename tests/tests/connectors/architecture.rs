//! Architecture invariants that the compiler does not check: what each crate may depend on.

use std::path::Path;

use anyhow::{Context, Result};

/// Crates of ours below each crate of ours, itself included: dependencies point one way.
const BELOW: [(&str, &[&str]); 5] = [
    ("gateway/engine", &[]),
    ("gateway/store", &["sluicegate-engine"]),
    ("gateway/plugin-host", &["sluicegate-engine"]),
    ("gateway/connectors", &["sluicegate-engine"]),
    ("gateway", &["sluicegate-engine", "sluicegate-store", "sluicegate-plugin-host", "sluicegate-connectors"]),
];

/// The engine knows no broker, no HTTP, no YAML, no database and no wasm.
const FORBIDDEN_IN_ENGINE: [&str; 21] = [
    "wasmtime",
    "wasmtime-wasi",
    "wasmtime-wizer",
    "lapin",
    "redis",
    "axum",
    "http",
    "hyper",
    "hyper-util",
    "reqwest",
    "rusqlite",
    "tokio-postgres",
    "rustls",
    "saphyr",
    "serde_yaml",
    "serde",
    "schemars",
    "jsonschema",
    "clap",
    "notify",
    "metrics-exporter-prometheus",
];

#[test]
fn the_engine_names_no_system() -> Result<()> {
    let dependencies = dependencies("gateway/engine")?;
    let forbidden: Vec<_> = dependencies.iter().filter(|name| FORBIDDEN_IN_ENGINE.contains(&name.as_str())).collect();
    assert!(forbidden.is_empty(), "gateway/engine/Cargo.toml names {forbidden:?}");
    Ok(())
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    for (crate_folder, allowed) in BELOW {
        let ours: Vec<_> =
            dependencies(crate_folder)?.into_iter().filter(|name| name.starts_with("sluicegate")).collect();
        let wrong: Vec<_> = ours.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{crate_folder}/Cargo.toml depends on {wrong:?}; it may only on {allowed:?}");
    }
    Ok(())
}

#[test]
fn only_the_plugin_host_names_wasmtime() -> Result<()> {
    for (crate_folder, _) in BELOW {
        let names = dependencies(crate_folder)?;
        let knows = names.iter().any(|name| name.starts_with("wasmtime"));
        assert_eq!(knows, crate_folder == "gateway/plugin-host", "{crate_folder} depends on {names:?}");
    }
    Ok(())
}

/// Names in the `[dependencies]` of a manifest of ours, which keep to one line a dependency.
fn dependencies(crate_folder: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_folder).join("Cargo.toml");
    let manifest = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let section = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let names: Vec<String> = section
        .take_while(|line| !line.starts_with('['))
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(['.', ' ', '=']).next().unwrap_or(line).trim_matches('"').to_owned())
        .collect();
    anyhow::ensure!(!names.is_empty(), "{} has no [dependencies]: does this test still read it right?", path.display());
    Ok(names)
}
