//! An inbox in memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::delivery::{Received, Resumption, Settled, Settlement, Token};
use crate::failure::Failure;
use crate::inbox::{Entry, Inbox};
use crate::lanes::Lanes;
use crate::message::now_ms;
use crate::source::{Connection, Inlet, Settler, Source};

/// An inbox that keeps its entries in memory, in the order in which they were put in, and tells time as Tokio does (so
/// that tests pause it). Clones are the same inbox.
#[derive(Clone, Default)]
pub struct MemoryInbox {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<InboxState>,
    changed: Notify,
}

#[derive(Default)]
struct InboxState {
    entries: Vec<Kept>,
    next: u128,
    refusals: Vec<Failure>,
    parked: usize,
}

struct Kept {
    sequence: u128,
    ready_at: Instant,
    claimed: bool,
    entry: Entry,
}

/// From wall-clock time to Tokio's.
fn instant(not_before_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(not_before_ms.saturating_sub(now_ms()))
}

impl MemoryInbox {
    /// What is in it.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.iter().map(|kept| kept.entry.clone()).collect()
    }

    /// How often a message was put in.
    pub fn parked(&self) -> usize {
        self.lock().parked
    }

    /// Puts a message in, as the spool does.
    pub fn push(&self, entry: Entry) {
        let mut state = self.lock();
        state.next += 1;
        let kept = Kept { sequence: state.next, ready_at: instant(entry.not_before_ms), claimed: false, entry };
        state.entries.push(kept);
        state.parked += 1;
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Fails the next calls of `park`, in turn.
    pub fn refuse(&self, failures: impl IntoIterator<Item = Failure>) {
        self.lock().refusals.extend(failures);
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InboxState {
    fn claim(&mut self, lanes: &Lanes, max: usize) -> Vec<Received> {
        let open = lanes.open();
        let now = Instant::now();
        let mut first_of_key = HashSet::new();
        let mut received = Vec::new();
        for kept in &mut self.entries {
            let lane = kept.entry.progress.waypoint.lane();
            let is_first =
                !kept.entry.ordered || first_of_key.insert((lane.to_owned(), kept.entry.message.key.clone()));
            let known = lane.is_empty() || lanes.names().any(|name| **name == *lane);
            let is_open = !known || open.iter().any(|open| *open.name == *lane);
            if received.len() < max && is_first && is_open && !kept.claimed && kept.ready_at <= now {
                kept.claimed = true;
                received.push(kept.received());
            }
        }
        received
    }
}

impl Kept {
    fn received(&self) -> Received {
        let Entry { original, message, progress, .. } = self.entry.clone();
        let original = (original != message).then_some(original);
        let resumption = Some(Box::new(Resumption { original, progress }));
        Received { message: (*message).clone(), token: Token(self.sequence), resumption }
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    fn source(&self, lanes: Lanes) -> Box<dyn Source> {
        Box::new(InboxSource { inbox: self.clone(), lanes })
    }

    async fn park(&self, entry: Entry) -> Result<(), Failure> {
        let refusal = {
            let mut state = self.lock();
            (!state.refusals.is_empty()).then(|| state.refusals.remove(0))
        };
        match refusal {
            Some(failure) => Err(failure),
            None => {
                self.push(entry);
                Ok(())
            }
        }
    }

    async fn ordered_keys(&self) -> Result<Vec<(String, Bytes)>, Failure> {
        let ordered = |kept: &Kept| {
            let key = kept.entry.message.key.clone().filter(|_| kept.entry.ordered)?;
            Some((kept.entry.progress.waypoint.lane().to_owned(), key))
        };
        Ok(self.lock().entries.iter().filter_map(ordered).collect())
    }
}

#[derive(Clone)]
struct InboxSource {
    inbox: MemoryInbox,
    lanes: Lanes,
}

#[async_trait]
impl Source for InboxSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let (inlet, settler) = (Box::new(self.clone()), Box::new(self.clone()));
        Ok(Connection { inlet, settler, resumes: true, postpones: true })
    }
}

#[async_trait]
impl Inlet for InboxSource {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        loop {
            let changed = self.inbox.shared.changed.notified();
            let next;
            {
                let mut state = self.inbox.lock();
                let received = state.claim(&self.lanes, max);
                if !received.is_empty() {
                    return Ok(received);
                }
                if self.lanes.is_last() && state.entries.is_empty() {
                    return Err(Failure::end_of_input());
                }
                let now = Instant::now();
                next = state
                    .entries
                    .iter()
                    .filter(|kept| !kept.claimed)
                    .map(|kept| kept.ready_at)
                    .filter(|at| *at > now)
                    .min();
            }
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ends = async {
                if self.lanes.is_last() {
                    std::future::pending::<()>().await;
                }
                self.lanes.last().await;
            };
            tokio::select! { () = changed => {} () = due => {} () = ends => {} () = self.lanes.changed() => {} }
        }
    }
}

#[async_trait]
impl Settler for InboxSource {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let mut state = self.inbox.lock();
        for settled in batch {
            let Some(at) = state.entries.iter().position(|kept| kept.sequence == settled.token.0) else { continue };
            match settled.outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {
                    state.entries.remove(at);
                }
                Settlement::Postponed { after, attempt } => {
                    let kept = &mut state.entries[at];
                    kept.claimed = false;
                    match &settled.outcome.parked {
                        Some(entry) => {
                            kept.entry = (**entry).clone();
                            kept.ready_at = instant(entry.not_before_ms);
                        }
                        None => {
                            kept.entry.progress.attempt = attempt;
                            kept.ready_at = Instant::now() + after;
                        }
                    }
                }
                Settlement::Requeued => state.entries[at].claimed = false,
            }
        }
        drop(state);
        self.inbox.shared.changed.notify_waiters();
        Ok(())
    }
}
