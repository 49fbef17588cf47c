//! Settling what was claimed; entering and leaving a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::sql::{Lock, execute_for, group_numbered, query_for, topic};
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;

/// Generation and offset of a claim.
type Claim = (u64, u64);

/// Settles claims of a consumer.
pub(super) struct Settlements {
    pub queue_id: u64,
    pub group_id: u64,
    pub is_ordered: bool,
    pub consumer: Arc<str>,
    pub done: Vec<Claim>,
    /// With the time before which they do not come again; 0 for at once.
    pub given_back: Vec<(Claim, u64)>,
}

#[async_trait]
impl Change for Settlements {
    type Output = ();

    fn size_bytes(&self) -> usize {
        64 * (self.done.len() + self.given_back.len() + 1)
    }

    fn doing(&self) -> &'static str {
        "settle messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        // Whoever adds to a lane has the lock, too, so that the next of a lane is not missed.
        if self.is_ordered && group_numbered(transaction, self.group_id, Lock::Wait).await?.is_none() {
            return Ok(());
        }
        let mut by_generation = BTreeMap::<u64, Vec<u64>>::new();
        for (generation, offset) in &self.done {
            by_generation.entry(*generation).or_default().push(*offset);
        }
        for (generation, offsets) in by_generation {
            self.done(transaction, generation, &offsets).await?;
        }
        let mut by_time = BTreeMap::<(u64, u64), Vec<u64>>::new();
        for ((generation, offset), not_before_ms) in &self.given_back {
            by_time.entry((*generation, *not_before_ms)).or_default().push(*offset);
        }
        for ((generation, not_before_ms), offsets) in by_time {
            // One that another has taken over since is his.
            let sql = "UPDATE queue_claims SET consumer = NULL, owner = NULL, not_before_ms = $4 \
                       WHERE group_id = $1 AND generation = $2 AND consumer = $3 AND msg_offset IN (";
            let values = [self.group_id.into(), generation.into(), (&*self.consumer).into(), not_before_ms.into()];
            execute_for(transaction, sql, &values, &offsets).await?;
            transaction.announce(topic(self.queue_id));
        }
        Ok(())
    }
}

impl Settlements {
    async fn done(
        &self,
        transaction: &mut Transaction<'_>,
        generation: u64,
        offsets: &[u64],
    ) -> Result<(), StoreError> {
        let values = [Value::from(self.group_id), generation.into()];
        let mut lanes = Vec::new();
        if self.is_ordered {
            let sql = "SELECT lane FROM queue_claims WHERE lane IS NOT NULL AND group_id = $1 AND generation = $2 \
                       AND msg_offset IN (";
            for row in query_for(transaction, sql, &values, offsets).await? {
                lanes.push(row.integer(0)?);
            }
        }
        let sql = "DELETE FROM queue_claims WHERE group_id = $1 AND generation = $2 AND msg_offset IN (";
        execute_for(transaction, sql, &values, offsets).await?;
        for lane in lanes {
            let sql = "UPDATE queue_claims SET is_blocked = 0 WHERE group_id = $1 AND is_blocked = 1 AND msg_offset = \
                       (SELECT min(msg_offset) FROM queue_claims WHERE group_id = $1 AND lane = $2)";
            if transaction.execute(sql, &[self.group_id.into(), lane.into()]).await? > 0 {
                transaction.announce(topic(self.queue_id));
            }
        }
        Ok(())
    }
}

/// Counts a consumer in.
pub(super) struct Enter {
    pub consumer: Arc<str>,
    pub group_id: u64,
}

#[async_trait]
impl Change for Enter {
    type Output = ();

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "join a group"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO queue_consumers (consumer, group_id, owner, joined_at_ms) VALUES ($1, $2, $3, $4)";
        let owner = transaction.owner();
        let values = [(&*self.consumer).into(), self.group_id.into(), owner.into(), transaction.now_ms().into()];
        transaction.execute(sql, &values).await?;
        // Whatever kept them from being opened may be over.
        let sql = "UPDATE queue_claims SET is_blocked = 0, not_before_ms = 0 WHERE group_id = $1 AND is_blocked = 2";
        transaction.execute(sql, &[self.group_id.into()]).await.map(drop)
    }
}

/// Counts a consumer out, and gives back what it has claimed.
pub(super) struct Leave {
    pub consumer: Arc<str>,
    pub group_id: u64,
    pub queue_id: u64,
}

#[async_trait]
impl Change for Leave {
    type Output = ();

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "leave a group"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let consumer = Value::from(&*self.consumer);
        let sql = "UPDATE queue_claims SET consumer = NULL, owner = NULL WHERE group_id = $1 AND consumer = $2";
        if transaction.execute(sql, &[self.group_id.into(), consumer.clone()]).await? > 0 {
            transaction.announce(topic(self.queue_id));
        }
        transaction.execute("DELETE FROM queue_consumers WHERE consumer = $1", &[consumer]).await.map(drop)
    }
}
