//! `sluicegate plugin …`: make, build, inspect and try plugins.

mod build;
mod inspect;
mod remote;
mod scaffold;
mod trial;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use sluicegate_plugin_host::{HostConfig, Plugin, PluginHost};

use crate::bundled;
use crate::command::Exit;

pub use build::BuildArgs;
pub use inspect::InspectArgs;
pub use remote::{GatewayArgs, PushArgs, RetireArgs, VersionsArgs};
pub use scaffold::{NewArgs, Role};
pub use trial::TestArgs;

/// Makes, builds, inspects and tries plugins.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum PluginCommand {
    /// Make a new Rust plugin that builds and whose tests pass.
    New(NewArgs),
    /// Build a plugin's component.
    Build(BuildArgs),
    /// Print what a component is: roles, imports, size, digest, configuration.
    Inspect(InspectArgs),
    /// Run a component on one message: outcome, time, memory.
    Test(TestArgs),
    /// Upload a component to a running gateway as a new version of a plugin.
    Push(PushArgs),
    /// List the versions of an uploaded plugin.
    Versions(VersionsArgs),
    /// Take a version of an uploaded plugin out of use for good.
    Retire(RetireArgs),
}

/// Runs the command.
///
/// # Errors
/// What could not be done, and what to try.
pub async fn run(command: &PluginCommand, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    match command {
        PluginCommand::New(args) => scaffold::new(args, out),
        PluginCommand::Build(args) => build::build(args, out).await,
        PluginCommand::Inspect(args) => inspect::inspect(args, out).await,
        PluginCommand::Test(args) => trial::test(args, out).await,
        PluginCommand::Push(args) => remote::push(args, out).await,
        PluginCommand::Versions(args) => remote::versions(args, out).await,
        PluginCommand::Retire(args) => remote::retire(args, out).await,
    }
}

/// Loads a component file, or the built-in plugin of that name.
async fn load(component: &Path) -> anyhow::Result<Plugin> {
    let name = component.file_stem().map_or_else(|| "plugin".to_owned(), |stem| stem.to_string_lossy().into_owned());
    let builtin = component.to_str().and_then(bundled::component);
    let bytes = match builtin {
        Some(bytes) if !component.exists() => bytes,
        Some(_) | None => read(component)?,
    };
    let host = PluginHost::new(HostConfig::default())?;
    Ok(host.load(&name, bytes).await?)
}

fn read(component: &Path) -> anyhow::Result<Bytes> {
    let read = std::fs::read(component).map(Bytes::from);
    read.with_context(|| {
        format!("cannot read {}; give a component file or the name of a built-in plugin", component.display())
    })
}

/// A folder given on the command line, or the present one.
fn folder(given: Option<&PathBuf>) -> PathBuf {
    given.cloned().unwrap_or_else(|| PathBuf::from("."))
}
