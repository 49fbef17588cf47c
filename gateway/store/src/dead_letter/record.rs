//! Recording a dead letter.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::Failure;

use super::stored::{Recorded, StoredLetter};
use crate::change::{Change, Transaction};
use crate::error::StoreError;
use crate::store::Store;
use crate::stored_message::NotStored;
use crate::vault::Vault;

/// Largest record: below SQLite's limit of 1,000,000,000 bytes a row and PostgreSQL's of 1 GiB a value.
const MAX_RECORD_BYTES: usize = 900_000_000;

/// Beyond this, bodies are compressed and sealed on a thread that may block.
const MAX_INLINE_BYTES: usize = 64 << 10;

struct Record {
    letter: StoredLetter,
    is_part: bool,
}

#[async_trait]
impl Change for Record {
    type Output = Recorded;

    fn size_bytes(&self) -> usize {
        self.letter.size_bytes()
    }

    fn doing(&self) -> &'static str {
        "write dead letters"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Recorded, StoreError> {
        match self.is_part {
            false => self.letter.record(transaction).await,
            true => self.letter.insert(transaction).await.map(|_| Recorded::Done),
        }
    }
}

#[async_trait]
impl DeadLetters for Store {
    /// Durable (committed and synced) when it returns `Ok`. If the call is dropped before, the record may or may not be
    /// written; recording it again is harmless.
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        let stored = self.stored(letter, StoredLetter::new).await?;
        match self.change(Record { letter: stored, is_part: false }).await? {
            Recorded::Done => return Ok(()),
            Recorded::IsPart => {}
        }
        let part = self.stored(letter, StoredLetter::part).await?;
        match self.change(Record { letter: part, is_part: true }).await? {
            Recorded::Done | Recorded::IsPart => Ok(()),
        }
    }
}

impl Store {
    async fn stored(
        &self,
        letter: &Arc<DeadLetter>,
        form: fn(&Arc<DeadLetter>, &Vault) -> Result<StoredLetter, NotStored>,
    ) -> Result<StoredLetter, Failure> {
        let formed = if letter.original.body.len() + letter.at_failure.body.len() <= MAX_INLINE_BYTES {
            form(letter, self.vault())
        } else {
            let (letter, vault) = (Arc::clone(letter), Arc::clone(self.vault()));
            let doing = "write dead letters";
            tokio::task::spawn_blocking(move || form(&letter, &vault))
                .await
                .map_err(|_| StoreError::Closed { doing })?
        };
        let stored = formed.map_err(|error| match error {
            NotStored::Head(error) => Failure::permanent(format!("cannot write dead letter {}: {error}", letter.id)),
            NotStored::Body(error) => error.into(),
        })?;
        if stored.size_bytes() > MAX_RECORD_BYTES {
            return Err(Failure::permanent(format!(
                "cannot write a dead letter of {} bytes: a record has at most {MAX_RECORD_BYTES}; lower the source's body limit",
                stored.size_bytes()
            )));
        }
        Ok(stored)
    }
}
