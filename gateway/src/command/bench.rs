//! `sluicegate bench`: the gateway beside a bare client loop that does the same work, in one run on one machine.
//!
//! Each side is a process of its own: this program as `run` with a generated pipeline, and this program as the bare loop.
//! The load is in the source before a side starts; progress is read off the target, so that measuring costs both sides
//! the same. Rounds alternate, and the side that begins alternates too. What is counted: messages at the target between
//! the first tenth and the last one, processor time and peak memory of the side's process, and the way's time at a fixed
//! rate, too low to queue.

mod broker;
mod gateway;
mod ingestion;
mod latency;
mod load;
mod rabbitmq;
mod redis;
mod report;
mod side;
mod throughput;
mod usage;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

pub use broker::System;
use broker::{Broker, Names};
use report::{Report, SystemReport};
use side::Side;

/// Measures the gateway beside bare client loops.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// RabbitMQ to measure with.
    #[arg(long, env = "AMQP_URL", hide_env_values = true, default_value = "amqp://localhost:5672")]
    pub amqp_url: String,
    /// Redis to measure with.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, default_value = "redis://localhost:6379")]
    pub redis_url: String,
    /// Only this; may be repeated.
    #[arg(long, value_enum)]
    pub only: Vec<Subject>,
    /// About how long each side is measured in a round, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// How often both sides are measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub rounds: u64,
    /// Size of a body, in bytes.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(128..=1_048_576))]
    pub body_bytes: u64,
    /// Most messages in flight: the prefetch of RabbitMQ, the batch of Redis Streams.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub in_flight: u16,
    /// Messages per second while latency is measured; 0 leaves it out.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=20_000))]
    pub latency_rate: u64,
    /// The filter step as in a configuration; by default one jq program.
    #[arg(long, value_name = "YAML", default_value = gateway::DEFAULT_FILTER)]
    pub filter: String,
    /// Also measures the gateway without steps: what the plugins cost and what the rest does.
    #[arg(long)]
    pub without_steps: bool,
    /// Also measures the gateway with a receipt of every message and of none: what receipts cost.
    #[arg(long)]
    pub receipts: bool,
    /// One JSON object with every round.
    #[arg(long)]
    pub json: bool,
    /// Runs as the bare side of a measurement.
    #[command(subcommand)]
    pub side: Option<BareSide>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// RabbitMQ to RabbitMQ.
    Rabbitmq,
    /// Redis Stream to Redis Stream.
    Redis,
    /// HTTP ingestion, answered 202 once on disk.
    Http,
}

/// The bare side, started by a measurement with the broker's address in [`side::URL_VARIABLE`].
#[derive(Debug, Clone, clap::Subcommand)]
pub enum BareSide {
    /// Copies messages with the system's client library alone, until it is killed.
    #[command(hide = true)]
    BareLoop {
        /// The system.
        #[arg(value_enum)]
        system: System,
        /// Queue or stream to read.
        from: String,
        /// Exchange or stream to write.
        to: String,
        /// Most messages in flight.
        in_flight: u16,
    },
    /// Answers requests and stores nothing, until it is killed.
    #[command(hide = true)]
    BareServer {
        /// Where on the loopback interface it listens.
        port: u16,
    },
}

/// What is measured, the same for both sides.
#[derive(Debug, Clone)]
struct Plan {
    program: PathBuf,
    seconds: u64,
    rounds: u64,
    body_bytes: usize,
    in_flight: u16,
    latency_rate: u64,
    filter: String,
    /// The bare loop first: the others are compared with it.
    sides: Vec<Side>,
    /// Of every gateway, so that only the first one compiles the plugins.
    data_dir: PathBuf,
}

/// Measures and writes the report to `out`; says on standard error what it is doing. Everything it makes in the brokers
/// is removed, also when it is interrupted.
///
/// # Errors
/// A broker that does not answer, a side that ends or stands still: with its last words.
pub async fn run(args: &BenchArgs, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(side) = &args.side {
        return run_bare(side).await;
    }
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; build with --release for numbers that mean something");
    }
    let data_dir = tempfile::Builder::new().prefix("sluicegate-bench-").tempdir()?;
    let mut sides = vec![Side::Bare, Side::Gateway];
    if args.without_steps {
        sides.insert(1, Side::GatewayWithoutSteps);
    }
    if args.receipts {
        sides.extend([Side::GatewayWithoutReceipts, Side::GatewayWithReceipts]);
    }
    let plan = Plan {
        program: std::env::current_exe().context("cannot find this program's own file")?,
        seconds: args.seconds,
        rounds: args.rounds,
        body_bytes: usize::try_from(args.body_bytes)?,
        in_flight: args.in_flight,
        latency_rate: args.latency_rate,
        filter: args.filter.clone(),
        sides,
        data_dir: data_dir.path().to_owned(),
    };
    let subjects = match &args.only[..] {
        [] => &[Subject::Rabbitmq, Subject::Redis, Subject::Http],
        only => only,
    };
    let (mut reports, mut ingestion) = (Vec::new(), None);
    for subject in subjects {
        match subject {
            Subject::Rabbitmq => reports.push(measure_system(System::Rabbitmq, &args.amqp_url, &plan).await?),
            Subject::Redis => reports.push(measure_system(System::Redis, &args.redis_url, &plan).await?),
            Subject::Http => {
                let progress = spinner()?;
                let measured = ingestion::measure(&plan, |message| progress.set_message(message)).await;
                progress.finish_and_clear();
                ingestion = Some(measured?);
            }
        }
    }
    let report = Report::new(&plan, reports, ingestion);
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(())
}

async fn run_bare(side: &BareSide) -> anyhow::Result<()> {
    match side {
        BareSide::BareLoop { system, from, to, in_flight } => {
            let url =
                std::env::var(side::URL_VARIABLE).context("the bare loop is started by `sluicegate bench` alone")?;
            match system {
                System::Rabbitmq => rabbitmq::bare_loop(&url, from, to, *in_flight).await,
                System::Redis => redis::bare_loop(&url, from, to, *in_flight).await,
            }
        }
        BareSide::BareServer { port } => ingestion::bare_server(*port).await,
    }
}

fn spinner() -> anyhow::Result<ProgressBar> {
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
    progress.enable_steady_tick(std::time::Duration::from_millis(200));
    Ok(progress)
}

async fn measure_system(system: System, url: &str, plan: &Plan) -> anyhow::Result<SystemReport> {
    let mut broker = broker::connect(system, url, Names::unique()).await?;
    let progress = spinner()?;
    let measured = tokio::select! {
        measured = measure(system, url, plan, &mut *broker, &progress) => measured,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot wait for an interrupt")?;
            Err(anyhow::anyhow!("interrupted"))
        }
    };
    progress.finish_and_clear();
    let removed = broker.remove().await;
    let report = measured?;
    removed?;
    Ok(report)
}

async fn measure(
    system: System,
    url: &str,
    plan: &Plan,
    broker: &mut dyn Broker,
    progress: &ProgressBar,
) -> anyhow::Result<SystemReport> {
    // Tells how many messages make a round, and fills every cache.
    let mut fastest: f64 = 0.0;
    for &side in &plan.sides {
        progress.set_message(format!("{system}: trial, {side}"));
        let trial = throughput::measure(side, system, url, plan, broker, throughput::trial_messages(plan)).await?;
        fastest = fastest.max(trial.messages_per_second);
    }
    let messages = throughput::messages_for(fastest, plan);
    let mut report = SystemReport::new(system, messages, &plan.sides);
    for round in 1..=plan.rounds {
        // The side that begins has the colder caches and the emptier broker: take turns.
        let mut order = plan.sides.clone();
        if round % 2 == 0 {
            order.reverse();
        }
        for side in order {
            progress.set_message(format!("{system}: round {round} of {}, {side}, {messages} messages", plan.rounds));
            report.add_round(side, throughput::measure(side, system, url, plan, broker, messages).await?);
        }
    }
    if plan.latency_rate > 0 {
        for &side in &plan.sides {
            progress.set_message(format!("{system}: latency, {side}, {} messages/s", plan.latency_rate));
            report.add_latency(side, latency::measure(side, system, url, plan, broker).await?);
        }
    }
    Ok(report)
}
