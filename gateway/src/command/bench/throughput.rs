//! How many messages a second a side carries, and at what cost.

use std::time::{Duration, Instant};

use super::Plan;
use super::broker::{Broker, System};
use super::side::{Running, Side};
use super::usage::Usage;

/// Most messages of the trial that tells how many make a round.
const MAX_TRIAL_MESSAGES: u64 = 20_000;
/// Messages of the trial for each second of a round: a short measurement has a short trial.
const TRIAL_MESSAGES_PER_SECOND: u64 = 2_000;
/// Most messages of a round, whatever the speed: Redis keeps them all in memory, twice.
const MAX_ROUND_MESSAGES: u64 = 400_000;
/// Most bytes of bodies of a round, for the same reason.
const MAX_ROUND_BYTES: u64 = 1 << 30;
/// Between two looks at the target.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A side that delivers nothing for so long has failed. Long enough to compile plugins at its start.
const STANDSTILL: Duration = Duration::from_secs(60);

/// What one side did in one round.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Round {
    pub messages_per_second: f64,
    /// Processor time of the side's process, in microseconds; the broker's is not in it.
    pub cpu_us_per_message: Option<f64>,
    /// The most memory the side had resident, in bytes.
    pub peak_bytes: Option<u64>,
}

/// How many messages the trial has.
pub(super) fn trial_messages(plan: &Plan) -> u64 {
    (plan.seconds * TRIAL_MESSAGES_PER_SECOND).min(MAX_TRIAL_MESSAGES)
}

/// How many messages take about as long as the plan says.
pub(super) fn messages_for(messages_per_second: f64, plan: &Plan) -> u64 {
    let by_memory = MAX_ROUND_BYTES / plan.body_bytes as u64;
    let wanted = (messages_per_second * plan.seconds as f64) as u64;
    wanted.min(by_memory).clamp(1_000, MAX_ROUND_MESSAGES)
}

/// The beginning or the end of what is measured.
struct Mark {
    at: Instant,
    arrived: u64,
    usage: Option<Usage>,
}

/// Fills the source, starts the side and watches the target until everything has arrived.
pub(super) async fn measure(
    side: Side,
    system: System,
    url: &str,
    plan: &Plan,
    broker: &mut dyn Broker,
    messages: u64,
) -> anyhow::Result<Round> {
    broker.create().await?;
    broker.fill(messages, plan.body_bytes).await?;
    let mut running = Running::start(side, system, url, broker.names(), plan)?;
    let first = await_arrivals(messages / 10, broker, &mut running).await?;
    let last = await_arrivals(messages, broker, &mut running).await?;
    running.kill().await?;

    let carried = last.arrived.saturating_sub(first.arrived).max(1) as f64;
    let used = first.usage.zip(last.usage);
    Ok(Round {
        messages_per_second: carried / (last.at - first.at).as_secs_f64().max(f64::EPSILON),
        cpu_us_per_message: used.map(|(first, last)| (last.cpu_ms - first.cpu_ms) as f64 * 1_000.0 / carried),
        peak_bytes: last.usage.map(|usage| usage.peak_bytes),
    })
}

async fn await_arrivals(wanted: u64, broker: &mut dyn Broker, running: &mut Running) -> anyhow::Result<Mark> {
    let (mut most, mut moved_at) = (0, Instant::now());
    loop {
        let arrived = broker.arrived().await?;
        let at = Instant::now();
        let usage = running.usage()?;
        if arrived >= wanted {
            return Ok(Mark { at, arrived, usage });
        }
        if arrived > most {
            (most, moved_at) = (arrived, at);
        }
        if at - moved_at > STANDSTILL {
            let why = format!("has delivered nothing for {STANDSTILL:?}, {arrived} of {wanted} messages have arrived");
            return Err(running.failed(why));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
