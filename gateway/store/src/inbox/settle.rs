//! Settling: what became of entries this gateway carried, written in one change.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Outcome, Settled, Settlement};
use sluicegate_engine::failure::Failure;

use super::ledger::{Claim, Ledger, counts, told};
use super::rows::{self, Readiness};
use super::stored::{self, StoredEntry};
use crate::change::{Change, Transaction};
use crate::database::Backend;
use crate::error::StoreError;
use crate::redrive;
use crate::vault::Vault;

/// What is to be done with entries. Those that this gateway does not carry (any more) are left alone: they were settled
/// before.
pub(super) struct SettleBatch {
    ledger: Arc<Ledger>,
    /// Goes, and nothing else changes.
    plain: Vec<(i64, Claim)>,
    /// Goes, and the next of its key leads, or a dead letter goes with it.
    gone: Vec<(i64, Claim)>,
    /// How the way of those that come from dead letters ended.
    redriven: HashMap<i64, Outcome>,
    replaced: Vec<(i64, Claim, StoredEntry)>,
    postponed: Vec<Postponed>,
    released: Vec<i64>,
    told: Vec<(i64, Outcome)>,
}

struct Postponed {
    seq: i64,
    claim: Claim,
    not_before_ms: u64,
    attempt: u32,
}

/// What a change did, for the ledger.
#[derive(Default)]
pub(super) struct Applied {
    /// Something is to be delivered at some time that was not known before.
    timed: bool,
    /// What joined the backlog.
    messages: u64,
    bytes: u64,
}

impl SettleBatch {
    /// # Errors
    /// A body that cannot be sealed.
    pub fn new(ledger: &Arc<Ledger>, vault: &Vault, batch: &[Settled]) -> Result<Self, Failure> {
        let mut settling = Self {
            ledger: Arc::clone(ledger),
            plain: Vec::with_capacity(batch.len()),
            gone: Vec::new(),
            redriven: HashMap::new(),
            replaced: Vec::new(),
            postponed: Vec::new(),
            released: Vec::new(),
            told: Vec::new(),
        };
        let now = ledger.clock.now_ms();
        for settled in batch {
            let Some(seq) = stored::seq(settled.token) else { continue };
            let (claim, awaited) = {
                let books = ledger.books();
                (books.claim(seq).cloned(), books.is_awaited(seq))
            };
            let Some(claim) = claim else { continue };
            let outcome = &settled.outcome;
            if awaited && let Some(told) = told(outcome) {
                settling.told.push((seq, told));
            }
            match outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {
                    if claim.redrive.is_some() {
                        settling.redriven.insert(seq, outcome.clone());
                    }
                    let kind = if claim.is_plain() { &mut settling.plain } else { &mut settling.gone };
                    kind.push((seq, claim));
                }
                Settlement::Postponed { after, attempt } => match &outcome.parked {
                    Some(entry) => {
                        let entry = StoredEntry::new(entry, &ledger.pipeline, vault)
                            .map_err(|error| super::unparked(error, &settled.message.id))?;
                        settling.replaced.push((seq, claim, entry));
                    }
                    None => {
                        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                        let not_before_ms = now.saturating_add(after_ms);
                        settling.postponed.push(Postponed { seq, claim, not_before_ms, attempt });
                    }
                },
                Settlement::Requeued => settling.released.push(seq),
            }
        }
        Ok(settling)
    }

    /// Whether there is anything to write. Claims that are kept in memory alone are given back without.
    pub fn writes(&self, backend: Backend) -> bool {
        let changes =
            !(self.plain.is_empty() && self.gone.is_empty() && self.replaced.is_empty() && self.postponed.is_empty());
        changes || backend == Backend::Postgres && !self.released.is_empty()
    }

    /// Says in the ledger what has been done.
    pub fn enter(&mut self, applied: &Applied) {
        let mut books = self.ledger.books();
        let gone = self.plain.iter().chain(&self.gone);
        let moved = self.replaced.iter().map(|(seq, claim, _)| (seq, claim));
        let later = self.postponed.iter().map(|postponed| (&postponed.seq, &postponed.claim));
        let (mut messages, mut bytes) = (0, 0);
        for (seq, claim) in gone.map(|(seq, claim)| (seq, claim)).chain(moved).chain(later) {
            if books.forget(*seq).is_some()
                && let Some(counted) = claim.counted
            {
                messages += 1;
                bytes += counted;
            }
        }
        books.backlog.subtract(messages, bytes);
        books.backlog.add(applied.messages, applied.bytes);
        for seq in &self.released {
            books.forget(*seq);
        }
        if !self.released.is_empty() {
            books.walk_from_start();
        }
        if applied.timed {
            books.timed_entered();
        }
        drop(books);
        self.ledger.answer(std::mem::take(&mut self.told));
        self.ledger.changed.notify_waiters();
    }
}

#[async_trait]
impl Change for SettleBatch {
    type Output = Applied;

    fn size_bytes(&self) -> usize {
        let entries = self.plain.len() + self.gone.len() + self.postponed.len() + self.released.len();
        64 + 64 * entries + self.replaced.iter().map(|(_, _, entry)| entry.size_bytes()).sum::<usize>()
    }

    fn doing(&self) -> &'static str {
        "settle messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Applied, StoreError> {
        let ledger = &*self.ledger;
        let mut applied = Applied::default();
        let ordered = self.gone.iter().any(|(_, claim)| claim.key_hash.is_some())
            || self.replaced.iter().any(|(_, claim, entry)| claim.key_hash.is_some() || entry.key_hash.is_some());
        if ordered {
            rows::hold_order(transaction).await?;
        }
        if !self.plain.is_empty() {
            rows::delete(transaction, self.plain.iter().map(|(seq, _)| *seq)).await?;
        }
        for (seq, claim) in &self.gone {
            let was_there = rows::delete(transaction, [*seq]).await? > 0;
            if let Some(key_hash) = claim.key_hash.as_ref().filter(|_| was_there) {
                let next = rows::promote(transaction, ledger, &claim.lane, key_hash).await?;
                applied.timed |= next.is_some_and(|next| next.timed);
            }
            if let (Some(redrive), Some(outcome), true) = (&claim.redrive, self.redriven.get(seq), was_there) {
                redrive::ended(transaction, &redrive.letter, redrive.count, outcome).await?;
            }
        }
        for (seq, claim, entry) in &self.replaced {
            let readiness = Readiness::new(ledger, entry.not_before_ms);
            if !rows::replace(transaction, ledger, *seq, entry, readiness).await? {
                continue;
            }
            applied.timed |= readiness.timed;
            if counts(&entry.lane, readiness.timed) {
                applied.messages += 1;
                applied.bytes += entry.bytes;
            }
            if let Some(key_hash) = &claim.key_hash
                && (claim.lane != entry.lane || Some(key_hash) != entry.key_hash.as_ref())
            {
                let next = rows::promote(transaction, ledger, &claim.lane, key_hash).await?;
                applied.timed |= next.is_some_and(|next| next.timed);
            }
            transaction.announce(&ledger.topic);
        }
        for postponed in &self.postponed {
            let readiness = Readiness::new(ledger, postponed.not_before_ms);
            applied.timed |= readiness.timed;
            if rows::postpone(transaction, postponed.seq, readiness, postponed.attempt).await?
                && counts(&postponed.claim.lane, readiness.timed)
            {
                applied.messages += 1;
                applied.bytes += postponed.claim.counted.unwrap_or_default();
            }
            transaction.announce(&ledger.topic);
        }
        if !self.released.is_empty() {
            rows::release(transaction, ledger, self.released.iter().copied()).await?;
        }
        Ok(applied)
    }

    fn committed(&mut self, applied: &mut Applied) {
        self.enter(applied);
    }
}

/// Gives back what this gateway has claimed and nobody carries.
pub(super) struct Release {
    pub ledger: Arc<Ledger>,
    pub seqs: Vec<i64>,
}

#[async_trait]
impl Change for Release {
    type Output = ();

    fn size_bytes(&self) -> usize {
        64 + 8 * self.seqs.len()
    }

    fn doing(&self) -> &'static str {
        "give claims back"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        rows::release(transaction, &self.ledger, self.seqs.iter().copied()).await
    }
}
