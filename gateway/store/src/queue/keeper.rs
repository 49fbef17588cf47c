//! What is due by itself: scheduled messages, retention, expiry, what was set aside. In steps of a few hundred messages, each a transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::error::QueueError;
use super::given_out::TakeUp;
use super::listing::MAX_PAGE_ITEMS;
use super::publishing::MESSAGE_COLUMNS;
use super::queues::Queues;
use super::removal::{Expire, Retain, delete_scheduled, remove_deleted};
use super::sql::{Lock, SCHEDULED, placeholders, queue_numbered, topic};
use crate::change::{Change, Transaction};
use crate::clock::CLOCK_PATIENCE;
use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;

/// How often old and expired messages are looked for.
const RETENTION_PAUSE: Duration = Duration::from_secs(5);
/// Without news of the schedule it is looked at so often.
const SLOW_POLL: Duration = Duration::from_secs(10);
/// After the store has failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// When another gateway was moving what is due.
const CONTENDED_PAUSE: Duration = Duration::from_millis(50);
/// Most messages one transaction moves.
const MAX_MOVED: u64 = 200;

/// Does what is due for all queues of a store, beside other gateways' keepers.
#[derive(Debug)]
pub struct Keeper {
    queues: Queues,
}

impl Keeper {
    /// For these queues.
    pub fn new(queues: &Queues) -> Self {
        Self { queues: queues.clone() }
    }

    /// Runs until it is dropped, which is right at any moment: every step is a transaction. Trouble of the store is
    /// logged and waited out.
    pub async fn run(self) {
        tokio::join!(self.keep_schedule(), self.keep_retention());
    }

    async fn keep_schedule(&self) {
        let store: &Arc<Store> = &self.queues.store;
        let mut news = store.signals().subscribe(SCHEDULED);
        loop {
            news.mark_unchanged();
            let pause = match self.move_due().await {
                Ok(Some(next_ms)) => Duration::from_millis(next_ms.saturating_sub(store.now_ms())).min(CLOCK_PATIENCE),
                Ok(None) => SLOW_POLL,
                Err(error) => {
                    tracing::warn!(%error, "scheduled messages wait longer: the store fails");
                    FAILURE_PAUSE
                }
            };
            tokio::select! {
                // It ends with the store only.
                _ = news.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Moves what is due; says when the next is.
    pub(super) async fn move_due(&self) -> Result<Option<u64>, StoreError> {
        let store = &self.queues.store;
        loop {
            let next = store.ask(NextDue).await?;
            if next.is_none_or(|at| at > store.now_ms()) {
                return Ok(next);
            }
            if store.change(MoveDue).await? == 0 {
                // Another gateway is at it, or publishes to that queue.
                return Ok(Some(store.now_ms() + CONTENDED_PAUSE.as_millis() as u64));
            }
        }
    }

    async fn keep_retention(&self) {
        let mut pauses = tokio::time::interval(RETENTION_PAUSE);
        pauses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pauses.tick().await;
            if let Err(error) = self.retain().await {
                tracing::warn!(%error, "old messages stay longer: the store fails");
            }
        }
    }

    /// Removes what is too old or too much, what has expired, and what is left of deleted queues; takes up what was set
    /// aside.
    pub(super) async fn retain(&self) -> Result<(), QueueError> {
        let store = &self.queues.store;
        while store.change(Expire).await? {}
        while store.change(TakeUp).await? {}
        let mut after = None;
        loop {
            let page = self.queues.list(MAX_PAGE_ITEMS, after.as_deref()).await?;
            for queue in page.items {
                if queue.messages > 0 {
                    while store.change(Retain { queue: queue.name.clone() }).await? {}
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        Ok(remove_deleted(store).await?)
    }
}

/// When the next scheduled message is due.
struct NextDue;

#[async_trait]
impl Question for NextDue {
    type Output = Option<u64>;

    fn doing(&self) -> &'static str {
        "look at the schedule"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        let sql = "SELECT deliver_at_ms FROM queue_scheduled ORDER BY deliver_at_ms, scheduled_id LIMIT 1";
        connection.query_first(sql, &[]).await?.map(|row| row.unsigned(0)).transpose()
    }
}

/// Gives what is due its place, in the order of its times.
struct MoveDue;

#[async_trait]
impl Change for MoveDue {
    /// How many.
    type Output = usize;

    fn size_bytes(&self) -> usize {
        1 << 20
    }

    fn doing(&self) -> &'static str {
        "publish scheduled messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<usize, StoreError> {
        let now = transaction.now_ms();
        let clause = Lock::Skip.clause(transaction);
        let sql = format!(
            "SELECT scheduled_id, queue_id, stored_bytes FROM queue_scheduled WHERE deliver_at_ms <= $1 \
             ORDER BY deliver_at_ms, scheduled_id LIMIT $2{clause}"
        );
        let rows = transaction.query(&sql, &[now.into(), MAX_MOVED.into()]).await?;
        // One queue at a time: its row may be held by a gateway that publishes.
        let Some(first) = rows.first() else { return Ok(0) };
        let queue_id = first.unsigned(1)?;
        let mut due = Vec::new();
        for row in &rows {
            if row.unsigned(1)? == queue_id {
                due.push((row.unsigned(0)?, row.unsigned(2)?));
            }
        }
        let Some(mut queue) = queue_numbered(transaction, queue_id, Lock::Wait).await? else {
            // Deleted: nobody shall have it.
            let ids: Vec<u64> = due.iter().map(|(id, _)| *id).collect();
            let sql = "DELETE FROM queue_scheduled WHERE scheduled_id IN (";
            super::sql::execute_for(transaction, sql, &[], &ids).await?;
            return Ok(due.len());
        };
        let published_at = now.max(queue.last_published_ms);
        let columns = MESSAGE_COLUMNS.join(", ");
        let sql = format!(
            "INSERT INTO queue_messages ({columns}) SELECT queue_id, CAST({} AS BIGINT), priority, CAST({} AS BIGINT), \
             expires_at_ms, size_bytes, stored_bytes, message_id, message_key, head, body \
             FROM queue_scheduled WHERE scheduled_id = {}",
            placeholders(1, 1),
            placeholders(2, 1),
            placeholders(3, 1)
        );
        for (id, stored_bytes) in &due {
            queue.last_offset += 1;
            queue.messages += 1;
            queue.bytes += stored_bytes;
            transaction.execute(&sql, &[queue.last_offset, published_at, *id].map(Value::from)).await?;
        }
        queue.last_published_ms = published_at;
        delete_scheduled(transaction, &mut queue, &due).await?;
        queue.save(transaction).await?;
        transaction.announce(topic(queue_id));
        Ok(due.len())
    }
}
