//! `sluicegate dlq …`: what could not be delivered and why, its repair and its redelivery. It works on the store while a
//! gateway runs on it and after; redrive jobs are carried out by a gateway.

mod filter;
mod follow;
mod groups;
mod jobs;
mod list;
mod record;
mod redrive;
mod repair;
mod show;
pub(crate) mod text;

use std::io::{self, Write};

use anyhow::Context as _;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use sluicegate_engine::failure::FailureClass;
use sluicegate_store::{Reader, Store};

use crate::command::location::{Place, StoreArgs};
use crate::store_options::MasterKeyArgs;

pub use filter::FilterArgs;
pub use groups::GroupsArgs;
pub use jobs::{JobArgs, JobsArgs};
pub(crate) use record::Content;
pub use redrive::RedriveArgs;
pub use repair::{DeleteArgs, EditArgs, ExportArgs, PurgeArgs};

/// Most dead letters one `dlq list` prints.
const MAX_LISTED_LETTERS: u64 = 1_000_000;

/// Reads, repairs and redrives the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first.
    List(ListArgs),
    /// Show everything known about one dead letter.
    Show(ShowArgs),
    /// Show the causes of dead letters, the most frequent first.
    Groups(GroupsArgs),
    /// Change the message that is to be redriven; the record stays as it is.
    Edit(EditArgs),
    /// Delete one dead letter for good.
    Delete(DeleteArgs),
    /// Send dead letters on their way again, at a rate, and follow them.
    Redrive(RedriveArgs),
    /// List redrive jobs, or show one of them.
    Jobs(JobsArgs),
    /// Let a redrive job send no more for now.
    Pause(JobArgs),
    /// Let a paused redrive job go on.
    Resume(JobArgs),
    /// End a redrive job; what it has sent goes on.
    Cancel(JobArgs),
    /// Delete all dead letters that match, for good.
    Purge(PurgeArgs),
    /// Write dead letters as JSON Lines, newest first.
    Export(ExportArgs),
}

/// `dlq list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// At most this many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=MAX_LISTED_LETTERS))]
    pub limit: u64,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `dlq show`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ShowArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
    /// The dead letter's id, or as much of its beginning as no other has.
    pub id: String,
    /// As one JSON object, with nothing left out.
    #[arg(long)]
    pub json: bool,
}

impl DlqCommand {
    /// What opens encrypted bodies, where bodies are shown or changed.
    pub fn master_key(&self) -> Option<&MasterKeyArgs> {
        match self {
            Self::Show(args) => Some(&args.master_key),
            Self::Edit(args) => Some(&args.master_key),
            Self::Redrive(args) => Some(&args.master_key),
            Self::Export(args) => Some(&args.master_key),
            Self::List(_)
            | Self::Groups(_)
            | Self::Delete(_)
            | Self::Jobs(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Cancel(_)
            | Self::Purge(_) => None,
        }
    }

    /// Where the store is.
    pub fn store(&self) -> &StoreArgs {
        match self {
            Self::List(args) => &args.store,
            Self::Show(args) => &args.store,
            Self::Groups(args) => &args.store,
            Self::Edit(args) => &args.store,
            Self::Delete(args) => &args.store,
            Self::Redrive(args) => &args.store,
            Self::Jobs(args) => &args.store,
            Self::Pause(args) | Self::Resume(args) | Self::Cancel(args) => &args.store,
            Self::Purge(args) => &args.store,
            Self::Export(args) => &args.store,
        }
    }
}

/// Runs the command on the store at `place` and writes the answer to `out`. A reader of `out` that goes away
/// (`| head`) ends it without an error.
///
/// # Errors
/// No store there, one that cannot be used, or no such dead letter or job; each says what to try.
pub async fn run(command: &DlqCommand, place: &Place, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    match answer(command, place, out).await {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

async fn answer(command: &DlqCommand, place: &Place, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    match command {
        DlqCommand::List(args) => {
            let reader = reader(place).await?;
            closing(&reader, list::list(args, &reader, out).await).await
        }
        DlqCommand::Show(args) => {
            let reader = reader(place).await?;
            closing(&reader, show::show(args, &reader, out).await).await
        }
        DlqCommand::Groups(args) => {
            let reader = reader(place).await?;
            closing(&reader, groups::groups(args, &reader, out).await).await
        }
        DlqCommand::Export(args) => {
            let reader = reader(place).await?;
            closing(&reader, repair::export(args, &reader, out).await).await
        }
        DlqCommand::Jobs(args) => {
            let reader = reader(place).await?;
            closing(&reader, jobs::jobs(args, &reader, out).await).await
        }
        DlqCommand::Edit(args) => {
            let store = store(place).await?;
            leaving(&store, repair::edit(args, &store, out).await).await
        }
        DlqCommand::Delete(args) => {
            let store = store(place).await?;
            leaving(&store, repair::delete(args, &store, out).await).await
        }
        DlqCommand::Purge(args) => {
            let store = store(place).await?;
            leaving(&store, repair::purge(args, &store, out).await).await
        }
        DlqCommand::Redrive(args) => {
            let store = store(place).await?;
            leaving(&store, redrive::redrive(args, place, &store, out).await).await
        }
        DlqCommand::Pause(args) => {
            let store = store(place).await?;
            leaving(&store, jobs::control(args, jobs::Wish::Pause, &store, out).await).await
        }
        DlqCommand::Resume(args) => {
            let store = store(place).await?;
            leaving(&store, jobs::control(args, jobs::Wish::Resume, &store, out).await).await
        }
        DlqCommand::Cancel(args) => {
            let store = store(place).await?;
            leaving(&store, jobs::control(args, jobs::Wish::Cancel, &store, out).await).await
        }
    }
}

async fn reader(place: &Place) -> anyhow::Result<Reader> {
    Reader::open(&place.options).await.context("cannot read the dead letters")
}

async fn store(place: &Place) -> anyhow::Result<Store> {
    Store::open_beside(&place.options).await.context("cannot change the dead letters")
}

async fn closing(reader: &Reader, answered: anyhow::Result<()>) -> anyhow::Result<()> {
    reader.close().await;
    answered
}

async fn leaving(store: &Store, answered: anyhow::Result<()>) -> anyhow::Result<()> {
    store.close().await;
    answered
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let direct = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let through_json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    direct.or(through_json) == Some(io::ErrorKind::BrokenPipe)
}

fn parse_class(name: &str) -> Result<FailureClass, String> {
    FailureClass::from_name(name)
        .ok_or_else(|| format!("not a class; there are {}", FailureClass::ALL.map(FailureClass::name).join(", ")))
}

/// A point in time, or how long before now it is.
pub(super) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = || -> Result<Timestamp, jiff::Error> {
        let ago: SignedDuration = text.parse::<Span>()?.to_duration(SpanRelativeTo::days_are_24_hours())?;
        Timestamp::now().checked_sub(ago.abs())
    };
    ago().map_err(|_| "neither a time (2026-11-20T16:00:00Z) nor how long ago it was (90m, 2h, 7d)".to_owned())
}

#[cfg(test)]
mod tests;
