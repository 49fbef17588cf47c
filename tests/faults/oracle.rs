//! The oracle of one lane: it issues messages, remembers every acknowledgement and every arrival, and says in the end
//! what is missing, changed, repeated or out of order. It lives in the test's own memory and no fault touches it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::payload::{self, Payload};

/// Most examples quoted of any kind of violation.
const MAX_EXAMPLES: usize = 5;

/// What is fixed about a lane.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub seed: u64,
    pub lane: usize,
    /// How many targets every message goes to.
    pub targets: usize,
    /// Messages of one key arrive first in the order of their acknowledgements.
    pub ordered: bool,
    pub poison_every: u64,
    /// Its source carries headers, so that every message has its seal.
    pub sealed: bool,
    /// A system of the lane promises nothing for what it confirmed so shortly before it died.
    pub excused: Duration,
}

#[derive(Debug)]
pub struct Oracle {
    terms: Terms,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    messages: Vec<Entry>,
    dead: BTreeSet<u64>,
    /// Of each target and key, the number that arrived last for the first time.
    last_of_key: BTreeMap<(usize, u64), u64>,
    duplicates: u64,
    violations: Violations,
    /// When the last fault was healed, and whether each target has seen a message issued after.
    healed_at: Option<Instant>,
    resumed: Vec<Option<Duration>>,
}

#[derive(Debug)]
struct Entry {
    issued_at: Instant,
    acknowledged_at: Option<Instant>,
    /// When it arrived first, by target.
    arrived_at: Vec<Option<Instant>>,
}

/// What must not happen.
#[derive(Debug, Clone, Default)]
pub struct Violations {
    pub corrupt: Vec<String>,
    pub never_issued: Vec<String>,
    pub out_of_order: Vec<String>,
}

/// What a lane has come to.
#[derive(Debug, Clone, Default)]
pub struct Account {
    pub acknowledged: u64,
    pub delivered: u64,
    pub duplicates: u64,
    pub dead_lettered: u64,
    /// Acknowledged, and neither delivered to every target nor a dead letter.
    pub lost: Vec<u64>,
    /// Lost as well, within what a system of the lane does not promise.
    pub excused: u64,
    pub violations: Violations,
}

/// One arrival's latency, with when its message was issued.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub issued_at: Instant,
    pub took: Duration,
}

impl Oracle {
    pub fn new(terms: Terms) -> Self {
        Self { terms, book: Mutex::default() }
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn payload(&self, number: u64) -> Payload {
        let Terms { seed, lane, poison_every, .. } = self.terms;
        Payload { seed, lane, number, poison_every }
    }

    /// The next message. What is not acknowledged is never issued again: nobody knows what became of it.
    pub fn issue(&self) -> Payload {
        let mut book = self.book();
        let number = book.messages.len() as u64;
        let arrived_at = vec![None; self.terms.targets];
        book.messages.push(Entry { issued_at: Instant::now(), acknowledged_at: None, arrived_at });
        self.payload(number)
    }

    /// The system under test has promised to deliver it.
    pub fn acknowledge(&self, number: u64) {
        let mut book = self.book();
        let entry = usize::try_from(number).ok().and_then(|index| book.messages.get_mut(index));
        entry.expect("only what was issued is acknowledged").acknowledged_at = Some(Instant::now());
    }

    /// Something came out at a target. `seal` where the system carries headers; `again` when the receiver itself is
    /// given it a second time, which is not the gateway's doing.
    pub fn arrive(&self, target: usize, body: &[u8], seal: Option<&[u8]>, again: bool) {
        let mut book = self.book();
        let quote = || String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let Some((lane, number)) = payload::number(body) else {
            return push(&mut book.violations.corrupt, quote());
        };
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        let payload = self.payload(number);
        if lane != self.terms.lane || index >= book.messages.len() || payload.is_poison() {
            return push(&mut book.violations.never_issued, quote());
        }
        if payload.body() != body {
            return push(&mut book.violations.corrupt, quote());
        }
        if let Some(seal) = seal.filter(|seal| *seal != payload.seal().as_bytes()) {
            let text = format!("the header of {number} is {:?}", String::from_utf8_lossy(seal));
            return push(&mut book.violations.corrupt, text);
        }
        let now = Instant::now();
        if book.messages[index].arrived_at[target].is_some() {
            book.duplicates += u64::from(!again);
            return;
        }
        book.messages[index].arrived_at[target] = Some(now);
        if self.terms.ordered && book.messages[index].acknowledged_at.is_some() {
            let last = book.last_of_key.entry((target, payload.key())).or_insert(number);
            if *last > number {
                let text = format!("{number} after {last} of key {}", payload.key());
                push(&mut book.violations.out_of_order, text);
            } else {
                *last = number;
            }
        }
        let healed_at = book.healed_at;
        if let Some(healed_at) = healed_at.filter(|healed_at| book.messages[index].issued_at >= *healed_at) {
            book.resumed[target].get_or_insert(now - healed_at);
        }
    }

    /// The dead letters the gateway has at this moment, by the ids of their messages.
    pub fn dead_letters<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        let dead = ids.filter_map(|id| payload::number_of_id(id, self.terms.lane)).collect();
        self.book().dead = dead;
    }

    /// From now on is watched how soon messages flow again: only what is issued from now on counts.
    pub fn healed(&self) {
        let mut book = self.book();
        book.healed_at = Some(Instant::now());
        book.resumed = vec![None; self.terms.targets];
    }

    /// How long it took after [`healed`](Self::healed) until a new message had arrived at each of these targets.
    pub fn recovery(&self, targets: std::ops::Range<usize>) -> Option<Duration> {
        let book = self.book();
        let times: Option<Vec<Duration>> = targets.map(|target| *book.resumed.get(target)?).collect();
        times?.into_iter().max()
    }

    /// Acknowledged and not yet arrived everywhere.
    pub fn in_flight(&self) -> usize {
        let book = self.book();
        let open = |entry: &&Entry| entry.acknowledged_at.is_some() && entry.arrived_at.iter().any(Option::is_none);
        // What is older has been waited for, or is poison.
        book.messages.iter().rev().take(5_000).filter(open).count()
    }

    /// Issued and not acknowledged, and younger than this.
    pub fn awaiting(&self, younger: Duration) -> usize {
        let book = self.book();
        let recent = book.messages.iter().rev().take_while(|entry| entry.issued_at.elapsed() < younger);
        recent.filter(|entry| entry.acknowledged_at.is_none()).count()
    }

    pub fn delivered(&self) -> u64 {
        self.book().messages.iter().filter(|entry| entry.arrived_at.iter().all(Option::is_some)).count() as u64
    }

    pub fn acknowledged(&self) -> u64 {
        self.book().messages.iter().filter(|entry| entry.acknowledged_at.is_some()).count() as u64
    }

    /// First arrivals at the first target, which no run slows down.
    pub fn latencies(&self) -> Vec<Latency> {
        let book = self.book();
        let latency =
            |entry: &Entry| Some(Latency { issued_at: entry.issued_at, took: entry.arrived_at[0]? - entry.issued_at });
        book.messages.iter().filter_map(latency).collect()
    }

    /// Messages acknowledged before this and delivered only after it: a source or the store gave them out once more.
    pub fn held_over(&self, at: Instant) -> u64 {
        let book = self.book();
        let over = |entry: &&Entry| {
            entry.acknowledged_at.is_some_and(|acknowledged| acknowledged < at)
                && entry.arrived_at[0].is_some_and(|arrived| arrived > at)
        };
        book.messages.iter().filter(over).count() as u64
    }

    /// What it has come to. `deaths` are when systems died.
    pub fn account(&self, deaths: &[Instant]) -> Account {
        let book = self.book();
        let mut account = Account {
            duplicates: book.duplicates,
            dead_lettered: book.dead.len() as u64,
            violations: book.violations.clone(),
            ..Account::default()
        };
        for (number, entry) in (0_u64..).zip(&book.messages) {
            let arrived = entry.arrived_at.iter().all(Option::is_some);
            account.delivered += u64::from(arrived);
            let Some(at) = entry.acknowledged_at else { continue };
            account.acknowledged += 1;
            if arrived || book.dead.contains(&number) {
                continue;
            }
            let excused = |death: &Instant| at <= *death + EXCUSE_SLACK && *death <= at + self.terms.excused;
            if !self.terms.excused.is_zero() && deaths.iter().any(excused) {
                account.excused += 1;
            } else {
                account.lost.push(number);
            }
        }
        account
    }
}

/// An answer on its way when the system died is taken down a moment later.
const EXCUSE_SLACK: Duration = Duration::from_millis(500);

fn push(examples: &mut Vec<String>, text: String) {
    // All are counted, the first are quoted.
    examples.push(if examples.len() < MAX_EXAMPLES { text } else { String::new() });
}
