//! Entries that were delivered before and never settled: those of this consumer from an earlier process or connection,
//! and those that any consumer has left untouched for too long.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value, cmd};
use sluicegate_engine::failure::Failure;
use tokio::time::Instant;

use super::in_flight::InFlight;
use super::reply::{self, Entry, EntryId};
use super::source::Membership;

/// How long entries that this gateway gave back are left to others, so that one which fails the same way every time
/// does not spin.
const GIVEN_BACK_DELAY: Duration = Duration::from_millis(100);
const FIRST: EntryId = EntryId { millis: 0, sequence: 0 };

/// An entry delivered again, with how often it has been delivered now.
pub(super) struct Claimed {
    pub(super) entry: Entry,
    pub(super) attempt: u32,
}

/// Goes through the pending entries, a batch at a time.
pub(super) struct Claims {
    /// After which entry of this consumer's own to go on; `None` when all have been looked at. They are looked at once
    /// a connection: only an answer that got lost with the old connection leaves some behind.
    own_after: Option<EntryId>,
    /// Where XAUTOCLAIM goes on.
    cursor: EntryId,
    due: Instant,
}

impl Claims {
    pub(super) fn new() -> Self {
        Self { own_after: Some(FIRST), cursor: FIRST, due: Instant::now() }
    }

    /// How long until the next look.
    pub(super) fn wait(&self) -> Duration {
        if self.own_after.is_some() { Duration::ZERO } else { self.due.saturating_duration_since(Instant::now()) }
    }

    /// Claims at most about `max` entries if it is time to. Entries in flight here are left alone.
    pub(super) async fn take(
        &mut self,
        group: &Membership,
        in_flight: &InFlight,
        connection: &mut MultiplexedConnection,
        max: usize,
    ) -> Result<Vec<Claimed>, Failure> {
        if let Some(after) = self.own_after {
            return self.take_own(after, group, in_flight, connection, max).await;
        }
        if in_flight.take_given_back() {
            self.due = self.due.min(Instant::now() + GIVEN_BACK_DELAY);
            self.cursor = FIRST;
        }
        if self.due > Instant::now() {
            return Ok(Vec::new());
        }
        self.take_stale(group, in_flight, connection, max).await
    }

    async fn take_own(
        &mut self,
        after: EntryId,
        group: &Membership,
        in_flight: &InFlight,
        connection: &mut MultiplexedConnection,
        max: usize,
    ) -> Result<Vec<Claimed>, Failure> {
        const DOING: &str = "looking for this consumer's pending entries";
        let answer = group
            .command("XPENDING")
            .arg(format!("({after}"))
            .arg("+")
            .arg(max)
            .arg(&group.consumer)
            .query_async(connection)
            .await
            .map_err(|error| group.failure(DOING, &error))?;
        let pending = reply::pending(answer).ok_or_else(|| group.nonsense(DOING))?;
        self.own_after = if pending.len() < max { None } else { pending.last().map(|(id, _)| *id) };
        let wanted: Vec<(EntryId, u32)> = pending.into_iter().filter(|(id, _)| !in_flight.contains(*id)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut claim = group.command("XCLAIM");
        claim.arg(&group.consumer).arg(0);
        for (id, _) in &wanted {
            claim.arg(id.to_string());
        }
        let answer = claim.query_async(connection).await.map_err(|error| group.failure(DOING, &error))?;
        let entries = reply::entries(answer).ok_or_else(|| group.nonsense(DOING))?;
        tracing::info!(stream = %group.stream, group = %group.group, entries = entries.len(), "took up this consumer's unsettled entries");
        Ok(count_attempts(entries, &wanted))
    }

    async fn take_stale(
        &mut self,
        group: &Membership,
        in_flight: &InFlight,
        connection: &mut MultiplexedConnection,
        max: usize,
    ) -> Result<Vec<Claimed>, Failure> {
        const DOING: &str = "claiming stale entries";
        let answer = group
            .command("XAUTOCLAIM")
            .arg(&group.consumer)
            .arg(group.claim_after.as_millis() as u64)
            .arg(self.cursor.to_string())
            .arg("COUNT")
            .arg(max)
            .query_async(connection)
            .await
            .map_err(|error| group.failure(DOING, &error))?;
        let (cursor, mut entries) = reply::autoclaimed(answer).ok_or_else(|| group.nonsense(DOING))?;
        self.cursor = cursor;
        if cursor == FIRST {
            self.due = Instant::now() + group.claim_interval();
        }
        entries.retain(|entry| !in_flight.contains(entry.id));
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        tracing::info!(stream = %group.stream, group = %group.group, entries = entries.len(), "claimed entries that no consumer had touched for {:?}", group.claim_after);
        let counts = delivery_counts(&entries, group, connection).await?;
        Ok(count_attempts(entries, &counts))
    }
}

/// How often each entry has been delivered before: XAUTOCLAIM does not tell.
async fn delivery_counts(
    entries: &[Entry],
    group: &Membership,
    connection: &mut MultiplexedConnection,
) -> Result<Vec<(EntryId, u32)>, Failure> {
    let mut pipeline = redis::pipe();
    pipeline.ignore_errors();
    for entry in entries {
        let id = entry.id.to_string();
        pipeline.add_command(cmd("XPENDING")).arg(&group.stream).arg(&group.group).arg(&id).arg(&id).arg(1);
    }
    let answers: Vec<RedisResult<Value>> = pipeline
        .query_async(connection)
        .await
        .map_err(|error| group.failure("counting deliveries of claimed entries", &error))?;
    // One that could not be counted is taken for its second delivery. The claim itself has counted as one.
    let rows = answers.into_iter().filter_map(|answer| reply::pending(answer.ok()?)).flatten();
    Ok(rows.map(|(id, count)| (id, count.saturating_sub(1))).collect())
}

fn count_attempts(entries: Vec<Entry>, delivered_before: &[(EntryId, u32)]) -> Vec<Claimed> {
    entries
        .into_iter()
        .map(|entry| {
            let before = delivered_before.iter().find(|(id, _)| *id == entry.id).map_or(1, |(_, count)| *count);
            Claimed { entry, attempt: before.saturating_add(1) }
        })
        .collect()
}
