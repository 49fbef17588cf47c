//! Logs and metrics of the process: set up once, before anything else.

use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Bounds of durations, in seconds: from a plugin call to a webhook that times out.
const SECONDS: [f64; 16] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// Bounds of batch sizes, in messages.
const MESSAGES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How often histograms are taken in, which bounds the memory of what was recorded and not yet read.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Logs to standard error: `filter` is a level or a list as in `info,sluicegate_engine=debug`.
///
/// # Errors
/// The filter cannot be read.
pub fn log(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| {
        format!("cannot read the log filter `{filter}`; try `info` or `info,sluicegate_engine=debug`")
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal as _;
            subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
        }
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Starts to record metrics, and describes those of requirement A6.
///
/// # Errors
/// Metrics are recorded already in this process.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), &MESSAGES))
        .context("cannot set up metrics")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("metrics are recorded already in this process")?;
    metrics::describe_gauge!("mq_connection_status", "1 while the source or target is connected");
    metrics::describe_counter!("mq_messages_published_total", "Messages a target has confirmed");
    metrics::describe_counter!("mq_messages_consumed_total", "Messages read from a source, redeliveries included");
    metrics::describe_histogram!(
        "mq_message_processing_duration_seconds",
        metrics::Unit::Seconds,
        "From reading a message to its settlement"
    );
    metrics::describe_counter!("mq_message_processing_errors_total", "Messages that failed for good, by class");
    metrics::describe_counter!("sluicegate_dead_letters_total", "Dead letters made durable, by class");
    metrics::describe_counter!("sluicegate_receipts_total", "Receipts written to the store");
    metrics::describe_counter!("sluicegate_receipts_lost_total", "Receipts that did not fit or could not be written");
    metrics::describe_counter!("sluicegate_retries_total", "Tries after a failure");
    metrics::describe_counter!("sluicegate_messages_settled_total", "Messages by what became of them");
    metrics::describe_counter!("sluicegate_step_messages_total", "Messages by step and result");
    metrics::describe_counter!(
        "sluicegate_plugin_host_calls_total",
        "Calls of plugins to what they are granted, by outcome"
    );
    metrics::describe_gauge!("sluicegate_breaker_state", "Circuit breaker of a target: 0 closed, 1 half-open, 2 open");
    Ok(handle)
}

/// Keeps the memory of histograms bounded; runs until dropped.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut ticks = interval(UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        handle.run_upkeep();
    }
}
