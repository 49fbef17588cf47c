//! What was measured, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::Plan;
use super::broker::System;
use super::ingestion::IngestionReport;
use super::latency::Latency;
use super::side::Side;
use super::throughput::Round;

/// The share of the bare loop's throughput that the gateway is to reach.
const GOAL: f64 = 0.9;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Of this program.
    version: &'static str,
    /// A debug build measures nothing of interest.
    is_debug_build: bool,
    processors: usize,
    body_bytes: usize,
    in_flight: u16,
    rounds: u64,
    latency_messages_per_second: u64,
    filter: String,
    systems: Vec<SystemReport>,
    ingestion: Option<IngestionReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct SystemReport {
    system: System,
    messages_per_round: u64,
    sides: Vec<SideReport>,
}

/// A side's rounds, and what they have in common.
#[derive(Debug, Serialize)]
struct SideReport {
    side: Side,
    /// Median throughput as a share of the bare loop's.
    ratio: f64,
    messages_per_second: Spread,
    cpu_us_per_message: Option<Spread>,
    peak_bytes: Option<u64>,
    latency: Option<Latency>,
    rounds: Vec<Round>,
}

/// The middle and the ends of what several rounds gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

impl Report {
    pub fn new(plan: &Plan, systems: Vec<SystemReport>, ingestion: Option<IngestionReport>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            is_debug_build: cfg!(debug_assertions),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            body_bytes: plan.body_bytes,
            in_flight: plan.in_flight,
            rounds: plan.rounds,
            latency_messages_per_second: plan.latency_rate,
            filter: plan.filter.clone(),
            systems,
            ingestion,
        }
    }
}

impl SystemReport {
    /// Nothing measured yet. The first side is the one the others are compared with.
    pub fn new(system: System, messages_per_round: u64, sides: &[Side]) -> Self {
        Self { system, messages_per_round, sides: sides.iter().copied().map(SideReport::new).collect() }
    }

    pub fn add_round(&mut self, side: Side, round: Round) {
        for report in self.sides.iter_mut().filter(|report| report.side == side) {
            report.rounds.push(round.clone());
            let rounds = &report.rounds;
            report.messages_per_second =
                Spread::of(rounds.iter().map(|round| round.messages_per_second)).unwrap_or_default();
            report.cpu_us_per_message = Spread::of(rounds.iter().filter_map(|round| round.cpu_us_per_message));
            report.peak_bytes = rounds.iter().filter_map(|round| round.peak_bytes).max();
        }
        let bare = self.sides.first().map_or(0.0, |first| first.messages_per_second.median);
        for report in &mut self.sides {
            report.ratio = if bare > 0.0 { report.messages_per_second.median / bare } else { 0.0 };
        }
    }

    /// The throughput with a receipt of every message, as a share of that with none; when both were measured.
    fn share_with_receipts(&self) -> Option<f64> {
        let median = |wanted: Side| {
            let side = self.sides.iter().find(|report| report.side == wanted)?;
            Some(side.messages_per_second.median).filter(|median| *median > 0.0)
        };
        Some(median(Side::GatewayWithReceipts)? / median(Side::GatewayWithoutReceipts)?)
    }

    pub fn add_latency(&mut self, side: Side, latency: Latency) {
        for report in self.sides.iter_mut().filter(|report| report.side == side) {
            report.latency = Some(latency.clone());
        }
    }
}

impl SideReport {
    fn new(side: Side) -> Self {
        Self {
            side,
            ratio: 0.0,
            messages_per_second: Spread::default(),
            cpu_us_per_message: None,
            peak_bytes: None,
            latency: None,
            rounds: Vec::new(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sluicegate {}{} on {} processors; bodies of {} bytes, {} in flight, {} rounds\nsteps: filter {}, route topic-router",
            self.version,
            if self.is_debug_build { " (DEBUG BUILD)" } else { "" },
            self.processors,
            self.body_bytes,
            self.in_flight,
            self.rounds,
            self.filter,
        )?;
        for system in &self.systems {
            writeln!(f, "\n{} to {}, {} messages a round", system.system, system.system, system.messages_per_round)?;
            writeln!(
                f,
                "  {:<14} {:>10} {:>19} {:>6} {:>12} {:>12}   latency at {}/s",
                "",
                "messages/s",
                "(min – max)",
                "ratio",
                "CPU/message",
                "peak memory",
                self.latency_messages_per_second
            )?;
            for side in &system.sides {
                write_side(side, f)?;
            }
            if let Some(gateway) = system.sides.iter().find(|side| side.side == Side::Gateway) {
                let judgement = if gateway.ratio >= GOAL { "reached" } else { "missed" };
                writeln!(f, "  the gateway at {:.2} of the bare loop; goal {GOAL:.2} {judgement}", gateway.ratio)?;
            }
            if let Some(share) = system.share_with_receipts() {
                writeln!(f, "  receipts of all messages: {share:.2} of the rate without receipts")?;
            }
        }
        if let Some(ingestion) = &self.ingestion {
            ingestion.fmt(f)?;
        }
        Ok(())
    }
}

fn write_side(side: &SideReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let rate = side.messages_per_second;
    let spread = format!("({:.0} – {:.0})", rate.min, rate.max);
    let cpu = side.cpu_us_per_message.map_or("-".to_owned(), |cpu| format!("{:.1} µs", cpu.median));
    let memory = side.peak_bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64));
    let latency = side.latency.as_ref().map_or("-".to_owned(), |latency| {
        let ms = |us: u64| us as f64 / 1_000.0;
        let (p50, p99, p999) = (ms(latency.p50_us), ms(latency.p99_us), ms(latency.p999_us));
        format!("P50 {p50:.2} ms, P99 {p99:.2} ms, P99.9 {p999:.2} ms")
    });
    let name = side.side.to_string();
    writeln!(
        f,
        "  {name:<14} {:>10.0} {spread:>19} {:>6.2} {cpu:>12} {memory:>12}   {latency}",
        rate.median, side.ratio
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_the_middle() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn the_ratio_is_of_the_medians_and_is_judged() {
        let round = |messages_per_second| Round {
            messages_per_second,
            cpu_us_per_message: Some(10.0),
            peak_bytes: Some(5 << 20),
        };
        let mut system = SystemReport::new(System::Redis, 1_000, &[Side::Bare, Side::Gateway]);
        for rate in [90.0, 100.0, 400.0] {
            system.add_round(Side::Bare, round(rate));
        }
        for rate in [85.0, 89.0, 91.0] {
            system.add_round(Side::Gateway, round(rate));
        }
        assert!((system.sides[1].ratio - 0.89).abs() < 1e-9, "{system:?}");
        let plan = Plan {
            program: "sluicegate".into(),
            seconds: 1,
            rounds: 3,
            body_bytes: 1_024,
            in_flight: 256,
            latency_rate: 0,
            filter: "f".to_owned(),
            sides: Vec::new(),
            data_dir: "data".into(),
        };
        let text = Report::new(&plan, vec![system], None).to_string();
        let row = "gateway                89           (85 – 91)   0.89      10.0 µs      5.0 MiB   -\n";
        assert!(text.contains(row), "{text}");
        assert!(text.ends_with("the gateway at 0.89 of the bare loop; goal 0.90 missed\n"), "{text}");
    }

    #[test]
    fn what_receipts_cost_is_said_when_it_was_measured() {
        let round = |messages_per_second| Round { messages_per_second, cpu_us_per_message: None, peak_bytes: None };
        let sides = [Side::Bare, Side::Gateway, Side::GatewayWithoutReceipts, Side::GatewayWithReceipts];
        let mut system = SystemReport::new(System::Redis, 1_000, &sides);
        assert_eq!(system.share_with_receipts(), None);
        system.add_round(Side::GatewayWithoutReceipts, round(200.0));
        system.add_round(Side::GatewayWithReceipts, round(190.0));
        assert_eq!(system.share_with_receipts(), Some(0.95));
    }
}
