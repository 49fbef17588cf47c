//! The tasks that write receipts and delete the old ones.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until};

use super::kept::{COLUMNS, Kept};
use super::store_receipts::Shared;
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;
use crate::store::Store;

/// Most receipts of one change: all other changes wait for it.
pub(super) const MAX_BATCH_RECEIPTS: usize = 512;
/// How long the first receipt of a batch waits for others.
const LINGER: Duration = Duration::from_millis(100);
/// How often a batch is tried.
const MAX_TRIES: u32 = 10;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Rows of one INSERT, the largest first: with PostgreSQL each statement is a round trip.
const ROWS_A_STATEMENT: [usize; 3] = [64, 8, 1];

/// Most receipts deleted by one change, and the pause before the next one.
const MAX_DELETED: u64 = 1_000;
const DELETE_PAUSE: Duration = Duration::from_millis(20);
/// How often old receipts are looked for, the shorter the less long they are kept.
const DELETE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

static INSERTS: LazyLock<[String; 3]> = LazyLock::new(|| ROWS_A_STATEMENT.map(insert));

fn insert(rows: usize) -> String {
    let row = |row: usize| {
        let values: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("${}", row * COLUMNS.len() + n)).collect();
        format!("({})", values.join(", "))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO receipts ({}) VALUES {}", COLUMNS.join(", "), rows.join(", "))
}

/// Writes receipts.
pub(super) struct Keeper {
    store: Arc<Store>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Kept>,
    stop: Arc<Notify>,
}

impl Keeper {
    pub fn new(store: Arc<Store>, shared: Arc<Shared>, queue: mpsc::Receiver<Kept>, stop: Arc<Notify>) -> Self {
        Self { store, shared, queue, stop }
    }

    /// Writes until it is told to stop and the queue is empty.
    pub async fn run(mut self) {
        loop {
            let batch = self.collect().await;
            if batch.is_empty() {
                return;
            }
            self.write(batch).await;
        }
    }

    /// The next batch; empty when there will be none.
    async fn collect(&mut self) -> Vec<Kept> {
        let mut batch = Vec::with_capacity(MAX_BATCH_RECEIPTS);
        let first = tokio::select! {
            () = self.stop.notified(), if !self.queue.is_closed() => {
                self.queue.close();
                self.queue.recv().await
            }
            first = self.queue.recv() => first,
        };
        let Some(first) = first else { return batch };
        batch.push(first);
        // Sleeping costs less than being woken by each of the others.
        if !self.queue.is_closed() && self.queue.len() < MAX_BATCH_RECEIPTS {
            tokio::select! {
                () = self.stop.notified() => self.queue.close(),
                () = self.shared.ripe.notified() => {}
                () = sleep_until(Instant::now() + LINGER) => {}
            }
        }
        while batch.len() < MAX_BATCH_RECEIPTS
            && let Ok(next) = self.queue.try_recv()
        {
            batch.push(next);
        }
        batch
    }

    async fn write(&mut self, batch: Vec<Kept>) {
        let (receipts, bytes) = (batch.len(), batch.iter().map(|kept| kept.size_bytes).sum());
        let mut values = Vec::with_capacity(receipts * COLUMNS.len());
        for kept in batch {
            match kept.values() {
                Ok(row) => values.extend(row),
                Err(error) => self.shared.lose(1, &error.to_string()),
            }
        }
        let rows = Rows { values: values.into(), size_bytes: bytes };
        for attempt in 1..=MAX_TRIES {
            match self.store.change(rows.clone()).await {
                Ok(()) => {
                    metrics::counter!("sluicegate_receipts_total").increment(rows.count() as u64);
                    break;
                }
                Err(error) if attempt == MAX_TRIES || self.queue.is_closed() || !error.is_transient() => {
                    self.shared.lose(rows.count(), &error.to_string());
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, attempt, receipts, "receipts not written; trying again");
                    tokio::select! {
                        () = self.stop.notified() => self.queue.close(),
                        () = sleep(RETRY_PAUSE) => {}
                    }
                }
            }
        }
        self.shared.leave(receipts, bytes);
    }
}

/// Receipts to write.
#[derive(Clone)]
struct Rows {
    /// Of one row after another.
    values: Arc<[Value]>,
    size_bytes: usize,
}

impl Rows {
    fn count(&self) -> usize {
        self.values.len() / COLUMNS.len()
    }
}

#[async_trait]
impl Change for Rows {
    type Output = ();

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn doing(&self) -> &'static str {
        "write receipts"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let mut left = &self.values[..];
        for (rows, sql) in ROWS_A_STATEMENT.iter().zip(INSERTS.iter()) {
            while let Some((values, rest)) = left.split_at_checked(rows * COLUMNS.len()) {
                // Each statement has at least one row.
                if values.is_empty() {
                    break;
                }
                transaction.execute(sql, values).await?;
                left = rest;
            }
        }
        Ok(())
    }
}

/// Deletes receipts that are kept long enough, in small steps, for ever.
pub(super) async fn delete_old(store: Arc<Store>, shared: Arc<Shared>) {
    loop {
        let (least, most) = DELETE_EVERY;
        sleep((Duration::from_millis(shared.keep_ms()) / 20).clamp(least, most)).await;
        let before_ms = store.now_ms().saturating_sub(shared.keep_ms());
        loop {
            match store.change(DeleteBefore(before_ms)).await {
                Ok(MAX_DELETED) => sleep(DELETE_PAUSE).await,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "old receipts are not deleted now; they will be later");
                    break;
                }
            }
        }
    }
}

struct DeleteBefore(u64);

#[async_trait]
impl Change for DeleteBefore {
    type Output = u64;

    fn size_bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn doing(&self) -> &'static str {
        "delete old receipts"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let sql = "DELETE FROM receipts WHERE seq IN \
            (SELECT seq FROM receipts WHERE began_at_ms < $1 ORDER BY began_at_ms, seq LIMIT $2)";
        transaction.execute(sql, &[self.0.into(), MAX_DELETED.into()]).await
    }
}
