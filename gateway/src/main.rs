//! The `sluicegate` command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluicegate::command::backup::{self, BackupArgs, RestoreArgs};
use sluicegate::command::bench::{self, BenchArgs};
use sluicegate::command::dlq::{self, DlqCommand};
use sluicegate::command::inspection::{self, CheckArgs, GraphArgs, TestArgs};
use sluicegate::command::key::{self, KeyCommand};
use sluicegate::command::keys::{self, KeysCommand};
use sluicegate::command::plugin::{self, PluginCommand};
use sluicegate::command::queue::{self, QueueCommand, TailArgs};
use sluicegate::command::run::{self, Ended, RunArgs};
use sluicegate::command::schema;
use sluicegate::command::tenant::{self, TenantCommand};
use sluicegate::command::trace::{self, TraceArgs};
use sluicegate::telemetry::{self, LogFormat};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A message gateway whose filters, transforms and routers are WebAssembly components.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    /// How log lines on standard error look.
    #[arg(long, global = true, value_enum, default_value_t, env = "SLUICEGATE_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or a list as in info,sluicegate_engine=debug.
    #[arg(long, global = true, value_name = "FILTER", env = "SLUICEGATE_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Check(CheckArgs),
    Test(TestArgs),
    Graph(GraphArgs),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Make, build, inspect and try plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    Bench(BenchArgs),
    /// Read, repair and redrive dead letters.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Manage tenants: who shares this gateway, what they may use and how much of it.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Manage API keys, by which callers show who they are.
    #[command(subcommand)]
    Key(KeyCommand),
    /// List and rotate the keys that bodies are encrypted with.
    #[command(subcommand)]
    Keys(KeysCommand),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Trace(TraceArgs),
    /// Manage queues, publish to them and look into them.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Follow what is published to a queue, without consuming it.
    Tail(TailArgs),
}

/// The configuration has mistakes.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from).and_then(
            |runtime| {
                let outcome = runtime.block_on(execute(cli));
                // A blocked read of standard input must not keep the process alive.
                runtime.shutdown_background();
                outcome
            },
        );
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let quiet = !matches!(cli.command, Command::Run(_));
    let level = if quiet { "warn" } else { "info" };
    // lapin logs whole returned messages at `warn`; the connector says the same without their bodies.
    let filter = cli.log.unwrap_or_else(|| format!("{level},lapin=error"));
    telemetry::log(cli.log_format, &filter)?;
    let mut out = std::io::stdout();
    match cli.command {
        Command::Run(args) => {
            let metrics = telemetry::metrics()?;
            let upkeep = tokio::spawn(telemetry::upkeep(metrics.clone()));
            let ended = run::run(args, Some(metrics)).await;
            upkeep.abort();
            Ok(match ended? {
                Ended::Drained | Ended::GaveBack => ExitCode::SUCCESS,
                Ended::Misconfigured => ExitCode::from(MISCONFIGURED),
            })
        }
        Command::Check(args) => inspection::check(args, &mut out).await.map(ExitCode::from),
        Command::Test(args) => inspection::test(args, &mut out).await.map(ExitCode::from),
        Command::Graph(args) => inspection::graph(args, &mut out).await.map(ExitCode::from),
        Command::Schema => Ok(schema::schema(&mut out)?.into()),
        Command::Plugin(command) => plugin::run(&command, &mut out).await.map(ExitCode::from),
        Command::Bench(args) => bench::run(&args, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Trace(args) => {
            trace::run(&args, &args.store.find(None)?, &mut out).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Dlq(command) => {
            let place = command.store().find(command.master_key())?;
            dlq::run(&command, &place, &mut out).await?;
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Tenant(command) => tenant::run(&command, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Key(command) => key::run(&command, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Keys(command) => keys::run(&command, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Backup(args) => backup::back_up(args, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Restore(args) => backup::restore(args, &mut out).await.map(|()| ExitCode::SUCCESS),
        Command::Queue(command) => manage_queues(&command).await,
        Command::Tail(args) => manage_queues(&QueueCommand::Tail(args)).await,
    }
}

async fn manage_queues(command: &QueueCommand) -> anyhow::Result<ExitCode> {
    let place = command.place().find()?;
    queue::run(command, &place, &mut queue::ask_at_terminal, &mut std::io::stdout()).await?;
    Ok(ExitCode::SUCCESS)
}
