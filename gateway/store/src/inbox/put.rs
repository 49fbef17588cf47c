//! An entry that goes into an inbox within somebody else's change.

use std::sync::Arc;

use sluicegate_engine::inbox::Entry;

use super::MAX_ENTRY_BYTES;
use super::ledger::Ledger;
use super::rows::{self, Readiness};
use super::stored::StoredEntry;
use crate::change::Transaction;
use crate::database::Connection;
use crate::error::StoreError;
use crate::store::Store;
use crate::stored_message::NotStored;

/// See the module. Whoever has it calls [`hold_order`](Self::hold_order) and [`insert`](Self::insert) in its change, and
/// [`committed`](Self::committed) once that is durable.
pub(crate) struct Put {
    ledger: Arc<Ledger>,
    entry: StoredEntry,
}

impl Put {
    /// Makes ready what costs time, before it comes to the one writer. The inner error says why the entry cannot be
    /// written.
    ///
    /// # Errors
    /// What is wrong with the store; `Encrypted` or `UnknownKey` when a body cannot be sealed.
    pub async fn new(store: &Store, pipeline: &Arc<str>, entry: &Entry) -> Result<Result<Self, String>, StoreError> {
        let ledger = store.ledgers().of(pipeline);
        ledger.count(store).await?;
        let entry = match StoredEntry::new(entry, pipeline, store.vault()) {
            Ok(entry) => entry,
            Err(NotStored::Head(error)) => return Ok(Err(error.to_string())),
            Err(NotStored::Body(error)) => return Err(error),
        };
        let size = entry.size_bytes();
        if size > MAX_ENTRY_BYTES {
            return Ok(Err(format!("the message has {size} bytes, and the store takes {MAX_ENTRY_BYTES}")));
        }
        Ok(Ok(Self { ledger, entry }))
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        self.entry.size_bytes()
    }

    /// To be called once in a transaction, before other locks are taken in it.
    pub async fn hold_order<'a>(
        puts: impl Iterator<Item = &'a Self>,
        connection: &mut Connection,
    ) -> Result<(), StoreError> {
        let is_ordered = { puts }.any(|put| put.entry.key_hash.is_some());
        if is_ordered { rows::hold_order(connection).await } else { Ok(()) }
    }

    /// Puts it in; returns whether it waits for its time there.
    pub async fn insert(&self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let readiness = Readiness::new(&self.ledger, self.entry.not_before_ms);
        rows::insert(transaction, &self.ledger, &self.entry, readiness, None).await?;
        transaction.announce(&self.ledger.topic);
        Ok(readiness.timed)
    }

    /// It is in.
    pub fn committed(&self, timed: bool) {
        self.ledger.entered(&self.entry, timed);
    }
}
