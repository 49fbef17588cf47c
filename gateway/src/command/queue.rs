//! `sluicegate queue …` and `sluicegate tail`: managed queues, beside gateways that run or while none does.

mod change;
mod list;
mod place;
mod publish;
mod table;
mod tail;
mod words;

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use sluicegate_connectors::cloudevents::parse_time;
use sluicegate_connectors::quantity::{Size, Span};
use sluicegate_connectors::queue::Length;
use sluicegate_store::queue::{AtLimit, Compression, Kind, Queues, Start};
use sluicegate_store::{Store, StoreOptions};

use super::dlq::is_broken_pipe;
use crate::queues::{AllQueues, KeptPosition};

use words::{
    parse_at_limit, parse_compression, parse_header, parse_kind, parse_length, parse_position, parse_size, parse_span,
};

pub use place::{Place, PlaceArgs};

/// Manages queues.
#[derive(Debug, Clone, PartialEq, clap::Subcommand)]
pub enum QueueCommand {
    /// List queues by name.
    List(ListArgs),
    /// Show all of a queue: its properties, counts and groups.
    Show(NameArgs),
    /// Make a queue.
    Create(CreateArgs),
    /// Change a queue's properties; those left out stay.
    Update(UpdateArgs),
    /// Remove a queue with its messages and groups.
    Delete(RemoveArgs),
    /// Remove all of a queue's messages; its groups stay.
    Purge(RemoveArgs),
    /// Publish messages: an argument, a file, or standard input.
    Publish(PublishArgs),
    /// Follow what is published, without consuming it.
    Tail(TailArgs),
    /// List a queue's groups and how far they are.
    Groups(NameArgs),
    /// Give a group nothing any more, until it is resumed.
    Pause(GroupArgs),
    /// Go on after a pause.
    Resume(GroupArgs),
    /// Let a group go on from another place; what it holds counts as settled.
    Reset(ResetArgs),
    /// List a queue's messages.
    Messages(MessagesArgs),
    /// Take back a message that no group has claimed yet.
    Cancel(CancelArgs),
}

/// `queue list`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// `queue show`, `queue groups`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct NameArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What a queue is like.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args)]
pub struct SettingsArgs {
    /// Remove messages published longer ago, 1s to 3650d; 7d by default.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub max_age: Option<Span>,
    /// Most bytes of stored messages, such as 1GiB; no limit by default.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_bytes: Option<Size>,
    /// Most messages, or `unlimited`; 10000 unless the configuration's `queue_defaults` say otherwise.
    #[arg(long, value_name = "N", value_parser = parse_length)]
    pub max_messages: Option<Length>,
    /// What happens to new messages at a limit: refuse (default) or drop_oldest.
    #[arg(long, value_parser = parse_at_limit)]
    pub at_limit: Option<AtLimit>,
    /// Largest message, 1B to 64MiB; 1MiB by default.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_message: Option<Size>,
    /// How bodies are kept: none (default) or zstd.
    #[arg(long, value_parser = parse_compression)]
    pub compression: Option<Compression>,
    /// Do not give out messages that are older, 1s to 3650d.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub ttl: Option<Span>,
    /// Of a delay queue: how long messages wait that bring no time of their own, up to 30d.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub delay: Option<Span>,
    /// Name of the configured schema its messages satisfy.
    #[arg(long, value_name = "NAME")]
    pub schema: Option<String>,
}

/// `queue create`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CreateArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Its name: 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`.
    pub queue: String,
    /// In which order messages are given out: normal, ordered (by key) or delay. Cannot be changed later.
    #[arg(long, value_parser = parse_kind, default_value = "normal")]
    pub kind: Kind,
    /// Its properties.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `queue update`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct UpdateArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// Its properties.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `queue delete`, `queue purge`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RemoveArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `queue publish`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct PublishArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// The body; standard input if neither this nor --file is given.
    pub body: Option<String>,
    /// The body is this file's content.
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    pub file: Option<PathBuf>,
    /// Each line is a message; empty ones are left out.
    #[arg(long)]
    pub lines: bool,
    /// The message's id; a new one by default.
    #[arg(long, conflicts_with = "lines")]
    pub id: Option<String>,
    /// The message's type.
    #[arg(long = "type", value_name = "TYPE", default_value = "message")]
    pub kind: String,
    /// Who made it.
    #[arg(long, default_value = "sluicegate queue publish")]
    pub source: String,
    /// Its key, by which ordered queues keep order.
    #[arg(long)]
    pub key: Option<String>,
    /// What it answers or belongs to.
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// Media type of the body; application/json if it is JSON.
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// A header, NAME=VALUE; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// 0 to 9, higher ones are given out first.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9))]
    pub priority: Option<u8>,
    /// Give it out after this time, up to 30d.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, conflicts_with = "at")]
    pub delay: Option<Span>,
    /// Give it out at this time: 2026-11-20T16:00:00Z, at most 30 days ahead.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub at: Option<u64>,
    /// Do not give it out any more after this time.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub ttl: Option<Span>,
    /// Publish without a check against the queue's schema.
    #[arg(long)]
    pub unchecked: bool,
    /// One JSON object a message.
    #[arg(long)]
    pub json: bool,
}

/// `tail`, `queue tail`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TailArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// Begin with what this group has not been given yet, rather than with what is published from now on.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// End after this many messages.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// One JSON object a message.
    #[arg(long)]
    pub json: bool,
}

/// `queue pause`, `queue resume`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct GroupArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// The group.
    pub group: String,
}

/// `queue reset`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ResetArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// The group.
    pub group: String,
    /// Where to go on: earliest, latest, an offset from 1 (in Redis: the id of an entry), or a time (2026-11-20T16:00:00Z).
    #[arg(long, value_name = "POSITION", value_parser = parse_position)]
    pub to: KeptPosition,
    /// Make the group if there is none.
    #[arg(long)]
    pub create: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

/// `queue messages`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct MessagesArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// Which ones.
    #[arg(long, value_enum, default_value_t)]
    pub state: ListedState,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Which messages `queue messages` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ListedState {
    /// Those that have their place, settled or not, oldest first.
    #[default]
    Ready,
    /// Those that wait for their time, the next first.
    Scheduled,
    /// Those that a group has been given and has not settled.
    Claimed,
}

/// `queue cancel`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CancelArgs {
    /// Where the store is.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The queue.
    pub queue: String,
    /// The message's id.
    pub id: String,
    /// Remove it although a group may have claimed it. In Redis there is no other way.
    #[arg(long)]
    pub force: bool,
}

impl QueueCommand {
    /// Where the store is.
    pub fn place(&self) -> &PlaceArgs {
        match self {
            Self::List(args) => &args.place,
            Self::Show(args) | Self::Groups(args) => &args.place,
            Self::Create(args) => &args.place,
            Self::Update(args) => &args.place,
            Self::Delete(args) | Self::Purge(args) => &args.place,
            Self::Publish(args) => &args.place,
            Self::Tail(args) => &args.place,
            Self::Pause(args) | Self::Resume(args) => &args.place,
            Self::Reset(args) => &args.place,
            Self::Messages(args) => &args.place,
            Self::Cancel(args) => &args.place,
        }
    }
}

/// Asks whether to do something that cannot be undone.
pub type Confirm<'c> = &'c mut (dyn FnMut(&str) -> anyhow::Result<bool> + Send);

/// Asks at the terminal; without one `--yes` is needed.
///
/// # Errors
/// There is no terminal, or it cannot be read.
pub fn ask_at_terminal(question: &str) -> anyhow::Result<bool> {
    let input = io::stdin();
    if !input.is_terminal() {
        bail!("{question}: this cannot be undone; say --yes to do it without being asked");
    }
    eprint!("{question}? [y/N] ");
    let mut answer = String::new();
    input.lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Runs the command on the store and writes the answer to `out`. A reader of `out` that goes away (`| head`) ends it
/// without an error.
///
/// # Errors
/// No store there, one that cannot be used, or what the queues refuse; each says what to try.
pub async fn run(
    command: &QueueCommand,
    place: &Place,
    confirm: Confirm<'_>,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let store = Arc::new(open(&place.options).await?);
    let declared = place.config.as_ref().map(|config| Arc::clone(&config.queues)).unwrap_or_default();
    let queues = AllQueues::new(&Queues::new(Arc::clone(&store)), move || Arc::clone(&declared));
    let answered = match command {
        QueueCommand::List(args) => list::queues(args, &queues, out).await,
        QueueCommand::Show(args) => list::show(args, &queues, out).await,
        QueueCommand::Create(args) => change::create(args, place, &queues, out).await,
        QueueCommand::Update(args) => change::update(args, place, &queues, out).await,
        QueueCommand::Delete(args) => change::delete(args, place, &queues, confirm, out).await,
        QueueCommand::Purge(args) => change::purge(args, &queues, confirm, out).await,
        QueueCommand::Publish(args) => publish::publish(args, place, &queues, &mut io::stdin().lock(), out).await,
        QueueCommand::Tail(args) => tail::tail(args, &queues, out).await,
        QueueCommand::Groups(args) => list::groups(args, &queues, out).await,
        QueueCommand::Pause(args) => change::pause(args, &queues, out).await,
        QueueCommand::Resume(args) => change::resume(args, &queues, out).await,
        QueueCommand::Reset(args) => change::reset(args, &queues, confirm, out).await,
        QueueCommand::Messages(args) => list::messages(args, &queues, out).await,
        QueueCommand::Cancel(args) => change::cancel(args, &queues, out).await,
    };
    store.close().await;
    match answered.and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

async fn open(options: &StoreOptions) -> anyhow::Result<Store> {
    Store::open_beside(options).await.context("cannot use the queues")
}

/// Where a group that is made for a reset begins, before the reset moves it.
const MADE_AT: Start = Start::Latest;

#[cfg(test)]
mod tests;
