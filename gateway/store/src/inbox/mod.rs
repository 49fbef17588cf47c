//! Inboxes: the messages that the gateway keeps for its pipelines. What was accepted and not carried yet (the spool, see
//! [`Store::admit`](crate::Store::admit)), and what waits for another attempt or for its time.
//!
//! An entry is a row. On SQLite claims are kept in memory, since one gateway has the file: a claim walks the index of
//! what is ready from where the last one ended, and writes nothing. On PostgreSQL a claim writes the gateway's name into
//! the rows, so that several gateways share the work and take over from each other.
//!
//! An entry that cannot be opened (its key is not there, or it was changed) keeps no other back, nor the next of its key:
//! it is logged, counted (`sluicegate_inbox_messages_unreadable_total`) and set aside. It stays where it is, no part of the
//! backlog, and is tried again ten minutes later and whenever its pipeline starts.
//!
//! Read `ledger.rs` first (what is in memory), then `rows.rs` (what changes rows), then `source.rs`.

mod admission;
mod aside;
mod backlog;
mod ledger;
mod outlook;
#[cfg(test)]
mod plans;
mod put;
mod rows;
mod settle;
mod source;
mod stored;
mod take;
mod walk;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::inbox::{Entry, Inbox};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::source::Source;

use crate::change::{Change, Transaction};
use crate::clock::Clock;
use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;
use crate::stored_message::NotStored;
use rows::Readiness;
use source::{InboxSource, Run};
use stored::StoredEntry;

pub use admission::{Admission, Admitted, Backlog};
pub(crate) use ledger::Ledger;
pub(crate) use put::Put;

/// Most bytes of bodies in one claim, but for a single larger message: a batch of large messages must not fill memory.
const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// Largest entry: below SQLite's limit of 1,000,000,000 bytes a row and PostgreSQL's of 1 GiB a value.
const MAX_ENTRY_BYTES: usize = 900_000_000;
/// Keys read at a time.
const KEYS_PAGE: usize = 1_000;

/// The inbox of one pipeline. All inboxes of the same name share what is claimed.
pub struct StoreInbox {
    store: Arc<Store>,
    ledger: Arc<Ledger>,
}

impl StoreInbox {
    /// Does no I/O.
    pub fn new(store: Arc<Store>, pipeline: &Arc<str>) -> Self {
        let ledger = store.ledgers().of(pipeline);
        Self { store, ledger }
    }
}

#[async_trait]
impl Inbox for StoreInbox {
    fn source(&self, lanes: Lanes) -> Box<dyn Source> {
        let (store, ledger) = (Arc::clone(&self.store), Arc::clone(&self.ledger));
        let run = Run::begin(&store, &ledger);
        Box::new(InboxSource { store, ledger, lanes, run })
    }

    async fn park(&self, entry: Entry) -> Result<(), Failure> {
        let id = &entry.message.id;
        let stored =
            StoredEntry::new(&entry, &self.ledger.pipeline, self.store.vault()).map_err(|error| unparked(error, id))?;
        if stored.size_bytes() > MAX_ENTRY_BYTES {
            return Err(Failure::permanent(format!(
                "cannot park message {id} of {} bytes: the store takes {MAX_ENTRY_BYTES}; lower the source's body limit",
                stored.size_bytes()
            )));
        }
        self.ledger.count(&self.store).await?;
        self.store.change(Park { ledger: Arc::clone(&self.ledger), entry: stored }).await?;
        Ok(())
    }

    async fn ordered_keys(&self) -> Result<Vec<(String, Bytes)>, Failure> {
        let (mut keys, mut after) = (Vec::new(), KeyPosition::default());
        loop {
            let page = OrderedKeys { pipeline: Arc::clone(&self.ledger.pipeline), after };
            let KeysPage { found, last } = self.store.ask(page).await?;
            keys.extend(found);
            match last {
                Some(last) => after = last,
                None => return Ok(keys),
            }
        }
    }
}

fn unparked(error: NotStored, id: &str) -> Failure {
    match error {
        NotStored::Head(error) => Failure::permanent(format!("cannot park message {id}: {error}")),
        NotStored::Body(error) => error.into(),
    }
}

/// What is known of each pipeline's inbox.
#[derive(Debug)]
pub(crate) struct Ledgers {
    clock: Clock,
    by_pipeline: Mutex<HashMap<Arc<str>, Arc<Ledger>>>,
}

impl Ledgers {
    pub fn new(clock: Clock) -> Self {
        Self { clock, by_pipeline: Mutex::default() }
    }

    pub fn of(&self, pipeline: &Arc<str>) -> Arc<Ledger> {
        let mut ledgers = self.by_pipeline.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Ledger::new(pipeline, self.clock.clone()));
        let ledger = ledgers.entry(Arc::clone(pipeline)).or_insert_with(new);
        Arc::clone(ledger)
    }
}

/// A lane to claim from.
#[derive(Debug, Clone)]
struct LaneWanted {
    name: Arc<str>,
    max_messages: usize,
}

struct Park {
    ledger: Arc<Ledger>,
    entry: StoredEntry,
}

#[async_trait]
impl Change for Park {
    /// Whether it waits for its time.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        self.entry.size_bytes()
    }

    fn doing(&self) -> &'static str {
        "park a message"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        if self.entry.key_hash.is_some() {
            rows::hold_order(transaction).await?;
        }
        let readiness = Readiness::new(&self.ledger, self.entry.not_before_ms);
        rows::insert(transaction, &self.ledger, &self.entry, readiness, None).await?;
        transaction.announce(&self.ledger.topic);
        Ok(readiness.timed)
    }

    fn committed(&mut self, timed: &mut bool) {
        self.ledger.entered(&self.entry, *timed);
    }
}

/// Lane and key of ordered entries, in the order of the index that has them.
struct OrderedKeys {
    pipeline: Arc<str>,
    after: KeyPosition,
}

#[derive(Debug, Clone, Default)]
struct KeyPosition {
    lane: String,
    key_hash: Bytes,
    seq: i64,
}

struct KeysPage {
    found: Vec<(String, Bytes)>,
    /// Where the next page begins, if there may be one.
    last: Option<KeyPosition>,
}

const ORDERED: &str = "SELECT lane, key_hash, seq, head FROM inbox WHERE pipeline = $1 AND key_hash IS NOT NULL \
    AND (lane, key_hash, seq) > ($2, $3, $4) ORDER BY lane, key_hash, seq LIMIT $5";

#[async_trait]
impl Question for OrderedKeys {
    type Output = KeysPage;

    fn doing(&self) -> &'static str {
        "read which keys wait"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<KeysPage, StoreError> {
        let KeyPosition { lane, key_hash, seq } = self.after.clone();
        let limit = KEYS_PAGE as u64;
        let arguments: [Value; 5] =
            [Arc::clone(&self.pipeline).into(), lane.into(), key_hash.into(), seq.into(), limit.into()];
        let rows = connection.query(ORDERED, &arguments).await?;
        let mut page = KeysPage { found: Vec::with_capacity(rows.len()), last: None };
        for row in &rows {
            let key = crate::stored_message::key(&row.text(3)?).map_err(|cause| row.damaged(cause))?;
            page.found.extend(key.map(|key| Ok::<_, StoreError>((row.text(0)?, key))).transpose()?);
        }
        if let Some(row) = rows.last().filter(|_| rows.len() == KEYS_PAGE) {
            page.last = Some(KeyPosition { lane: row.text(0)?, key_hash: row.bytes(1)?, seq: row.integer(2)? });
        }
        Ok(page)
    }
}
