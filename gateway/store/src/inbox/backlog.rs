//! Counting what waits to be carried.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::admission::Backlog;
use super::ledger::{BacklogBooks, Ledger, counts};
use super::stored::StoredEntry;
use crate::database::{Backend, Connection};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;

/// How often the whole is counted where other gateways change it, too.
const COUNT_AGAIN: Duration = Duration::from_secs(5);
/// Counting may take this part of the time.
const COUNT_SHARE: u32 = 50;

/// Room in the backlog, given back unless it is kept.
#[derive(Debug)]
pub(super) struct Reservation {
    ledger: Arc<Ledger>,
    messages: u64,
    bytes: u64,
    is_kept: bool,
}

impl Reservation {
    /// The messages are in.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_kept {
            self.ledger.books().backlog.subtract(self.messages, self.bytes);
        }
    }
}

impl Ledger {
    /// Sees that the backlog is counted. Exact if nothing is put in or settled before it is, which is why everything that
    /// does so calls this first.
    ///
    /// # Errors
    /// What is wrong with the store; tried again with the next call.
    pub async fn count(&self, store: &Store) -> Result<(), StoreError> {
        let is_first = !self.counted.initialized();
        self.counted.get_or_try_init(|| self.recount(store)).await?;
        if store.backend() == Backend::Postgres && !is_first && self.books().begins_to_count() {
            self.recount(store).await?;
        }
        Ok(())
    }

    async fn recount(&self, store: &Store) -> Result<(), StoreError> {
        let began = Instant::now();
        let counted = store.ask(CountBacklog { pipeline: Arc::clone(&self.pipeline) }).await?;
        let mut books = self.books();
        books.backlog = counted;
        books.count_at = Some(Instant::now() + COUNT_AGAIN.max(began.elapsed() * COUNT_SHARE));
        Ok(())
    }

    /// Room for these, if there is any.
    pub(super) fn reserve(self: &Arc<Self>, entries: &[StoredEntry], limit: Backlog) -> Option<Reservation> {
        let now = self.clock.now_ms();
        let counted = entries.iter().filter(|entry| counts(&entry.lane, entry.not_before_ms > now));
        let (messages, bytes) = counted.fold((0, 0), |(messages, bytes), entry| (messages + 1, bytes + entry.bytes));
        let mut books = self.books();
        let fits = books.backlog.messages.saturating_add(messages) <= limit.max_messages
            && books.backlog.bytes.saturating_add(bytes) <= limit.max_bytes;
        if !fits {
            return None;
        }
        books.backlog.add(messages, bytes);
        drop(books);
        Some(Reservation { ledger: Arc::clone(self), messages, bytes, is_kept: false })
    }
}

struct CountBacklog {
    pipeline: Arc<str>,
}

pub(super) const COUNT: [&str; 2] = [
    "SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM inbox WHERE pipeline = $1 AND leads IN (0, 1) \
     AND lane = '' AND timed = 0",
    "SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM inbox WHERE pipeline = $1 AND lane = '' AND timed = 0",
];

#[async_trait]
impl Question for CountBacklog {
    type Output = BacklogBooks;

    fn doing(&self) -> &'static str {
        "count the backlog"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<BacklogBooks, StoreError> {
        let sql = COUNT[usize::from(connection.backend() == Backend::Postgres)];
        match connection.query_first(sql, &[Arc::clone(&self.pipeline).into()]).await? {
            Some(row) => Ok(BacklogBooks { messages: row.unsigned(0)?, bytes: row.unsigned(1)? }),
            None => Err(connection.failed("a count without an answer")),
        }
    }
}
