//! `dlq edit`, `dlq delete`, `dlq purge`, `dlq export`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use sluicegate_engine::message::Headers;
use sluicegate_store::dead_letter::{Changed, Edit};
use sluicegate_store::{Reader, Store};

use super::filter::FilterArgs;
use super::record::LetterRecord;
use crate::command::location::StoreArgs;
use crate::store_options::MasterKeyArgs;

/// Letters read at a time for an export.
const EXPORT_PAGE_LETTERS: usize = 100;

/// `dlq edit`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct EditArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
    /// The dead letter's id, or as much of its beginning as no other has.
    pub id: String,
    /// The body to send instead, as it stands.
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    pub body: Option<String>,
    /// A file with the body to send instead.
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// A header to send instead of all there are; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// Take an earlier edit back.
    #[arg(long, conflicts_with_all = ["body", "body_file", "headers"])]
    pub undo: bool,
    /// Who does it.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "cli", hide_env_values = true)]
    pub by: String,
}

/// `dlq delete`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DeleteArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The dead letter's id, or as much of its beginning as no other has.
    pub id: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `dlq purge`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct PurgeArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// All of them.
    #[arg(long)]
    pub all: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `dlq export`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ExportArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
    /// Which; all of them without a filter.
    #[command(flatten)]
    pub filter: FilterArgs,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub(super) async fn edit(args: &EditArgs, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let body = match (&args.body, &args.body_file) {
        (Some(text), _) => Some(Bytes::from(text.clone())),
        (None, Some(file)) => {
            let read =
                tokio::fs::read(file).await.with_context(|| format!("cannot read the body from {}", file.display()))?;
            Some(Bytes::from(read))
        }
        (None, None) => None,
    };
    let headers = (!args.headers.is_empty()).then(|| args.headers.iter().cloned().collect::<Headers>());
    let edit = Edit { body, headers };
    if edit == Edit::default() && !args.undo {
        bail!("say what to change: --body TEXT, --body-file FILE, --header 'NAME: VALUE', or --undo");
    }
    let id = store.reader().show_readable(&args.id).await?.kept.letter.id;
    made(store.edit_letter(&id, (!args.undo).then_some(edit), &args.by).await?, &id)?;
    if args.undo {
        writeln!(out, "{id} goes on as it was")?;
    } else {
        writeln!(out, "{id} is edited; `sluicegate dlq redrive --id {id} --dry-run` shows what would become of it")?;
    }
    Ok(())
}

pub(super) async fn delete(args: &DeleteArgs, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let id = store.reader().show_readable(&args.id).await?.kept.letter.id;
    confirm(args.yes, &format!("delete dead letter {id} for good?"))?;
    made(store.delete_letter(&id).await?, &id)?;
    writeln!(out, "{id} is deleted")?;
    Ok(())
}

fn made(changed: Changed, id: &str) -> anyhow::Result<()> {
    match changed {
        Changed::Done => Ok(()),
        Changed::BeingRedriven => bail!("dead letter {id} is being redriven; wait for its outcome"),
        Changed::NotFound => bail!("dead letter {id} is gone"),
    }
}

pub(super) async fn purge(args: &PurgeArgs, store: &Store, out: &mut impl Write) -> anyhow::Result<()> {
    let filter = args.filter.or_all(args.all)?;
    let matching = store.reader().count(&filter).await?;
    if matching > 0 {
        confirm(args.yes, &format!("delete {matching} dead letters for good?"))?;
    }
    let deleted = store.purge_letters(&filter).await?;
    writeln!(out, "{deleted} dead letters deleted")?;
    Ok(())
}

pub(super) async fn export(args: &ExportArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let filter = args.filter.filter();
    let mut after: Option<String> = None;
    loop {
        let page = reader.letters(&filter, EXPORT_PAGE_LETTERS, after.as_deref()).await?;
        for kept in &page.letters {
            serde_json::to_writer(&mut *out, &LetterRecord::from(kept))?;
            writeln!(out)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    out.flush()?;
    Ok(())
}

/// Asks at a terminal; elsewhere `--yes` must have been given.
fn confirm(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("{question} Give --yes to do it; nothing was changed");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _no => bail!("nothing was changed"),
    }
}
