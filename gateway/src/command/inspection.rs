//! The arguments of the commands that look at a configuration (`check`, `test`, `graph`), and what they need to run.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use sluicegate_plugin_host::{HostConfig, PluginHost};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::graph::Format;
use super::{Exit, Style, check, graph, test};
use crate::config::{self, Loaded, Process};
use crate::trial::{Bench, BlockingBench, ConfigBench};

/// Check a configuration without connecting to anything: all mistakes, or what each pipeline guarantees.
///
/// Exit code 0: it is clean. 2: it has mistakes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CheckArgs {
    /// Configuration files, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Run the test cases of a configuration; no broker is needed.
///
/// Exit code 0: all passed. 1: some failed. 2: the configuration has mistakes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TestArgs {
    /// Configuration files, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only tests whose name contains this text.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Draw the pipelines of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct GraphArgs {
    /// Configuration files, or folders of them.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What is drawn.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// `sluicegate check`.
///
/// # Errors
/// Writing fails, or plugins cannot be run at all on this machine.
pub async fn check(args: CheckArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let bench = Bench::new(PluginHost::new(HostConfig::default())?);
    let plugins = BlockingBench { bench: &bench, runtime: Handle::current() };
    // The check compiles plugins one after the other and asks for each: it blocks, beside the runtime.
    Ok(block_in_place(|| check::check(&args.files, &Process, &plugins, style(args.json), out))?)
}

/// `sluicegate test`.
///
/// # Errors
/// As [`check`].
pub async fn test(args: TestArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let loaded = match load(&args.files, args.json, out)? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let bench = Bench::new(PluginHost::new(HostConfig::default())?);
    let trial = ConfigBench { bench: &bench, config: &loaded.config };
    Ok(test::test(&loaded, &trial, args.only.as_deref(), style(args.json), out).await?)
}

/// `sluicegate graph`.
///
/// # Errors
/// Writing fails.
pub async fn graph(args: GraphArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    match load(&args.files, false, out)? {
        Ok(loaded) => Ok(graph::graph(&loaded, args.format, out)?),
        Err(exit) => Ok(exit),
    }
}

fn load(files: &[PathBuf], json: bool, out: &mut (dyn Write + Send)) -> anyhow::Result<Result<Loaded, Exit>> {
    match block_in_place(|| config::load(files, &Process)) {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(diagnostics) => {
            // A picture or report on standard output is for a program: mistakes go beside it, unless asked for as JSON.
            if json {
                check::mistakes(&diagnostics, style(true), out)?;
            } else {
                let colour = std::io::stderr().is_terminal();
                check::mistakes(&diagnostics, Style::Text { colour }, &mut std::io::stderr())?;
            }
            Ok(Err(Exit::Mistakes))
        }
    }
}

fn style(json: bool) -> Style {
    if json { Style::Json } else { Style::Text { colour: std::io::stdout().is_terminal() } }
}
