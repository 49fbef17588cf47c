//! `sluicegate dlq list` and `sluicegate dlq show`: what could not be delivered, and why. They read the store while a
//! gateway runs on it and after.

mod list;
mod record;
mod show;
pub(crate) mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use sluicegate_engine::failure::FailureClass;
use sluicegate_store::dead_letter::Filter;
use sluicegate_store::{Location, Reader, StoreOptions};

use crate::config::{self, Config, Process};
use crate::store_options::{MasterKeyArgs, store_options};

pub(crate) use record::Content;

/// Most dead letters one `dlq list` prints.
const MAX_LISTED_LETTERS: u64 = 1_000_000;

/// Reads the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first.
    List(ListArgs),
    /// Show everything known about one dead letter.
    Show(ShowArgs),
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(required = true, multiple = false)]
pub struct StoreArgs {
    /// The gateway's configuration, whose data_dir is read.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The gateway's data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `dlq list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Only of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only of this class, such as schema, trap or target_failed.
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    pub class: Option<FailureClass>,
    /// Only what failed at this target.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only what failed at this time or later: 2026-11-20T16:00:00Z, or how long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
    /// Only what failed before this time; written as for --since.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Timestamp>,
    /// Only with this text in the error, the message's id or type, the step's or the plugin's name.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
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
    /// What opens encrypted bodies, where bodies are shown.
    pub fn master_key(&self) -> Option<&MasterKeyArgs> {
        match self {
            Self::List(_) => None,
            Self::Show(args) => Some(&args.master_key),
        }
    }

    /// Where the store is.
    pub fn store(&self) -> &StoreArgs {
        match self {
            Self::List(args) => &args.store,
            Self::Show(args) => &args.store,
        }
    }
}

impl StoreArgs {
    /// The store and its keys: as given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes, or the key's.
    pub fn options(&self, key: Option<&MasterKeyArgs>) -> anyhow::Result<StoreOptions> {
        match (&self.data_dir, &self.config) {
            (Some(data_dir), _) => Ok(StoreOptions {
                location: Location::embedded(data_dir),
                encryption: key.map_or(Ok(None), MasterKeyArgs::read)?,
            }),
            (None, Some(file)) => self.load(file).map(|config| store_options(&config)),
            (None, None) => bail!("give --config FILE or --data-dir DIR, to say where the store is"),
        }
    }

    fn load(&self, file: &Path) -> anyhow::Result<Config> {
        match config::load(std::slice::from_ref(&file.to_owned()), &Process) {
            Ok(loaded) => Ok(loaded.config),
            Err(diagnostics) => {
                bail!(
                    "{diagnostics}\ncannot tell the data folder from this configuration; --data-dir DIR names it without one"
                )
            }
        }
    }

    /// The data folder: as given, or as the configuration says. Reads files; blocks for as long.
    ///
    /// # Errors
    /// The configuration's mistakes.
    pub fn find_data_dir(&self) -> anyhow::Result<PathBuf> {
        match (&self.data_dir, &self.config) {
            (Some(data_dir), _) => Ok(data_dir.clone()),
            (None, Some(file)) => self.load(file).map(|config| config.data_dir),
            (None, None) => bail!("give --config FILE or --data-dir DIR, to say where the store is"),
        }
    }
}

/// Runs the command on the store and writes the answer to `out`. A reader of `out` that goes away
/// (`| head`) ends it without an error.
///
/// # Errors
/// No store there, one that cannot be read, or no such dead letter; each says what to try.
pub async fn run(command: &DlqCommand, options: &StoreOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let reader = Reader::open(options).await.context("cannot read the dead letters")?;
    let answered = match command {
        DlqCommand::List(args) => list::list(args, &reader, out).await,
        DlqCommand::Show(args) => show::show(args, &reader, out).await,
    };
    reader.close().await;
    match answered {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let direct = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let through_json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    direct.or(through_json) == Some(io::ErrorKind::BrokenPipe)
}

impl ListArgs {
    fn filter(&self) -> Filter {
        // Nothing fails before 1970.
        let milliseconds = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
        Filter {
            pipeline: self.pipeline.clone(),
            class: self.class,
            target: self.target.clone(),
            since_ms: self.since.map(milliseconds),
            until_ms: self.until.map(milliseconds),
            text: self.text.clone(),
            ..Filter::default()
        }
    }
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
