//! `sluicegate plugin`: a new plugin builds and its tests pass as they are, and its component runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use sluicegate_tests::gateway::{binary, new_folder};
use sluicegate_tests::process::run;

/// The wasm compiler's settings, or `None` where there is none; `tests/run` says so, and fails where it must be had.
fn toolchain() -> Result<Option<HashMap<String, String>>> {
    let script = repository().join("tests/wasm-toolchain");
    let shell = "eval \"$(\"$1\")\" && env -0";
    let asked = Command::new("bash").args(["-ec", shell, "bash"]).arg(script).output()?;
    if !asked.status.success() {
        return Ok(None);
    }
    let lines = String::from_utf8_lossy(&asked.stdout).into_owned();
    Ok(Some(lines.split('\0').filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All three roles share one target folder, kept between runs: what they depend on is compiled once.
#[test]
fn a_new_plugin_of_each_role_builds_passes_its_tests_and_runs() -> Result<()> {
    let folder = new_folder()?;
    let folder = folder.path();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-plugins");
    let wasm = toolchain()?;
    for (role, expected) in
        [("filter", "/verdict"), ("transform", "/messages/0/data/by"), ("router", "/destinations/0/target")]
    {
        let name = format!("my-{role}");
        run(binary()?, |command| {
            command.args(["plugin", "new", &name, "--role", role]).current_dir(folder);
        })?;
        let plugin = folder.join(&name);
        run("cargo", |command| {
            command.args(["test", "--quiet"]).current_dir(&plugin).env("CARGO_TARGET_DIR", &target);
        })?;
        let Some(wasm) = &wasm else { continue };
        run(binary()?, |command| {
            command.args(["plugin", "build"]).current_dir(&plugin).envs(wasm).env("CARGO_TARGET_DIR", &target);
        })?;
        let component = format!("{name}.wasm");
        let ran = run(binary()?, |command| {
            command.args([
                "plugin",
                "test",
                &component,
                "--config",
                "config.json",
                "--message",
                "message.json",
                "--json",
            ]);
            command.current_dir(&plugin);
        })?;
        let report: Value = serde_json::from_str(&ran)?;
        ensure!(report["outcome"].pointer(expected).is_some(), "{role}: {report:#}");
    }
    Ok(())
}

#[test]
fn inspect_prints_what_a_component_is() -> Result<()> {
    let inspected = run(binary()?, |command| {
        command.args(["plugin", "inspect", "jq", "--json"]);
    })?;
    let jq: Value = serde_json::from_str(&inspected)?;
    assert_eq!(jq["roles"], serde_json::json!(["filter", "transform", "route"]));
    assert!(jq["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:") && digest.len() == 71));
    assert!(jq["sizeBytes"].as_u64().is_some_and(|size| size > 100_000));
    assert!(jq["configSchema"]["properties"]["program"].is_object());
    Ok(())
}

#[test]
fn what_is_no_plugin_is_refused_in_words() -> Result<()> {
    let folder = new_folder()?;
    let truncated = folder.path().join("truncated.wasm");
    let whole = std::fs::read(repository().join("plugins/components/split.wasm"))?;
    std::fs::write(&truncated, &whole[..whole.len() / 2])?;
    let sockets = repository().join("tests/guests/components/sockets.wasm");
    for (file, expected) in
        [(&truncated, "truncated"), (&sockets, "wasi:sockets"), (&PathBuf::from("nowhere.wasm"), "nowhere.wasm")]
    {
        let refused = Command::new(binary()?).args(["plugin", "inspect"]).arg(file).output()?;
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains(expected), "{}: {text}", file.display());
    }
    Ok(())
}
