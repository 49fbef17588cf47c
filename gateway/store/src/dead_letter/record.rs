//! Recording a dead letter.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::Failure;

use super::stored::{NotStored, StoredLetter};
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::store::Store;

/// Largest record: below SQLite's limit of 1,000,000,000 bytes a row and PostgreSQL's of 1 GiB a value.
const MAX_RECORD_BYTES: usize = 900_000_000;

struct Record(StoredLetter);

#[async_trait]
impl Change for Record {
    type Output = ();

    fn size_bytes(&self) -> usize {
        self.0.size_bytes()
    }

    fn doing(&self) -> &'static str {
        "write dead letters"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        self.0.insert(transaction).await
    }
}

#[async_trait]
impl DeadLetters for Store {
    /// Durable (committed and synced) when it returns `Ok`. If the call is dropped before, the record may or may not be
    /// written; recording it again is harmless.
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        let letter = StoredLetter::new(letter, self.vault()).map_err(|error| match error {
            NotStored::Head(error) => Failure::permanent(format!("cannot write dead letter {}: {error}", letter.id)),
            NotStored::Body(error) => error.into(),
        })?;
        if letter.size_bytes() > MAX_RECORD_BYTES {
            return Err(Failure::permanent(format!(
                "cannot write a dead letter of {} bytes: a record has at most {MAX_RECORD_BYTES}; lower the source's body limit",
                letter.size_bytes()
            )));
        }
        Ok(self.change(Record(letter)).await?)
    }
}
