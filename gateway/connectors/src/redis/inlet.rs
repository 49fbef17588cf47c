//! The reading half of a source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::cmd;
use sluicegate_engine::delivery::Received;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::Inlet;

use super::claims::{Claimed, Claims};
use super::in_flight::InFlight;
use super::mapping;
use super::reply::{self, EntryId};
use super::source::Membership;

/// How often a paused group is looked at again.
const PAUSED_LOOK: Duration = Duration::from_millis(250);

/// Reads new entries, and in between those that were left behind.
pub(super) struct RedisInlet {
    group: Arc<Membership>,
    in_flight: Arc<InFlight>,
    /// Of its own, since XREADGROUP blocks it.
    connection: MultiplexedConnection,
    claims: Claims,
    block: Duration,
    batch: usize,
}

impl RedisInlet {
    pub(super) fn new(
        group: Arc<Membership>,
        in_flight: Arc<InFlight>,
        connection: MultiplexedConnection,
        block: Duration,
        batch: usize,
    ) -> Self {
        Self { group, in_flight, connection, claims: Claims::new(), block, batch }
    }

    /// Returns once the group is not paused, or cannot be.
    async fn wait_for_resume(&mut self) -> Result<(), Failure> {
        let Some(key) = &self.group.paused_key else { return Ok(()) };
        loop {
            let asked = cmd("SISMEMBER").arg(key).arg(&self.group.group).query_async(&mut self.connection).await;
            match asked
                .map_err(|error| self.group.failure("looking whether somebody has paused the reading", &error))?
            {
                true => tokio::time::sleep(PAUSED_LOOK).await,
                false => return Ok(()),
            }
        }
    }

    /// New entries; none if there were none for `wait`.
    async fn read(&mut self, max: usize, wait: Duration) -> Result<Vec<Claimed>, Failure> {
        const DOING: &str = "reading new entries";
        // 0 would mean to wait for ever.
        let wait_ms = (wait.as_millis() as u64).max(1);
        let answer = cmd("XREADGROUP")
            .arg("GROUP")
            .arg(&self.group.group)
            .arg(&self.group.consumer)
            .arg("COUNT")
            .arg(max)
            .arg("BLOCK")
            .arg(wait_ms)
            .arg("STREAMS")
            .arg(&self.group.stream)
            .arg(">")
            .query_async(&mut self.connection)
            .await
            .map_err(|error| self.group.failure(DOING, &error))?;
        let entries = reply::read(answer).ok_or_else(|| self.group.nonsense(DOING))?;
        Ok(entries.into_iter().map(|entry| Claimed { entry, attempt: 1 }).collect())
    }

    /// Makes messages of entries. Those in flight already are left out: they settle for both deliveries. Those that were
    /// deleted from the stream while pending are acknowledged, since there is nothing left to deliver.
    async fn deliver(&mut self, mut entries: Vec<Claimed>) -> Result<Vec<Received>, Failure> {
        let deleted: Vec<EntryId> =
            entries.iter().filter(|claimed| claimed.entry.fields.is_none()).map(|claimed| claimed.entry.id).collect();
        if !deleted.is_empty() {
            self.forget(&deleted).await?;
        }
        // From here on nothing waits: what begins to be in flight is handed over.
        entries.retain(|claimed| claimed.entry.fields.is_some() && self.in_flight.begin(claimed.entry.id));
        let received = entries.into_iter().map(|Claimed { entry, attempt }| {
            let fields = entry.fields.unwrap_or_default();
            Received::new(mapping::decode(&self.group.stream, entry.id, fields, attempt), entry.id.into())
        });
        Ok(received.collect())
    }

    async fn forget(&mut self, deleted: &[EntryId]) -> Result<(), Failure> {
        tracing::warn!(
            stream = %self.group.stream, group = %self.group.group, entries = deleted.len(),
            "pending entries were deleted from the stream before they were settled; nothing is left to deliver"
        );
        let mut acknowledge = self.group.command("XACK");
        for id in deleted {
            acknowledge.arg(id.to_string());
        }
        acknowledge
            .query_async::<()>(&mut self.connection)
            .await
            .map_err(|error| self.group.failure("acknowledging deleted entries", &error))
    }
}

#[async_trait]
impl Inlet for RedisInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        let max = max.min(self.batch);
        loop {
            self.wait_for_resume().await?;
            let claimed = self.claims.take(&self.group, &self.in_flight, &mut self.connection, max).await?;
            let entries = if claimed.is_empty() {
                let wait = self.block.min(self.claims.wait());
                self.read(max, wait).await?
            } else {
                claimed
            };
            let received = self.deliver(entries).await?;
            if !received.is_empty() {
                return Ok(received);
            }
        }
    }
}
