//! What cannot be opened is set aside, and taken up again: see the module above. Its row has `leads` = 2, is timed, and
//! has no key: what follows of its key goes on without it, as it does after a dead letter.

use std::sync::Arc;

use async_trait::async_trait;

use super::ledger::{Claim, Ledger};
use super::rows;
use super::stored::ClaimedEntry;
use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::opening::{SET_ASIDE_PAUSE, Unreadable};
use crate::reader::Question;
use crate::store::Store;

/// Most entries taken up in one change.
const MAX_TAKEN_UP: u64 = 500;

/// Sets entries aside that this gateway has claimed.
///
/// # Errors
/// What is wrong with the store; none is set aside then.
pub(super) async fn set_aside(
    store: &Store,
    ledger: &Arc<Ledger>,
    unreadable: &[Unreadable<ClaimedEntry>],
) -> Result<(), StoreError> {
    let pipeline = &ledger.pipeline;
    let mut entries = Vec::with_capacity(unreadable.len());
    for Unreadable { sealed, error } in unreadable {
        let seq = sealed.seq;
        metrics::counter!("sluicegate_inbox_messages_unreadable_total", "pipeline" => pipeline.to_string())
            .increment(1);
        tracing::error!(%pipeline, seq, %error, "a message of the inbox cannot be opened; it is set aside and stays there");
        let claim = ledger.books().claim(seq).cloned();
        entries.extend(claim.map(|claim| (seq, claim)));
    }
    store.change(SetAside { ledger: Arc::clone(ledger), entries }).await.map(drop)
}

struct SetAside {
    ledger: Arc<Ledger>,
    entries: Vec<(i64, Claim)>,
}

#[async_trait]
impl Change for SetAside {
    /// Whether one that waits for its time leads its key now.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64 * (1 + self.entries.len())
    }

    fn doing(&self) -> &'static str {
        "set messages aside"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        if self.entries.iter().any(|(_, claim)| claim.key_hash.is_some()) {
            rows::hold_order(transaction).await?;
        }
        let pause_ms = u64::try_from(SET_ASIDE_PAUSE.as_millis()).unwrap_or(u64::MAX);
        let again_ms = transaction.now_ms().saturating_add(pause_ms);
        let mut timed = false;
        for (seq, claim) in &self.entries {
            let was_there = rows::set_aside(transaction, *seq, again_ms).await?;
            if let Some(key_hash) = claim.key_hash.as_ref().filter(|_| was_there) {
                let next = rows::promote(transaction, &self.ledger, &claim.lane, key_hash).await?;
                timed |= next.is_some_and(|next| next.timed);
            }
        }
        // There may be more behind them.
        transaction.announce(&self.ledger.topic);
        Ok(timed)
    }

    fn committed(&mut self, timed: &mut bool) {
        let mut books = self.ledger.books();
        for (seq, claim) in &self.entries {
            if books.forget(*seq).is_some()
                && let Some(bytes) = claim.counted
            {
                books.backlog.subtract(1, bytes);
            }
        }
        if *timed {
            books.timed_entered();
        }
        drop(books);
        self.ledger.changed.notify_waiters();
    }
}

/// Which of those that are set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    AnyTime,
    LongEnough,
}

/// Lets entries be claimed again that were set aside. What is many is taken up in steps.
///
/// # Errors
/// What is wrong with the store.
pub(super) async fn take_up(store: &Store, ledger: &Arc<Ledger>, waited: Waited) -> Result<(), StoreError> {
    let pipeline = Arc::clone(&ledger.pipeline);
    if store.ask(AnyAside { pipeline, waited }).await? {
        while store.change(TakeUp { ledger: Arc::clone(ledger), waited }).await? >= MAX_TAKEN_UP {}
    }
    Ok(())
}

/// `$2` is the latest time until which they wait.
pub(super) const ANY_ASIDE: &str =
    "SELECT 1 FROM inbox WHERE pipeline = $1 AND leads = 2 AND ready_at_ms <= $2 LIMIT 1";

impl Waited {
    fn until_ms(self, connection: &Connection) -> u64 {
        match self {
            Self::AnyTime => u64::MAX,
            Self::LongEnough => connection.now_ms(),
        }
    }
}

struct AnyAside {
    pipeline: Arc<str>,
    waited: Waited,
}

#[async_trait]
impl Question for AnyAside {
    type Output = bool;

    fn doing(&self) -> &'static str {
        "look for messages that were set aside"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        let values = [Arc::clone(&self.pipeline).into(), self.waited.until_ms(connection).into()];
        Ok(connection.query_first(ANY_ASIDE, &values).await?.is_some())
    }
}

struct TakeUp {
    ledger: Arc<Ledger>,
    waited: Waited,
}

#[async_trait]
impl Change for TakeUp {
    /// How many.
    type Output = u64;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "take up messages that were set aside"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        let lock = match transaction.backend() {
            Backend::Sqlite => "",
            // Another gateway does the same.
            Backend::Postgres => " FOR UPDATE SKIP LOCKED",
        };
        let sql = format!(
            "UPDATE inbox SET leads = 1, ready_at_ms = $3 WHERE seq IN (SELECT seq FROM inbox WHERE pipeline = $1 \
             AND leads = 2 AND ready_at_ms <= $2 LIMIT $4{lock})"
        );
        let values: [Value; 4] = [
            Arc::clone(&self.ledger.pipeline).into(),
            self.waited.until_ms(transaction).into(),
            transaction.now_ms().into(),
            MAX_TAKEN_UP.into(),
        ];
        let taken_up = transaction.execute(&sql, &values).await?;
        transaction.announce(&self.ledger.topic);
        Ok(taken_up)
    }

    fn committed(&mut self, _: &mut u64) {
        self.ledger.books().timed_entered();
        self.ledger.changed.notify_waiters();
    }
}
