//! `queue list`, `show`, `groups`, `messages`.

use std::io::Write;

use serde_json::{Value, json};
use sluicegate_store::queue::{Group, Listed, MAX_PAGE_ITEMS, Pending, Progress, Queue, Queues, State};

use super::{ListArgs, ListedState, MessagesArgs, NameArgs, table};
use crate::api::{ShownListed, ShownQueue, shown_group};
use crate::command::dlq::text::time;

pub(super) async fn queues(args: &ListArgs, queues: &Queues, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut found, mut after): (Vec<Queue>, _) = (Vec::new(), None);
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
    let rows: Vec<[String; 7]> = found.iter().map(row).collect();
    table::write(["QUEUE", "KIND", "MESSAGES", "SCHEDULED", "BYTES", "GROUPS", "UPDATED AT"], &rows, out)?;
    match after {
        None => writeln!(out, "{} queues; `sluicegate queue show NAME` shows one", found.len())?,
        Some(_) => writeln!(out, "{} queues, and there are more; --limit shows them", found.len())?,
    }
    Ok(())
}

fn row(queue: &Queue) -> [String; 7] {
    [
        queue.name.clone(),
        queue.settings.kind.name().to_owned(),
        queue.messages.to_string(),
        queue.scheduled.to_string(),
        queue.bytes.to_string(),
        queue.groups.to_string(),
        time(queue.updated_at_ms, 0),
    ]
}

pub(super) async fn show(args: &NameArgs, queues: &Queues, out: &mut impl Write) -> anyhow::Result<()> {
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

pub(super) async fn groups(args: &NameArgs, queues: &Queues, out: &mut impl Write) -> anyhow::Result<()> {
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

fn group_table(groups: &[Group], out: &mut impl Write) -> anyhow::Result<()> {
    let row = |group: &Group| {
        [
            group.name.clone(),
            if group.paused { "paused" } else { "active" }.to_owned(),
            group.lag.to_string(),
            group.pending.to_string(),
            group.consumers.to_string(),
            group.lost.to_string(),
            group.expired.to_string(),
            time(group.last_activity_ms, 0),
        ]
    };
    let rows: Vec<[String; 8]> = groups.iter().map(row).collect();
    let titles = ["GROUP", "STATE", "LAG", "PENDING", "CONSUMERS", "LOST", "EXPIRED", "LAST ACTIVITY"];
    Ok(table::write(titles, &rows, out)?)
}

pub(super) async fn messages(args: &MessagesArgs, queues: &Queues, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut found, mut after): (Vec<(Listed, Option<Pending>)>, _) = (Vec::new(), None);
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

fn message_row(listed: &Listed, pending: Option<&Pending>) -> [String; 7] {
    let (offset, at, state) = match listed.state {
        State::Stored { offset, published_at_ms } => (offset.to_string(), published_at_ms, "ready".to_owned()),
        State::Scheduled { deliver_at_ms } => ("-".to_owned(), deliver_at_ms, "scheduled".to_owned()),
    };
    let state = pending.map_or(state, |pending| format!("{} by {}", standing(pending.progress), pending.group));
    [
        offset,
        time(at, 3),
        state,
        listed.id.clone(),
        listed.key.as_ref().map_or_else(|| "-".to_owned(), |key| String::from_utf8_lossy(key).into_owned()),
        listed.priority.to_string(),
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
