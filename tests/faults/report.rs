//! What the runs have shown, as a table for a terminal and as Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::campaign::{Findings, LEAST_ACKNOWLEDGED, percentile};
use crate::table::Run;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// It showed nothing, and why.
    Void(String),
    Failed(Vec<String>),
    Skipped(String),
}

/// A row.
#[derive(Debug)]
pub struct Row {
    pub run: &'static Run,
    pub seed: u64,
    pub findings: Findings,
    pub verdict: Verdict,
}

const TITLES: [&str; 15] = [
    "run",
    "verdict",
    "acked",
    "delivered",
    "dupl.",
    "lost",
    "excused",
    "corrupt",
    "dead",
    "faults",
    "recovery P50/P95/max",
    "P99 before/during/after",
    "peak MiB",
    "seed",
    "took",
];

/// Judges a run by the invariants.
pub fn judge(run: &Run, findings: &Findings) -> Verdict {
    let (mut wrong, sum) = (findings.troubles.clone(), Sum::of(findings));
    for (lane, account) in &findings.accounts {
        let violations = &account.violations;
        if !account.lost.is_empty() && !run.options.control {
            let first = &account.lost[..account.lost.len().min(5)];
            wrong.push(format!("{lane}: {} acknowledged messages are lost, {first:?} among them", account.lost.len()));
        }
        for (what, examples) in [
            ("arrived changed", &violations.corrupt),
            ("arrived that were never sent", &violations.never_issued),
            ("arrived out of order", &violations.out_of_order),
        ] {
            if let Some(first) = examples.first() {
                wrong.push(format!("{lane}: {} messages {what}, first {first}", examples.len()));
            }
        }
        if account.dead_lettered > 0 && run.options.redriven {
            wrong.push(format!("{lane}: {} dead letters were not redelivered", account.dead_lettered));
        }
    }
    if run.options.control {
        wrong.clear();
        if sum.lost == 0 {
            wrong.push("the oracle noticed no loss of a gateway that acknowledges early: it is blind".to_owned());
        }
    }
    if !wrong.is_empty() {
        return Verdict::Failed(wrong);
    }
    if sum.acknowledged < LEAST_ACKNOWLEDGED {
        return Verdict::Void(format!("only {} messages were acknowledged", sum.acknowledged));
    }
    if findings.landed == 0 {
        return Verdict::Void("no fault fell while messages were in flight".to_owned());
    }
    // What the control loses is never repeated.
    if sum.duplicates + findings.repeated == 0 && !run.options.control {
        return Verdict::Void("nothing was retried or repeated: the faults disturbed nothing".to_owned());
    }
    Verdict::Passed
}

/// Over all lanes.
#[derive(Default)]
struct Sum {
    acknowledged: u64,
    delivered: u64,
    duplicates: u64,
    lost: u64,
    excused: u64,
    corrupt: u64,
    dead: u64,
}

impl Sum {
    fn of(findings: &Findings) -> Self {
        let mut sum = Self::default();
        for (_, account) in &findings.accounts {
            sum.acknowledged += account.acknowledged;
            sum.delivered += account.delivered;
            sum.duplicates += account.duplicates;
            sum.lost += account.lost.len() as u64;
            sum.excused += account.excused;
            let violations = &account.violations;
            sum.corrupt += (violations.corrupt.len() + violations.never_issued.len()) as u64;
            sum.dead += account.dead_lettered;
        }
        sum
    }
}

impl Row {
    fn cells(&self) -> [String; 15] {
        let verdict = match &self.verdict {
            Verdict::Passed if self.run.options.control => "caught",
            Verdict::Passed => "passed",
            Verdict::Void(_) => "VOID",
            Verdict::Failed(_) => "FAILED",
            Verdict::Skipped(_) => "skipped",
        };
        let (findings, sum) = (&self.findings, Sum::of(&self.findings));
        let mut recoveries = findings.recoveries.clone();
        let recovery = [50, 95, 100].map(|percent| shown(percentile(&mut recoveries, percent)));
        [
            self.run.name.to_owned(),
            verdict.to_owned(),
            sum.acknowledged.to_string(),
            sum.delivered.to_string(),
            sum.duplicates.to_string(),
            sum.lost.to_string(),
            sum.excused.to_string(),
            sum.corrupt.to_string(),
            sum.dead.to_string(),
            format!("{}/{}", findings.landed, findings.faults),
            recovery.join(" / "),
            findings.latency.map(shown).join(" / "),
            (findings.peak_bytes >> 20).to_string(),
            self.seed.to_string(),
            format!("{:.0} s", findings.took.as_secs_f64()),
        ]
    }
}

fn shown(time: Option<Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < Duration::from_secs(1) => format!("{} ms", time.as_millis()),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// For a terminal, with what went wrong below.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![TITLES.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let mut widths = [0; 15];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(text, "{}", cells.join("  ").trim_end()).expect("a string takes all");
    }
    for row in rows {
        text.push_str(&remarks(row));
    }
    text
}

fn remarks(row: &Row) -> String {
    let name = row.run.name;
    match &row.verdict {
        Verdict::Passed => String::new(),
        Verdict::Void(why) => format!("{name} is VOID: {why}\n"),
        Verdict::Skipped(why) => format!("{name} is skipped: {why}\n"),
        Verdict::Failed(wrong) => wrong.iter().map(|wrong| format!("{name}: {wrong}\n")).collect(),
    }
}

/// The same as Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = format!("| {} |\n|{}\n", TITLES.join(" | "), "---|".repeat(TITLES.len()));
    for row in rows {
        writeln!(text, "| {} |", row.cells().join(" | ")).expect("a string takes all");
    }
    for row in rows.iter().filter(|row| row.verdict != Verdict::Passed) {
        writeln!(text, "\n{}", remarks(row)).expect("a string takes all");
    }
    text
}
