//! `sluicegate tail`: follows a queue as a reader, so that no group misses anything by it.

use std::io::Write;
use std::time::Duration;

use sluicegate_engine::message::Message;
use sluicegate_store::queue::{Listed, Queues, State, Which};

use super::TailArgs;
use super::list::line;
use crate::api::shown_message;
use crate::command::dlq::text::{cut, inline, time};

/// How often the queue is looked at when there was nothing new.
const PAUSE: Duration = Duration::from_millis(200);
/// Offsets are read from the list, so many at a time.
const PAGE_ITEMS: usize = 100;
/// Longest body shown on a line, in characters.
const MAX_BODY_CHARS: usize = 160;

pub(super) async fn tail(args: &TailArgs, queues: &Queues, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = queues.get(&args.queue).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    // A page token of stored messages is the offset before the page.
    let mut position = match &args.group {
        None => queue.last_offset,
        Some(group) => unread(queues, &args.queue, group, queue.last_offset).await?,
    };
    while left > 0 {
        let page = queues.messages(&args.queue, PAGE_ITEMS, Some(&position.to_string())).await?;
        let is_last = page.next.is_none();
        for listed in &page.items {
            let State::Stored { offset, .. } = listed.state else { continue };
            position = offset;
            // Retention may have removed it since.
            let Ok((listed, message)) = queues.message(&args.queue, Which::Offset(offset)).await else { continue };
            show(args, &listed, &message, out)?;
            left -= 1;
            if left == 0 {
                break;
            }
        }
        out.flush()?;
        if is_last && left > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// The offset before the first message that the group has not been given, if it reads in order; with priorities, before
/// as many as it has not been given.
async fn unread(queues: &Queues, queue: &str, group: &str, last_offset: u64) -> anyhow::Result<u64> {
    let lag = queues.group(queue, group).await?.lag;
    Ok(last_offset.saturating_sub(lag))
}

fn show(args: &TailArgs, listed: &Listed, message: &Message, out: &mut impl Write) -> anyhow::Result<()> {
    if args.json {
        return line(&shown_message(listed, message), out);
    }
    let (offset, at) = match listed.state {
        State::Stored { offset, published_at_ms } => (offset, published_at_ms),
        State::Scheduled { deliver_at_ms } => (0, deliver_at_ms),
    };
    let body = match std::str::from_utf8(message.body.bytes()) {
        Ok(text) => cut(&inline(text).to_string(), MAX_BODY_CHARS),
        Err(_) => format!("{} bytes that are no text", message.body.len()),
    };
    let key = message.key.as_ref().map(|key| format!(" key={}", inline(&String::from_utf8_lossy(key))));
    let (id, kind) = (inline(&message.id), inline(&message.kind));
    Ok(writeln!(out, "{offset}  {}  {kind}  {id}{}  {body}", time(at, 3), key.unwrap_or_default())?)
}
