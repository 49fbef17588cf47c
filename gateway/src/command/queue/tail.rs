//! `sluicegate tail`: follows a queue as a reader, so that no group misses anything by it.

use std::io::Write;
use std::time::Duration;

use sluicegate_engine::message::Message;

use super::TailArgs;
use super::list::line;
use crate::api::shown_message;
use crate::command::dlq::text::{cut, inline, time};
use crate::queues::{AllQueues, KeptMessage, KeptState, WhichKept};

/// How often the queue is looked at when there was nothing new.
const PAUSE: Duration = Duration::from_millis(200);
/// Offsets are read from the list, so many at a time.
const PAGE_ITEMS: usize = 100;
/// Longest body shown on a line, in characters.
const MAX_BODY_CHARS: usize = 160;

pub(super) async fn tail(args: &TailArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    let queue = queues.get(&args.queue).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    // A page token of stored messages is the place before the page; there is none in a stream without entries.
    let mut position = match &args.group {
        None => queue.last_place,
        Some(group) => Some(queues.reached(&args.queue, group).await?),
    };
    while left > 0 {
        let token = position.map(|place| place.to_string());
        let page = queues.messages(&args.queue, PAGE_ITEMS, token.as_deref()).await?;
        let is_last = page.next.is_none();
        for listed in &page.items {
            let KeptState::Stored { place, .. } = listed.state else { continue };
            position = Some(place);
            // Retention may have removed it since.
            let Ok((listed, message)) = queues.message(&args.queue, WhichKept::Place(place)).await else { continue };
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

fn show(args: &TailArgs, listed: &KeptMessage, message: &Message, out: &mut impl Write) -> anyhow::Result<()> {
    if args.json {
        return line(&shown_message(listed, message), out);
    }
    let (offset, at) = match listed.state {
        KeptState::Stored { place, published_at_ms } => (place.to_string(), published_at_ms),
        KeptState::Scheduled { deliver_at_ms } => ("-".to_owned(), deliver_at_ms),
    };
    let body = match std::str::from_utf8(message.body.bytes()) {
        Ok(text) => cut(&inline(text).to_string(), MAX_BODY_CHARS),
        Err(_) => format!("{} bytes that are no text", message.body.len()),
    };
    let key = message.key.as_ref().map(|key| format!(" key={}", inline(&String::from_utf8_lossy(key))));
    let (id, kind) = (inline(&message.id), inline(&message.kind));
    Ok(writeln!(out, "{offset}  {}  {kind}  {id}{}  {body}", time(at, 3), key.unwrap_or_default())?)
}
