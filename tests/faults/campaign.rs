//! One run from its start to its verdict: load, faults at times the seed chooses, healing, recovery, drain, account.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluicegate_tests::gateway::Gateway;

use crate::fault::{Fault, await_that};
use crate::oracle::{Account, Latency};
use crate::table::Run;
use crate::world::{Servers, World};

/// Messages flow again so soon after the end of a fault.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// For all that was acknowledged to arrive, once everything is healed.
const DRAIN_LIMIT: Duration = Duration::from_secs(90);
/// From SIGTERM to the end: above the gateway's own limit for draining.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// Messages of each lane before the first fault.
const WARM_UP: u64 = 20;
/// A run with fewer shows nothing.
pub const LEAST_ACKNOWLEDGED: u64 = 1_000;
/// A fault waits as long for messages in flight.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// A fault falls among at least so many.
const BUSY: usize = 5;
/// The holds that the short form has.
const SHORT_HOLD_MS: u64 = 12_000;

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Findings {
    pub accounts: Vec<(String, Account)>,
    /// Faults that fell while messages were in flight, of all.
    pub landed: usize,
    pub faults: usize,
    pub recoveries: Vec<Duration>,
    /// P99 before, during and after faults.
    pub latency: [Option<Duration>; 3],
    pub peak_bytes: u64,
    /// The gateways' own retries and redrives, and messages that were given out once more after a fault.
    pub repeated: u64,
    pub troubles: Vec<String>,
    pub took: Duration,
}

/// A fault that was there: from being hit to the moment messages flowed again.
#[derive(Debug, Clone, Copy)]
struct Window {
    hit: Instant,
    recovered: Instant,
}

/// Runs it. `seconds` makes it a long one.
pub async fn run(run: &Run, servers: &mut Servers, seed: u64, seconds: Option<u64>) -> Result<Findings> {
    let began = Instant::now();
    let mut random = fastrand::Rng::with_seed(
        seed ^ run.name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)),
    );
    let mut world = World::start(run, &run.pairs(seed, seconds.is_some()), servers, seed).await?;
    world.start_load(run.rate);
    let (mut findings, mut windows) = (Findings::default(), Vec::new());
    let ended = hit_and_heal(run, &mut world, &mut random, seconds, &mut findings, &mut windows).await;
    world.sample().await;
    world.stop_load().await?;
    if let Err(error) = ended {
        findings.troubles.push(format!("{error:#}"));
    }
    drain(&mut world, &mut findings).await;
    findings.peak_bytes = world.peak_bytes();
    findings.accounts = world.lanes.iter().map(|lane| (lane.name(), lane.oracle.account(&world.deaths))).collect();
    let held_over = |window: &Window| world.lanes.iter().map(|lane| lane.oracle.held_over(window.hit)).sum::<u64>();
    findings.repeated = world.retries() + world.redriven + windows.iter().map(held_over).sum::<u64>();
    findings.latency = latencies(world.lanes.iter().flat_map(|lane| lane.oracle.latencies()), &windows);
    findings.troubles.append(&mut world.troubles);
    findings.took = began.elapsed();
    Ok(findings)
}

async fn hit_and_heal(
    run: &Run,
    world: &mut World<'_>,
    random: &mut fastrand::Rng,
    seconds: Option<u64>,
    findings: &mut Findings,
    windows: &mut Vec<Window>,
) -> Result<()> {
    await_that("messages flow before any fault", async || {
        Ok(world.lanes.iter().all(|lane| lane.oracle.delivered() >= WARM_UP))
    })
    .await?;
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(run.seconds));
    let first = random.usize(..run.faults.len());
    let mut round = 0;
    // Each kind once, whatever the time.
    while Instant::now() < end || round < run.faults.len() {
        let fault = run.faults[(first + round) % run.faults.len()];
        let holds = run.hold_ms.iter().copied().filter(|hold| seconds.is_some() || *hold <= SHORT_HOLD_MS);
        let holds: Vec<u64> = holds.collect();
        let hold = Duration::from_millis(holds[(round / run.faults.len()) % holds.len()]);
        tokio::time::sleep(Duration::from_millis(random.u64(300..1_500))).await;
        one(fault, hold, world, random.usize(..64), findings, windows).await.with_context(|| format!("{fault:?}"))?;
        round += 1;
    }
    await_that("enough messages are acknowledged", async || Ok(world.acknowledged() >= LEAST_ACKNOWLEDGED)).await?;
    // A little of the time after all faults belongs to the picture.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn one(
    fault: Fault,
    hold: Duration,
    world: &mut World<'_>,
    which: usize,
    findings: &mut Findings,
    windows: &mut Vec<Window>,
) -> Result<()> {
    world.sample().await;
    let in_flight = busy(world).await;
    findings.faults += 1;
    findings.landed += usize::from(in_flight > 0);
    let hit = Instant::now();
    fault.hit(world, which).await?;
    let unaffected = fault.unaffected(world.options.targets);
    if !unaffected.is_empty() {
        world.lanes.iter().for_each(|lane| lane.oracle.healed());
        recovered(world, unaffected).await.context("the targets beside it stand still")?;
    }
    tokio::time::sleep(hold).await;
    if fault.heals_by_starting() {
        world.lanes.iter().for_each(|lane| lane.oracle.healed());
    }
    fault.heal(world, which).await.context("healing")?;
    if !fault.heals_by_starting() {
        world.lanes.iter().for_each(|lane| lane.oracle.healed());
    }
    let targets = world.options.targets;
    findings.recoveries.extend(recovered(world, 0..targets).await?);
    windows.push(Window { hit, recovered: Instant::now() });
    Ok(())
}

/// Waits until messages are in flight, many if there are, and says how many.
async fn busy(world: &World<'_>) -> usize {
    let began = Instant::now();
    loop {
        let (now, waited) = (world.in_flight(), began.elapsed());
        if now >= BUSY || (now > 0 && waited > BUSY_LIMIT / 2) || waited > BUSY_LIMIT {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How long each lane took until messages flowed to these targets.
async fn recovered(world: &mut World<'_>, targets: std::ops::Range<usize>) -> Result<Vec<Duration>> {
    let began = Instant::now();
    loop {
        let times: Vec<Option<Duration>> =
            world.lanes.iter().map(|lane| lane.oracle.recovery(targets.clone())).collect();
        if let Some(times) = times.iter().copied().collect::<Option<Vec<_>>>() {
            for (lane, time) in world.lanes.iter().zip(&times).filter(|(_, time)| **time > RECOVERY_LIMIT) {
                world.troubles.push(format!("{} flowed only {time:?} after the fault's end", lane.name()));
            }
            return Ok(times);
        }
        if began.elapsed() > 3 * RECOVERY_LIMIT {
            let stand = world.lanes.iter().zip(&times).filter(|(_, time)| time.is_none()).map(|(lane, _)| lane.name());
            anyhow::bail!(
                "still no flow {:?} after the fault's end: {}",
                began.elapsed(),
                stand.collect::<Vec<_>>().join(", ")
            );
        }
        for gateway in &mut world.gateways {
            if !gateway.is_running()? {
                anyhow::bail!("the gateway has ended by itself: {}", last_lines(&gateway.output()));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All that was acknowledged arrives, all queues become empty, and the gateways stop when they are asked to.
async fn drain(world: &mut World<'_>, findings: &mut Findings) {
    let (began, mut looked) = (Instant::now(), Instant::now());
    let limit = if world.options.control { DRAIN_LIMIT / 6 } else { DRAIN_LIMIT };
    while began.elapsed() < limit {
        let is_open =
            |account: &Account| !account.lost.is_empty() || (world.options.redriven && account.dead_lettered > 0);
        if !world.lanes.iter().any(|lane| is_open(&lane.oracle.account(&world.deaths))) {
            break;
        }
        if looked.elapsed() > Duration::from_secs(3) {
            if let Err(error) = world.look_at_dead_letters().await {
                eprintln!("looking at the dead letters: {error:#}");
            }
            looked = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if let Err(error) = world.look_at_dead_letters().await {
        findings.troubles.push(format!("the dead letters cannot be listed: {error:#}"));
    }
    // The control loses messages between acknowledgement and delivery; nothing about its queues is right.
    if world.options.control {
        return;
    }
    if let Err(error) = await_that("everything is settled", async || world.ensure_settled().await.map(|()| true)).await
    {
        findings.troubles.push(format!("{error:#}"));
    }
    for gateway in &mut world.gateways {
        if let Err(error) = stop(gateway).await {
            findings.troubles.push(format!("{error:#}"));
        }
        let output = gateway.output();
        if output.contains("panicked at") {
            findings.troubles.push(format!("the gateway panicked: {}", panic_of(&output)));
        }
    }
    match world.left_in_brokers().await {
        Ok(left) => findings.troubles.extend(left),
        Err(error) => findings.troubles.push(format!("the brokers cannot be asked what is left: {error:#}")),
    }
}

/// SIGTERM: it drains and ends well.
async fn stop(gateway: &mut Gateway) -> Result<()> {
    gateway.terminate()?;
    let end = Instant::now() + STOP_LIMIT;
    while gateway.is_running()? {
        ensure!(Instant::now() < end, "asked to stop, the gateway still runs after {STOP_LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = gateway.ended(STOP_LIMIT).await;
    ensure!(status.success(), "asked to stop, the gateway ended with {status}");
    Ok(())
}

fn panic_of(output: &str) -> String {
    let from = output.find("panicked at").unwrap_or(0);
    output[from..].chars().take(400).collect()
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// P99 of messages that were through before the first fault, that any fault fell upon, and of the others.
fn latencies(all: impl Iterator<Item = Latency>, windows: &[Window]) -> [Option<Duration>; 3] {
    let mut phases: [Vec<Duration>; 3] = Default::default();
    for Latency { issued_at, took } in all {
        let upon = |window: &Window| issued_at <= window.recovered && issued_at + took >= window.hit;
        let during = windows.iter().any(upon);
        let before = windows.first().is_none_or(|first| issued_at < first.hit);
        phases[if during {
            1
        } else if before {
            0
        } else {
            2
        }]
        .push(took);
    }
    phases.map(|mut phase| percentile(&mut phase, 99))
}

/// The value that so many of a hundred do not exceed.
pub fn percentile(values: &mut [Duration], percent: usize) -> Option<Duration> {
    values.sort_unstable();
    values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied()
}
