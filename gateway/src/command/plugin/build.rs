//! `sluicegate plugin build`: cargo with the right target, and the component where it is looked for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;

use super::{inspect, load};
use crate::command::Exit;

const TARGET: &str = "wasm32-wasip2";

/// `plugin build`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct BuildArgs {
    /// The plugin's folder; the present one if not given.
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Where the component is written; by default NAME.wasm in the plugin's folder.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Builds, inspects what was built, and puts it beside the sources.
pub(super) async fn build(args: &BuildArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let folder = super::folder(args.folder.as_ref());
    if !folder.join("Cargo.toml").exists() {
        bail!("{} is no Rust crate: it has no Cargo.toml; `sluicegate plugin new` makes one", folder.display());
    }
    require_target(&folder).await?;
    let built = cargo(&folder).await?;
    let name = built.file_stem().map(|stem| stem.to_string_lossy().replace('_', "-")).unwrap_or_default();
    let output = args.output.clone().unwrap_or_else(|| folder.join(format!("{name}.wasm")));
    std::fs::copy(&built, &output)
        .with_context(|| format!("cannot copy {} to {}", built.display(), output.display()))?;
    writeln!(out, "built {}", output.display())?;
    // A component the gateway would refuse is not built well, and now is the time to say so.
    let plugin = load(&output).await?;
    inspect::describe(&plugin, out)?;
    Ok(Exit::Clean)
}

/// The compiler that cargo will use must know the target.
async fn require_target(folder: &Path) -> anyhow::Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(folder)
        .output()
        .await
        .with_context(|| format!("cannot run {}; install Rust first", rustc.to_string_lossy()))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    if !asked.status.success() || !libdir.is_dir() {
        bail!(
            "the Rust compiler has no target {TARGET}: `rustup target add {TARGET}` installs it; where rustup cannot, \
             `eval \"$(tests/wasm-toolchain)\"` in a checkout of sluicegate gets a compiler that has it"
        );
    }
    Ok(())
}

/// Runs cargo, its progress on standard error as usual, and finds the component among its messages.
async fn cargo(folder: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(&cargo)
        .args(["build", "--release", "--lib", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .current_dir(folder)
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("cannot run {}; install Rust first", cargo.to_string_lossy()))?;
    if !built.status.success() {
        bail!("cargo could not build {}; its messages are above", folder.display());
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let component = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str);
            files.map(PathBuf::from).find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        })
        .next_back();
    component.context("cargo built no component: the crate needs `crate-type = [\"cdylib\"]` under `[lib]`")
}
