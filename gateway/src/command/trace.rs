//! `sluicegate trace`: what happened to a message. It reads the store while a gateway runs on it and after.

mod search;
mod timeline;

use std::io::Write;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use sluicegate_store::Reader;
use sluicegate_store::receipt::{Ending, Filter};

use super::dlq::{is_broken_pipe, parse_time};
use super::location::{Place, StoreArgs};
use crate::trace::{ShownTrace, Trace, explain_unknown};

/// Most receipts one search prints.
const MAX_LISTED_RECEIPTS: u64 = 1_000_000;

/// Shows what happened to a message: accepted, each step, each failed attempt, parked, delivered or dead-lettered. Without
/// an id, searches.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TraceArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The message's id, whole.
    #[arg(
        value_name = "ID",
        conflicts_with_all = ["correlation_id", "key", "pipeline", "settlement", "since", "until", "failed", "limit", "counts"]
    )]
    pub id: Option<String>,
    /// Messages with this correlation id.
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// Messages with this key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only what ended so: delivered, dropped, parked, dead_lettered, postponed or requeued.
    #[arg(long, value_name = "SETTLEMENT", value_parser = parse_ending)]
    pub settlement: Option<Ending>,
    /// Only what began at this time or later: 2026-11-20T16:00:00Z, or how long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
    /// Only what began before this time; written as for --since.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Timestamp>,
    /// Only where an attempt failed or a dead letter came of it.
    #[arg(long)]
    pub failed: bool,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=MAX_LISTED_RECEIPTS))]
    pub limit: u64,
    /// How many receipts ended how, by pipeline, instead of the receipts.
    #[arg(long)]
    pub counts: bool,
    /// As JSON: one object for an id, one a line for a search.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command and writes the answer to `out`. A reader of `out` that goes away (`| head`) ends it without an error.
///
/// # Errors
/// No store there, one that cannot be read, or nothing known of the id; each says what to try.
pub async fn run(args: &TraceArgs, found: &Place, out: &mut impl Write) -> anyhow::Result<()> {
    let reader = Reader::open(&found.options).await.context("cannot read the receipts")?;
    let answered = match &args.id {
        Some(id) => show(args, id, found, &reader, out).await,
        None if args.counts => search::count(args, &reader, out).await,
        None => search::search(args, &reader, out).await,
    };
    reader.close().await;
    match answered {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

async fn show(args: &TraceArgs, id: &str, found: &Place, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let Some(trace) = Trace::find(reader, id).await? else {
        bail!("{}", explain_unknown(id, found.config.as_ref().map(|config| &config.receipts)));
    };
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &ShownTrace::from(&trace))?;
        writeln!(out)?;
    } else {
        timeline::write(&trace, out)?;
    }
    out.flush()?;
    Ok(())
}

impl TraceArgs {
    fn filter(&self) -> Filter {
        // Nothing began before 1970.
        let milliseconds = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
        Filter {
            correlation_id: self.correlation_id.clone(),
            key: self.key.clone().map(Into::into),
            pipeline: self.pipeline.clone(),
            ending: self.settlement,
            failed: self.failed,
            since_ms: self.since.map(milliseconds),
            until_ms: self.until.map(milliseconds),
        }
    }
}

fn parse_ending(name: &str) -> Result<Ending, String> {
    Ending::from_name(name)
        .ok_or_else(|| format!("not a settlement; there are {}", Ending::ALL.map(Ending::name).join(", ")))
}

#[cfg(test)]
mod tests;
