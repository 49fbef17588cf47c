//! Removing dead letters: by hand, and by age and count. What is on its way again is never removed.

use async_trait::async_trait;

use super::redriven::state;
use super::{Changed, Conditions, Filter};
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::store::Store;

/// Removed in one transaction, so that other changes need not wait long.
const STEP: u64 = 250;

/// For a statement that deletes; `dead_letters` is the letter's row.
const NOT_BEING_REDRIVEN: &str = "NOT EXISTS (SELECT 1 FROM inbox WHERE redrive_letter = dead_letters.id)";

impl Store {
    /// Deletes one dead letter for good.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn delete_letter(&self, id: &str) -> Result<Changed, StoreError> {
        self.change(DeleteLetter(id.to_owned())).await
    }

    /// Deletes all dead letters that match and have failed by now, but those that are being redriven. Returns how many
    /// were deleted. Many small changes; if the call is dropped, some are deleted and some not.
    ///
    /// # Errors
    /// What is wrong with the store; some may be deleted then.
    pub async fn purge_letters(&self, filter: &Filter) -> Result<u64, StoreError> {
        let now = self.now_ms().saturating_add(1);
        let filter = Filter { until_ms: Some(filter.until_ms.map_or(now, |until| until.min(now))), ..filter.clone() };
        let mut deleted = 0;
        loop {
            let step = self.change(Purge { filter: filter.clone(), limit: STEP }).await?;
            deleted += step;
            if step < STEP {
                return Ok(deleted);
            }
        }
    }

    /// Deletes dead letters that failed more than `keep_ms` milliseconds ago, and the oldest of those above `max` of them.
    /// Returns how many were deleted. As [`purge_letters`](Self::purge_letters) otherwise.
    ///
    /// # Errors
    /// What is wrong with the store; some may be deleted then.
    pub async fn trim_letters(&self, keep_ms: Option<u64>, max: Option<u64>) -> Result<u64, StoreError> {
        let mut deleted = 0;
        if let Some(keep_ms) = keep_ms {
            let until_ms = Some(self.now_ms().saturating_sub(keep_ms));
            deleted += self.purge_letters(&Filter { until_ms, ..Filter::default() }).await?;
        }
        if let Some(max) = max {
            let mut excess = self.reader().count(&Filter::default()).await?.saturating_sub(max);
            while excess > 0 {
                let limit = excess.min(STEP);
                let step = self.change(Purge { filter: Filter::default(), limit }).await?;
                deleted += step;
                excess -= limit;
                if step < limit {
                    break;
                }
            }
        }
        Ok(deleted)
    }
}

struct DeleteLetter(String);

#[async_trait]
impl Change for DeleteLetter {
    type Output = Changed;

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "delete a dead letter"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Changed, StoreError> {
        let changed = state(transaction, &self.0).await?;
        if changed == Changed::Done {
            transaction.execute("DELETE FROM dead_letters WHERE id = $1", &[self.0.as_str().into()]).await?;
        }
        Ok(changed)
    }
}

/// The oldest that match.
struct Purge {
    filter: Filter,
    limit: u64,
}

#[async_trait]
impl Change for Purge {
    type Output = u64;

    fn size_bytes(&self) -> usize {
        // Nothing else should wait for two of them.
        1 << 20
    }

    fn doing(&self) -> &'static str {
        "delete dead letters"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let mut conditions = Conditions::of(&self.filter);
        conditions.and(NOT_BEING_REDRIVEN);
        let limit = conditions.value(self.limit);
        // PostgreSQL: a letter that somebody is about to redrive is locked, and left alone.
        let lock = match transaction.backend() {
            crate::database::Backend::Sqlite => "",
            crate::database::Backend::Postgres => " FOR UPDATE SKIP LOCKED",
        };
        let sql = format!(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE {} ORDER BY failed_at_ms, id \
             LIMIT {limit}{lock})",
            conditions.sql
        );
        transaction.execute(&sql, &conditions.values).await
    }
}
