//! `queue list`, `show`, `groups`, `messages`.

use std::io::Write;

use serde_json::{Value, json};
use sluicegate_store::queue::{MAX_PAGE_ITEMS, Progress};

use super::{ListArgs, ListedState, MessagesArgs, NameArgs, table};
use crate::api::{ShownListed, ShownQueue, shown_group};
use crate::command::dlq::text::{inline, time};
use crate::queues::{AllQueues, KeptGroup, KeptMessage, KeptPending, KeptQueue, KeptState};

pub(super) async fn queues(args: &ListArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut found, mut after): (Vec<KeptQueue>, _) = (Vec::new(), None);
    loop {
        let page = queues.list((args.limit - found.len()).clamp(1, MAX_PAGE_ITEMS), after.as_deref()).await?;
        found.extend(page.items);
        after = page.next;
        if after.is_none() || found.len() >= args.limit {
            break;
        }
    }
    if args.json {
        return found.iter().try_for_each(|queue| line(&json!(ShownQueue::from(queue)), out));
    }
    if found.is_empty() {
        writeln!(out, "no queues; `sluicegate queue create NAME` makes one")?;
        return Ok(());
    }
    let rows: Vec<[String; 8]> = found.iter().map(row).collect();
    let titles = ["QUEUE", "KIND", "BACKEND", "MESSAGES", "SCHEDULED", "BYTES", "GROUPS", "UPDATED AT"];
    table::write(titles, &rows, out)?;
    for queue in &found {
        if let Some(why) = &queue.unavailable {
            writeln!(out, "{}: {}", inline(&queue.name), inline(why))?;
        }
    }
    match after {
        None => writeln!(out, "{} queues; `sluicegate queue show NAME` shows one", found.len())?,
        Some(_) => writeln!(out, "{} queues, and there are more; --limit shows them", found.len())?,
    }
    Ok(())
}

fn row(queue: &KeptQueue) -> [String; 8] {
    let counted = |count: u64| if queue.unavailable.is_none() { count.to_string() } else { UNKNOWN.to_owned() };
    [
        queue.name.clone(),
        queue.settings.kind.name().to_owned(),
        queue.backend.name().to_owned(),
        counted(queue.messages),
        counted(queue.scheduled),
        shown(queue.bytes),
        counted(queue.groups),
        queue.updated_at_ms.map_or_else(|| UNKNOWN.to_owned(), |at| time(at, 0)),
    ]
}

/// What is not known.
const UNKNOWN: &str = "-";

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string())
}

pub(super) async fn show(args: &NameArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = queues.get(&args.queue).await?;
    let groups = queues.groups(&args.queue).await?;
    let mut document = json!(ShownQueue::from(&queue));
    if args.json {
        document["groupList"] = groups.iter().map(shown_group).collect();
        return line(&document, out);
    }
    properties("", &document, out)?;
    if !groups.is_empty() {
        writeln!(out)?;
        group_table(&groups, out)?;
    }
    Ok(())
}

/// A line for each property that is set, those of properties indented by their name.
fn properties(prefix: &str, document: &Value, out: &mut impl Write) -> anyhow::Result<()> {
    for (name, value) in document.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Null => {}
            Value::Object(_) => properties(&format!("{name}."), value, out)?,
            Value::String(text) => writeln!(out, "{name:<24}{text}")?,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) => writeln!(out, "{name:<24}{value}")?,
        }
    }
    Ok(())
}

pub(super) async fn groups(args: &NameArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    let groups = queues.groups(&args.queue).await?;
    if args.json {
        return groups.iter().try_for_each(|group| line(&shown_group(group), out));
    }
    if groups.is_empty() {
        writeln!(out, "no groups; one is made when its first consumer joins")?;
        return Ok(());
    }
    group_table(&groups, out)
}

fn group_table(groups: &[KeptGroup], out: &mut impl Write) -> anyhow::Result<()> {
    let row = |group: &KeptGroup| {
        [
            group.name.clone(),
            if group.paused { "paused" } else { "active" }.to_owned(),
            shown(group.lag),
            group.pending.to_string(),
            group.consumers.to_string(),
            shown(group.lost),
            shown(group.expired),
            group.last_activity_ms.map_or_else(|| UNKNOWN.to_owned(), |at| time(at, 0)),
        ]
    };
    let rows: Vec<[String; 8]> = groups.iter().map(row).collect();
    let titles = ["GROUP", "STATE", "LAG", "PENDING", "CONSUMERS", "LOST", "EXPIRED", "LAST ACTIVITY"];
    Ok(table::write(titles, &rows, out)?)
}

pub(super) async fn messages(args: &MessagesArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut found, mut after): (Vec<(KeptMessage, Option<KeptPending>)>, _) = (Vec::new(), None);
    loop {
        let limit = (args.limit - found.len()).clamp(1, MAX_PAGE_ITEMS);
        after = match args.state {
            ListedState::Ready => {
                let page = queues.messages(&args.queue, limit, after.as_deref()).await?;
                found.extend(page.items.into_iter().map(|listed| (listed, None)));
                page.next
            }
            ListedState::Scheduled => {
                let page = queues.scheduled(&args.queue, limit, after.as_deref()).await?;
                found.extend(page.items.into_iter().map(|listed| (listed, None)));
                page.next
            }
            ListedState::Claimed => {
                let page = queues.pending(&args.queue, limit, after.as_deref()).await?;
                found.extend(page.items.into_iter().map(|pending| (pending.message.clone(), Some(pending))));
                page.next
            }
        };
        if after.is_none() || found.len() >= args.limit {
            break;
        }
    }
    if args.json {
        for (listed, pending) in &found {
            let mut document = json!(ShownListed::from(listed));
            if let Some(pending) = pending {
                document["group"] = json!(pending.group);
                document["state"] = json!(standing(pending.progress));
            }
            line(&document, out)?;
        }
        return Ok(());
    }
    if found.is_empty() {
        writeln!(out, "no messages")?;
        return Ok(());
    }
    let rows: Vec<[String; 7]> = found.iter().map(|(listed, pending)| message_row(listed, pending.as_ref())).collect();
    table::write(["OFFSET", "TIME", "STATE", "ID", "KEY", "PRIORITY", "BYTES"], &rows, out)?;
    match after {
        None => writeln!(out, "{} messages", found.len())?,
        Some(_) => writeln!(out, "{} messages, and there are more; --limit shows them", found.len())?,
    }
    Ok(())
}

fn message_row(listed: &KeptMessage, pending: Option<&KeptPending>) -> [String; 7] {
    let (offset, at, state) = match listed.state {
        KeptState::Stored { place, published_at_ms } => (place.to_string(), published_at_ms, "ready".to_owned()),
        KeptState::Scheduled { deliver_at_ms } => (UNKNOWN.to_owned(), deliver_at_ms, "scheduled".to_owned()),
    };
    let state = pending.map_or(state, |pending| format!("{} by {}", standing(pending.progress), pending.group));
    [
        offset,
        time(at, 3),
        state,
        listed.id.clone(),
        listed.key.as_ref().map_or_else(|| "-".to_owned(), |key| String::from_utf8_lossy(key).into_owned()),
        shown(listed.priority.map(u64::from)),
        listed.size_bytes.to_string(),
    ]
}

fn standing(progress: Progress) -> &'static str {
    match progress {
        Progress::Waiting => "waiting",
        Progress::Claimed { .. } => "claimed",
        Progress::Retrying { .. } => "retrying",
        Progress::Done => "done",
    }
}

/// A JSON document on a line of its own.
pub(super) fn line(document: &Value, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    Ok(writeln!(out)?)
}
