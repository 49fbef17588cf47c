//! Deleting what has expired: a few rows at a time, so that nobody waits for it.

use std::time::Duration;

use async_trait::async_trait;

use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::writer::Queue;

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(5);
/// Most rows of a table deleted in one transaction.
const MAX_ROWS: u32 = 500;
/// Before the next ones, when there are more: others write in between.
const PAUSE: Duration = Duration::from_millis(20);

struct Expire;

#[async_trait]
impl Change for Expire {
    /// Whether there may be more.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "delete what has expired"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let (mut more, now) = (false, transaction.now_ms());
        for table in ["idempotency", "delivered"] {
            let sql = format!(
                "DELETE FROM {table} WHERE expires_at_ms <= $1 AND (pipeline, key_hash) IN \
                 (SELECT pipeline, key_hash FROM {table} WHERE expires_at_ms <= $1 ORDER BY expires_at_ms LIMIT {MAX_ROWS})"
            );
            more |= transaction.execute(&sql, &[now.into()]).await? >= u64::from(MAX_ROWS);
        }
        Ok(more)
    }
}

/// Sweeps until it is aborted.
pub(crate) async fn sweep(queue: Queue) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match queue.change(Expire).await {
            Ok(true) => PAUSE,
            Ok(false) => EVERY,
            // The writer has said so already.
            Err(error) => {
                tracing::debug!(%error, "what has expired is not deleted");
                EVERY
            }
        };
    }
}
