//! What this gateway knows of a pipeline's inbox beside what is stored: which entries it carries, how far claims have
//! walked, how much waits, and who waits for an outcome. All instances of the inbox share it, so that a pipeline and its
//! successor, which run side by side for a while, never carry the same entry.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sluicegate_engine::delivery::{Outcome, Settlement};
use sluicegate_engine::inbox::Redrive;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::Instant;

use super::stored::{ClaimedEntry, StoredEntry};
use crate::clock::Clock;

/// How often claims walk from the start again, in case something came in behind them.
const WALK_AGAIN: Duration = Duration::from_secs(1);

/// How long counting the backlog may take before another one tries.
const COUNT_LIMIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub pipeline: Arc<str>,
    pub(super) clock: Clock,
    /// What the store announces when there may be something to claim.
    pub topic: String,
    /// Something changed here that is worth another look.
    pub changed: Notify,
    /// Set once the backlog has been counted; nothing is put in or settled before.
    pub(super) counted: OnceCell<()>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    claims: HashMap<i64, Claim>,
    by_lane: HashMap<Arc<str>, usize>,
    /// Where the next claim begins, by lane and whether timed; at the start where there is none.
    cursors: HashMap<(Arc<str>, bool), Position>,
    /// Changes whenever cursors go back, so that a walk that is under way does not move them on.
    turn: u64,
    walked_at: Option<Instant>,
    walked_at_ms: u64,
    walks: usize,
    /// Settled while a walk was under way, which may still see them as they were.
    settled_meanwhile: HashSet<i64>,
    /// Highest `ready_at_ms` given to what is ready at once: such entries go out in the order in which they came in,
    /// whatever the clock does.
    last_stamp_ms: u64,
    pub backlog: BacklogBooks,
    /// When the backlog is to be counted again, where other gateways change it, too.
    pub count_at: Option<Instant>,
    waiters: HashMap<i64, oneshot::Sender<Outcome>>,
    /// Waiters are swept when they have doubled since.
    waiters_swept: usize,
    last_run: u64,
    runs: HashSet<u64>,
    /// On PostgreSQL: put in here, with someone who waits for the outcome, and claimed for this gateway at once.
    pub reserved: BTreeSet<i64>,
    /// On PostgreSQL: claimed in the database and carried by nobody; to be given back.
    pub orphans: BTreeSet<i64>,
}

/// Entries that are ready to be carried and have not reached a target.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct BacklogBooks {
    pub messages: u64,
    pub bytes: u64,
}

/// A place in the order of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub ready_at_ms: i64,
    pub seq: i64,
}

impl Position {
    /// Before all.
    pub const START: Self = Self { ready_at_ms: -1, seq: -1 };
}

/// An entry this gateway carries.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub run: u64,
    pub lane: Arc<str>,
    pub key_hash: Option<Bytes>,
    pub redrive: Option<Redrive>,
    /// How many bytes of the backlog it is, if it is part of it.
    pub counted: Option<u64>,
}

impl Claim {
    pub fn new(run: u64, entry: &ClaimedEntry) -> Self {
        Self {
            run,
            lane: Arc::clone(&entry.lane),
            key_hash: entry.key_hash.clone(),
            redrive: entry.redrive.clone(),
            counted: counts(&entry.lane, entry.timed).then_some(entry.bytes),
        }
    }

    /// Whether nothing but its row goes when it goes.
    pub fn is_plain(&self) -> bool {
        self.key_hash.is_none() && self.redrive.is_none()
    }
}

/// Whether an entry is part of the backlog: what waits for a target, for its time or for another attempt is not.
pub(super) fn counts(lane: &str, timed: bool) -> bool {
    lane.is_empty() && !timed
}

impl Ledger {
    pub fn new(pipeline: &Arc<str>, clock: Clock) -> Self {
        Self {
            pipeline: Arc::clone(pipeline),
            clock,
            topic: format!("inbox/{pipeline}"),
            changed: Notify::new(),
            counted: OnceCell::new(),
            books: Mutex::default(),
        }
    }

    /// Never held across an await.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new run of the source: claims are told apart by it.
    pub(super) fn begin_run(&self) -> u64 {
        let mut books = self.books();
        books.last_run += 1;
        let run = books.last_run;
        books.runs.insert(run);
        run
    }

    /// The source of this run is gone, and with it whatever it had claimed and not settled. Returned is what the
    /// database must be told to give back, if claims are stored there.
    pub(super) fn end_run(&self, run: u64) -> Vec<i64> {
        let mut books = self.books();
        books.runs.remove(&run);
        let left: Vec<i64> = books.claims.iter().filter(|(_, claim)| claim.run == run).map(|(seq, _)| *seq).collect();
        for seq in &left {
            books.forget(*seq);
        }
        let mut given_back = std::mem::take(&mut books.orphans);
        given_back.extend(left);
        if books.runs.is_empty() {
            given_back.append(&mut books.reserved);
        }
        books.walk_from_start();
        drop(books);
        self.changed.notify_waiters();
        given_back.into_iter().collect()
    }

    /// A walk through stored entries begins: what it sees may be settled before it ends.
    pub(super) fn walk(self: &Arc<Self>, now_ms: u64) -> Walk {
        let mut books = self.books();
        books.walks += 1;
        let set_back = now_ms < books.walked_at_ms;
        books.walked_at_ms = now_ms;
        if set_back || books.walked_at.is_none_or(|at| at.elapsed() >= WALK_AGAIN) {
            books.walk_from_start();
            books.walked_at = Some(Instant::now());
        }
        let turn = books.turn;
        drop(books);
        Walk { ledger: Arc::clone(self), turn }
    }

    /// An entry has been put in.
    pub(super) fn entered(&self, entry: &StoredEntry, timed: bool) {
        let mut books = self.books();
        if counts(&entry.lane, timed) {
            books.backlog.add(1, entry.bytes);
        }
        if timed {
            books.timed_entered();
            drop(books);
            self.changed.notify_waiters();
        }
    }

    /// Whoever waits for one of these learns how it ended.
    pub(super) fn answer(&self, ended: Vec<(i64, Outcome)>) {
        let mut books = self.books();
        for (seq, outcome) in ended {
            if let Some(waiter) = books.waiters.remove(&seq)
                && waiter.send(outcome).is_err()
            {
                tracing::trace!("nobody waits for this outcome any more");
            }
        }
    }
}

/// How the end of an entry's stay is told to whoever waits: a message that waits for another attempt is parked.
pub(super) fn told(outcome: &Outcome) -> Option<Outcome> {
    let settlement = match outcome.settlement {
        Settlement::Requeued => return None,
        Settlement::Postponed { .. } | Settlement::Parked => Settlement::Parked,
        ended @ (Settlement::Delivered | Settlement::Dropped | Settlement::DeadLettered) => ended,
    };
    Some(Outcome { settlement, parked: None, ..outcome.clone() })
}

impl Books {
    pub fn claim(&self, seq: i64) -> Option<&Claim> {
        self.claims.get(&seq)
    }

    pub fn is_claimed(&self, seq: i64) -> bool {
        self.claims.contains_key(&seq)
    }

    pub fn claimed_in(&self, lane: &str) -> usize {
        self.by_lane.get(lane).copied().unwrap_or_default()
    }

    pub fn enter_claim(&mut self, seq: i64, claim: Claim) {
        *self.by_lane.entry(Arc::clone(&claim.lane)).or_default() += 1;
        if let Some(before) = self.claims.insert(seq, claim) {
            self.leave_lane(&before.lane);
        }
    }

    /// The entry is not carried any more.
    pub fn forget(&mut self, seq: i64) -> Option<Claim> {
        let claim = self.claims.remove(&seq)?;
        self.leave_lane(&claim.lane);
        if self.walks > 0 {
            self.settled_meanwhile.insert(seq);
        }
        Some(claim)
    }

    fn leave_lane(&mut self, lane: &Arc<str>) {
        if let Some(count) = self.by_lane.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.by_lane.remove(lane);
            }
        }
    }

    pub fn walk_from_start(&mut self) {
        self.cursors.clear();
        self.turn = self.turn.wrapping_add(1);
    }

    pub fn cursor(&self, lane: &Arc<str>, timed: bool) -> Position {
        self.cursors.get(&(Arc::clone(lane), timed)).copied().unwrap_or(Position::START)
    }

    /// Timed entries are about to come in, perhaps behind a claim.
    pub fn timed_entered(&mut self) {
        self.cursors.retain(|(_, timed), _| !timed);
        self.turn = self.turn.wrapping_add(1);
    }

    /// The `ready_at_ms` of an entry that is ready at once.
    pub fn stamp(&mut self, now_ms: u64) -> u64 {
        self.last_stamp_ms = self.last_stamp_ms.max(now_ms);
        self.last_stamp_ms
    }

    /// Whether it is time to count the backlog again; the next time only later, so that one does it.
    pub fn begins_to_count(&mut self) -> bool {
        let is_due = self.count_at.is_some_and(|at| at <= Instant::now());
        if is_due {
            self.count_at = Some(Instant::now() + COUNT_LIMIT);
        }
        is_due
    }

    pub fn enter_waiter(&mut self, seq: i64, waiter: oneshot::Sender<Outcome>) {
        self.waiters.insert(seq, waiter);
        if self.waiters.len() > 2 * self.waiters_swept.max(512) {
            self.waiters.retain(|_, waiter| !waiter.is_closed());
            self.waiters_swept = self.waiters.len();
        }
    }

    pub fn is_awaited(&self, seq: i64) -> bool {
        self.waiters.contains_key(&seq)
    }
}

impl BacklogBooks {
    pub fn add(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_add(messages);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Saturating: on PostgreSQL counts are only about right.
    pub fn subtract(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A walk that is under way. What it saw is claimed through it.
#[derive(Debug)]
pub(super) struct Walk {
    ledger: Arc<Ledger>,
    turn: u64,
}

impl Walk {
    /// Claims what was seen, but what has been claimed or settled since; returns what is claimed now.
    pub fn claim(
        self,
        run: u64,
        seen: Vec<ClaimedEntry>,
        cursors: Vec<((Arc<str>, bool), Position)>,
    ) -> Vec<ClaimedEntry> {
        let mut books = self.ledger.books();
        let taken: Vec<_> = seen
            .into_iter()
            .filter(|entry| !books.is_claimed(entry.seq) && !books.settled_meanwhile.contains(&entry.seq))
            .collect();
        for entry in &taken {
            books.enter_claim(entry.seq, Claim::new(run, entry));
        }
        if books.turn == self.turn {
            books.cursors.extend(cursors);
        }
        taken
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        books.walks -= 1;
        if books.walks == 0 {
            books.settled_meanwhile.clear();
        }
    }
}
