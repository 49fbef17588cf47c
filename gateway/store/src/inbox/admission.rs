//! Admission: the spool. Messages are put into their pipeline's inbox before anybody is told that they were accepted.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::inbox::{Entry, Progress};
use sluicegate_engine::message::Message;
use tokio::sync::oneshot;

use super::backlog::Reservation;
use super::ledger::Ledger;
use super::rows::{self, Readiness};
use super::stored::StoredEntry;
use super::{MAX_ENTRY_BYTES, StoreInbox};
use crate::change::{Change, Transaction};
use crate::database::Backend;
use crate::error::StoreError;
use crate::idempotency::{self, Idempotency, Recalled, StoredAnswer};
use crate::store::Store;
use crate::stored_message::NotStored;

/// The messages of one request.
#[derive(Debug)]
pub struct Admission {
    /// The pipeline whose inbox they go into.
    pub pipeline: Arc<str>,
    /// At least one.
    pub messages: Vec<Message>,
    /// Whether messages of the same key wait for each other.
    pub ordered: bool,
    /// The request's idempotency key, with the answer to record for it.
    pub idempotency: Option<Idempotency>,
    /// Whether [`Admitted::Taken`] is to say how to learn the outcomes.
    pub wait: bool,
    /// How much may wait, these messages included.
    pub backlog: Backlog,
}

/// How much may wait in an inbox that is ready to be carried and has not reached a target; what waits for a target, for
/// its time or for another attempt does not count.
///
/// Exact on SQLite. On PostgreSQL each gateway counts what it puts in and takes out itself and looks at the whole every
/// few seconds (every five, or more rarely if counting takes long: a fiftieth of the time at most), so that the limit may
/// be overshot by what the other gateways admit meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub max_messages: u64,
    /// Bytes of their bodies as they are stored.
    pub max_bytes: u64,
}

/// What became of an [`Admission`].
#[derive(Debug)]
pub enum Admitted {
    /// The messages are durable.
    Taken {
        /// If asked for, one for each message, in order: how its first stay in the pipeline ended; `Parked` if it waits
        /// for another attempt. Closed without a word when that is not to be learned here any more.
        outcomes: Vec<oneshot::Receiver<Outcome>>,
    },
    /// The same request was taken before: nothing was put in now.
    Repeated(StoredAnswer),
    /// The idempotency key was recorded for another request: nothing was put in.
    KeyReused,
    /// The backlog has no room for all of the messages: nothing was put in.
    BacklogFull,
}

impl Store {
    /// Puts all messages of a request into their pipeline's inbox, in order, at the start of their way, or none of them;
    /// with them, in one transaction, the idempotency key. Durable when it returns `Taken`. Many requests share one
    /// transaction and one fsync.
    ///
    /// If the call is dropped before it returns, all may be in or none.
    ///
    /// # Errors
    /// Nothing was put in, but for a connection that broke while it was being committed.
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        let Admission { pipeline, messages, ordered, idempotency, wait, backlog } = admission;
        let ledger = self.ledgers().of(&pipeline);
        ledger.count(self).await?;
        let received_at_ms = self.now_ms();
        let mut entries = Vec::with_capacity(messages.len());
        for message in messages {
            let message = Arc::new(message);
            let progress = Progress { attempt: 1, received_at_ms, ..Progress::default() };
            // One with a time to come is parked until then, and in nobody's way.
            let not_before_ms = message.deliver_at_ms.unwrap_or_default();
            let entry = Entry { original: Arc::clone(&message), message, progress, not_before_ms, ordered };
            let stored = StoredEntry::new(&entry, &pipeline, self.vault()).map_err(|error| match error {
                NotStored::Head(error) => self.refused(error.to_string()),
                NotStored::Body(error) => error,
            })?;
            if stored.size_bytes() > MAX_ENTRY_BYTES {
                let text = format!("a message has {} bytes, the store takes {MAX_ENTRY_BYTES}", stored.size_bytes());
                return Err(self.refused(text));
            }
            entries.push(stored);
        }
        let Some(reservation) = ledger.reserve(&entries, backlog) else {
            return match idempotency {
                None => Ok(Admitted::BacklogFull),
                Some(Idempotency { key, fingerprint, .. }) => match self.recall(&pipeline, &key, &fingerprint).await? {
                    Recalled::Unknown => Ok(Admitted::BacklogFull),
                    Recalled::Answered(answer) => Ok(Admitted::Repeated(answer)),
                    Recalled::KeyReused => Ok(Admitted::KeyReused),
                },
            };
        };
        let timed = false;
        self.change(Admit { ledger, entries, idempotency, wait, reservation, inserted: Vec::new(), timed }).await
    }
}

impl StoreInbox {
    /// As [`Store::admit`].
    ///
    /// # Errors
    /// As [`Store::admit`].
    pub async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        self.store.admit(admission).await
    }
}

struct Admit {
    ledger: Arc<Ledger>,
    entries: Vec<StoredEntry>,
    idempotency: Option<Idempotency>,
    wait: bool,
    reservation: Reservation,
    /// Numbers given to the entries, if outcomes are waited for.
    inserted: Vec<i64>,
    timed: bool,
}

#[async_trait]
impl Change for Admit {
    type Output = Admitted;

    fn size_bytes(&self) -> usize {
        let answer = self.idempotency.as_ref().map_or(0, |idempotency| 256 + idempotency.answer.body.len());
        answer + self.entries.iter().map(|entry| 256 + entry.size_bytes()).sum::<usize>()
    }

    fn doing(&self) -> &'static str {
        "accept messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Admitted, StoreError> {
        self.inserted.clear();
        self.timed = false;
        let ledger = &*self.ledger;
        // First of all, in every change: so nobody waits in a circle.
        if self.entries.iter().any(|entry| entry.key_hash.is_some()) {
            rows::hold_order(transaction).await?;
        }
        if let Some(idempotency) = &self.idempotency {
            match idempotency::take(transaction, &ledger.pipeline, idempotency).await? {
                Recalled::Unknown => {}
                Recalled::Answered(answer) => return Ok(Admitted::Repeated(answer)),
                Recalled::KeyReused => return Ok(Admitted::KeyReused),
            }
        }
        // Only this gateway can tell the outcome, so only this gateway may carry it.
        let reserves = self.wait && transaction.backend() == Backend::Postgres;
        let mut outcomes = Vec::new();
        for entry in &self.entries {
            let readiness = Readiness::new(ledger, entry.not_before_ms);
            self.timed |= readiness.timed;
            let claimed_by = (reserves && !readiness.timed).then(|| transaction.owner());
            let seq = rows::insert(transaction, ledger, entry, readiness, claimed_by).await?;
            if self.wait {
                let (waiter, outcome) = oneshot::channel();
                // Before it is committed: nobody can claim it yet.
                ledger.books().enter_waiter(seq, waiter);
                outcomes.push(outcome);
                if reserves && !readiness.timed {
                    self.inserted.push(seq);
                }
            }
        }
        transaction.announce(&ledger.topic);
        Ok(Admitted::Taken { outcomes })
    }

    fn committed(&mut self, admitted: &mut Admitted) {
        if let Admitted::Taken { .. } = admitted {
            self.reservation.keep();
            let mut books = self.ledger.books();
            books.reserved.extend(self.inserted.drain(..));
            if self.timed {
                books.timed_entered();
            }
            drop(books);
            if self.timed || self.wait {
                self.ledger.changed.notify_waiters();
            }
        }
    }
}
