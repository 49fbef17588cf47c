//! How long a message is on its way at a fixed rate.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::Plan;
use super::broker::{Broker, Receiving, Sending, System};
use super::load;
use super::side::{Running, Side};

/// Messages that go ahead: they wait for the side to start and warm it up.
const WARM_UP_MESSAGES: u64 = 500;
/// How long those may take. Long enough to compile plugins.
const WARM_UP_LIMIT: Duration = Duration::from_secs(120);
/// How long the last message may take.
const LAST_LIMIT: Duration = Duration::from_secs(30);

/// From the moment of sending to the moment of receiving, in microseconds.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Latency {
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub messages: usize,
}

pub(super) async fn measure(
    side: Side,
    system: System,
    url: &str,
    plan: &Plan,
    broker: &mut dyn Broker,
) -> anyhow::Result<Latency> {
    broker.create().await?;
    let (mut sending, mut receiving) = broker.ends().await?;
    let mut running = Running::start(side, system, url, broker.names(), plan)?;
    let start = Instant::now();

    let gap = Duration::from_secs(1) / u32::try_from(plan.latency_rate).unwrap_or(u32::MAX).max(1);
    send(&mut *sending, start, WARM_UP_MESSAGES, gap, plan.body_bytes).await?;
    receive(&mut *receiving, &mut running, start, WARM_UP_MESSAGES, WARM_UP_LIMIT).await?;

    let messages = plan.latency_rate * plan.seconds;
    let limit = Duration::from_secs(plan.seconds) + LAST_LIMIT;
    let (sent, received) = tokio::join!(
        send(&mut *sending, start, messages, gap, plan.body_bytes),
        receive(&mut *receiving, &mut running, start, messages, limit)
    );
    sent?;
    let latency = Latency::of(received?);
    running.kill().await?;
    Ok(latency)
}

/// Keeps the rate whatever the answers: a message that is late does not hold back the next, which would hide the delay.
async fn send(
    sending: &mut dyn Sending,
    start: Instant,
    messages: u64,
    gap: Duration,
    body_bytes: usize,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(gap);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..messages {
        ticks.tick().await;
        sending.send(number, load::body(number, load::stamp_us(start), body_bytes)).await?;
    }
    Ok(())
}

/// The times of that many messages.
async fn receive(
    receiving: &mut dyn Receiving,
    running: &mut Running,
    start: Instant,
    messages: u64,
    limit: Duration,
) -> anyhow::Result<Vec<u64>> {
    let begun = Instant::now();
    let mut times_us = Vec::new();
    while (times_us.len() as u64) < messages {
        let bodies = receiving.receive().await?;
        let now_us = load::stamp_us(start);
        times_us.extend(bodies.iter().filter_map(|body| load::sent_us(body)).map(|sent| now_us.saturating_sub(sent)));
        running.usage()?;
        if begun.elapsed() > limit {
            return Err(running.failed(format!("has delivered {} of {messages} messages in {limit:?}", times_us.len())));
        }
    }
    Ok(times_us)
}

impl Latency {
    fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let at = |per_mille: usize| {
            let rank = (times_us.len() * per_mille).div_ceil(1_000);
            times_us.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50_us: at(500), p99_us: at(990), p999_us: at(999), max_us: at(1_000), messages: times_us.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let latency = Latency::of((1..=1_000).rev().collect());
        assert_eq!((latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us), (500, 990, 999, 1_000));
        let latency = Latency::of(vec![7]);
        assert_eq!((latency.p50_us, latency.p999_us, latency.max_us, latency.messages), (7, 7, 7, 1));
        assert_eq!(Latency::of(Vec::new()).max_us, 0);
    }
}
