//! Room in a queue for what is published: what is too much, and what goes for it.

use std::time::Duration;

use super::error::QueueError;
use super::publishing::Prepared;
use super::removal::{Doomed, consumed, oldest, remove};
use super::settings::AtLimit;
use super::sql::QueueRow;
use crate::database::Connection;
use crate::error::StoreError;

/// When it may be worth trying again to publish to a full queue.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Most steps in which one publication makes room.
const MAX_ROOM_STEPS: usize = 10;

/// How many messages and bytes too many there would be with all of these.
fn excess(queue: &QueueRow, messages: &[Prepared]) -> (u64, u64) {
    let retention = &queue.settings.retention;
    let beyond = |there: u64, more: u64, limit: Option<u64>| {
        limit.map_or(0, |limit| there.saturating_add(more).saturating_sub(limit))
    };
    let bytes = messages.iter().map(Prepared::stored_bytes).sum();
    (
        beyond(queue.messages + queue.scheduled, messages.len() as u64, retention.max_messages),
        beyond(queue.bytes + queue.scheduled_bytes, bytes, retention.max_bytes),
    )
}

/// Removes what may be removed for new messages, and no more than they need.
pub(super) async fn make_room(
    connection: &mut Connection,
    queue: &mut QueueRow,
    messages: &[Prepared],
) -> Result<(), StoreError> {
    for _ in 0..MAX_ROOM_STEPS {
        let (mut count, mut bytes) = excess(queue, messages);
        if count == 0 && bytes == 0 {
            break;
        }
        let candidates = match queue.settings.retention.at_limit {
            AtLimit::Refuse => consumed(connection, queue.queue_id).await?,
            AtLimit::DropOldest => oldest(connection, queue.queue_id).await?,
        };
        let needed = |doomed: &Doomed| {
            let needed = count > 0 || bytes > 0;
            count = count.saturating_sub(1);
            bytes = bytes.saturating_sub(doomed.stored_bytes);
            needed
        };
        let doomed: Vec<Doomed> = candidates.into_iter().take_while(needed).collect();
        if doomed.is_empty() {
            break;
        }
        remove(connection, queue, &doomed).await?;
    }
    Ok(())
}

/// Why a batch has no room even in an empty queue.
pub(super) fn never_fits(name: &str, queue: &QueueRow, messages: &[Prepared]) -> Option<QueueError> {
    let empty = QueueRow { messages: 0, bytes: 0, scheduled: 0, scheduled_bytes: 0, ..queue.clone() };
    does_not_fit(name, &empty, messages)
}

/// The first message of a batch that has no room behind those before it.
pub(super) fn does_not_fit(name: &str, queue: &QueueRow, messages: &[Prepared]) -> Option<QueueError> {
    let mut queue = queue.clone();
    messages.iter().enumerate().find_map(|(index, message)| {
        let refusal = full(name, &queue, message.stored_bytes());
        queue.messages += 1;
        queue.bytes += message.stored_bytes();
        refusal.map(|error| QueueError::InBatch { index, error: Box::new(error) })
    })
}

pub(super) fn full(name: &str, queue: &QueueRow, bytes: u64) -> Option<QueueError> {
    let retention = &queue.settings.retention;
    let limit = match (retention.max_messages, retention.max_bytes) {
        (Some(most), _) if queue.messages + queue.scheduled >= most => format!("{most} messages"),
        (_, Some(most)) if queue.bytes + queue.scheduled_bytes + bytes > most => format!("{most} bytes"),
        (_, _) => return None,
    };
    Some(QueueError::Full { queue: name.to_owned(), limit, retry_after: FULL_RETRY_AFTER })
}
