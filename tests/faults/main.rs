//! Fault runs: messages flow through the real gateway and real brokers while these are killed, stopped, cut off and
//! filled up, and an oracle that no fault touches tells whether all that was acknowledged arrived, unchanged and in
//! order. `table` has the runs, `campaign` is one of them from start to verdict.
//!
//!     tests/run faults                        the short form, some minutes
//!     tests/run faults --seed 7               another schedule
//!     tests/run faults --seconds 120 -- redis  the long form of those whose names contain `redis`
//!
//! Environment: SLUICEGATE_FAULT_SEED (default 1), SLUICEGATE_FAULT_SECONDS (the long form, so long each run),
//! SLUICEGATE_FAULT_REPORT (a file for the results as Markdown).

mod arrival;
mod campaign;
mod fault;
mod hook;
mod lane;
mod load;
mod oracle;
mod payload;
mod proxy;
mod report;
mod table;
mod world;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use futures_util::FutureExt;
use sluicegate_tests::process::keep_output_in;

use campaign::Findings;
use report::{Row, Verdict, judge};
use table::{RUNS, Run};
use world::Servers;

/// What is asked for on the command line, which is that of a test binary.
struct Asked {
    list: bool,
    exact: bool,
    filters: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let asked = asked();
    let chosen: Vec<&'static Run> = RUNS.iter().filter(|run| asked.wants(run)).collect();
    if asked.list {
        chosen.iter().for_each(|run| println!("{}: test", run.name));
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(run_all(&chosen))
}

fn asked() -> Asked {
    let mut asked = Asked { list: false, exact: false, filters: Vec::new() };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--list" => asked.list = true,
            "--exact" => asked.exact = true,
            // Those of test harnesses that change nothing here; `--ignored` asks for tests there are none of.
            other if other.starts_with("--") || other == "terse" || other == "pretty" => {
                if other == "--ignored" {
                    asked.filters.push("no run is ignored".to_owned());
                }
            }
            name => asked.filters.push(name.to_owned()),
        }
    }
    asked
}

impl Asked {
    fn wants(&self, run: &Run) -> bool {
        let fits = |filter: &String| if self.exact { run.name == filter } else { run.name.contains(filter.as_str()) };
        self.filters.is_empty() || self.filters.iter().any(fits)
    }
}

async fn run_all(chosen: &[&'static Run]) -> Result<ExitCode> {
    let output = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/faults-output.log");
    std::fs::write(&output, "").with_context(|| format!("emptying {}", output.display()))?;
    println!("what gateways and brokers say is kept in {}", output.display());
    keep_output_in(output);
    let seed = number("SLUICEGATE_FAULT_SEED")?.unwrap_or(1);
    let seconds = number("SLUICEGATE_FAULT_SECONDS")?;
    let mut servers = Servers::default();
    let mut rows = Vec::new();
    for run in chosen {
        println!("{}: {}", run.name, run.about);
        let row = match world::obstacle(run) {
            Some(why) => Row { run, seed, findings: Findings::default(), verdict: Verdict::Skipped(why) },
            None => match unwound(campaign::run(run, &mut servers, seed, seconds)).await {
                Ok(findings) => Row { run, seed, verdict: judge(run, &findings), findings },
                Err(error) => {
                    // A server may be left dead or stopped: the next run starts its own.
                    servers = Servers::default();
                    let verdict = Verdict::Failed(vec![format!("{error:#}")]);
                    Row { run, seed, findings: Findings::default(), verdict }
                }
            },
        };
        if matches!(row.verdict, Verdict::Failed(_)) {
            servers = Servers::default();
        }
        println!("{}", report::table(std::slice::from_ref(&row)));
        rows.push(row);
    }
    println!("\n{}", report::table(&rows));
    if let Some(path) = std::env::var_os("SLUICEGATE_FAULT_REPORT") {
        std::fs::write(&path, report::markdown(&rows)).with_context(|| format!("writing {}", path.display()))?;
    }
    let count = |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_) | Verdict::Void(_)));
    let (passed, skipped) =
        (count(|verdict| *verdict == Verdict::Passed), count(|verdict| matches!(verdict, Verdict::Skipped(_))));
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {passed} passed; {failed} failed; {skipped} ignored; seed {seed}");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the tests' own instruments wait for in vain panics; the other runs take place all the same.
async fn unwound<T>(running: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map_or("a panic without text", String::as_str);
        Err(anyhow::anyhow!("{text}"))
    })
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{variable} is {text:?}, not a number"))?))
}
