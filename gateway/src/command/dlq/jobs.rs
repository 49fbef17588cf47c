//! `dlq jobs`, `dlq pause`, `dlq resume`, `dlq cancel`.

use std::io::Write;

use anyhow::bail;
use serde_json::{Value, json};
use sluicegate_store::redrive::{Controlled, Item, ItemState, Job, MAX_PAGE_ITEMS};
use sluicegate_store::{Reader, Store, StoreError};

use super::text::{inline, time};
use crate::command::location::StoreArgs;

/// `dlq jobs`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct JobsArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only this job, with the outcome of each of its letters.
    pub id: Option<String>,
    /// At most this many jobs, the newest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=MAX_PAGE_ITEMS as u64))]
    pub limit: u64,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `dlq pause`, `dlq resume` and `dlq cancel`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct JobArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The job's id.
    pub id: String,
}

/// What is wished of a job.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    Pause,
    Resume,
    Cancel,
}

pub(super) async fn jobs(args: &JobsArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    match &args.id {
        Some(id) => show(id, args.json, reader, out).await?,
        None => {
            let limit = usize::try_from(args.limit).unwrap_or(MAX_PAGE_ITEMS);
            let page = reader.redrives(limit, None).await?;
            for job in &page.jobs {
                if args.json {
                    writeln!(out, "{}", as_json(job))?;
                } else {
                    writeln!(out, "{}", line(job))?;
                }
            }
            if page.jobs.is_empty() && !args.json {
                writeln!(out, "no redrive jobs")?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

async fn show(id: &str, as_lines: bool, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let job = reader.redrive(id).await?;
    if as_lines {
        writeln!(out, "{}", as_json(&job))?;
    } else {
        writeln!(out, "{}", line(&job))?;
    }
    let mut after: Option<String> = None;
    loop {
        let page = reader.redrive_items(id, None, MAX_PAGE_ITEMS, after.as_deref()).await?;
        for item in &page.items {
            if as_lines {
                writeln!(out, "{}", item_as_json(item))?;
            } else {
                let outcome = inline(item.outcome.as_deref().unwrap_or_default()).to_string();
                writeln!(out, "  {}  {:<13}  {outcome}", inline(&item.letter), item.state.name())?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

pub(super) async fn control(args: &JobArgs, wish: Wish, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let controlled = match wish {
        Wish::Pause => store.pause_redrive(&args.id).await?,
        Wish::Resume => store.resume_redrive(&args.id).await?,
        Wish::Cancel => store.cancel_redrive(&args.id).await?,
    };
    match controlled {
        Controlled::Done => {
            writeln!(out, "{}", line(&store.reader().redrive(&args.id).await?))?;
            Ok(())
        }
        Controlled::Ended(state) => bail!("redrive job {} is {} already", args.id, state.name()),
        Controlled::NotFound => Err(StoreError::NoJob { id: args.id.clone() }.into()),
    }
}

/// A job in one line.
pub(super) fn line(job: &Job) -> String {
    let counts = ItemState::ALL.iter().filter(|state| job.counts.of(**state) > 0);
    let counts: Vec<String> = counts.map(|state| format!("{} {}", job.counts.of(*state), state.name())).collect();
    let created = time(job.created_at_ms, 0);
    let (rate, state) = (job.rate_per_second, job.state.name());
    format!("{}  {state}  {created}  {} letters at {rate}/s: {}", job.id, job.counts.total(), counts.join(", "))
}

/// A job for programs.
pub(super) fn as_json(job: &Job) -> Value {
    let counts = ItemState::ALL.into_iter().map(|state| (state.name().to_owned(), job.counts.of(state).into()));
    json!({
        "id": job.id,
        "state": job.state.name(),
        "selection": job.selection,
        "from": job.from.name(),
        "rate_per_second": job.rate_per_second,
        "patch": job.patch,
        "max_redrives": job.max_redrives,
        "by": job.by,
        "created_at": time(job.created_at_ms, 3),
        "ended_at": job.ended_at_ms.map(|at| time(at, 3)),
        "total": job.counts.total(),
        "counts": counts.collect::<serde_json::Map<String, Value>>(),
    })
}

fn item_as_json(item: &Item) -> Value {
    json!({
        "number": item.number,
        "dead_letter": item.letter,
        "state": item.state.name(),
        "outcome": item.outcome,
        "at": item.at_ms.map(|at| time(at, 3)),
    })
}
