//! Connectors and dead letters in memory: for `sluicegate test`, and for tests of the engine, with faults by script.

mod inbox;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::delivery::{Outcome, Received, Settled, Settlement, Token};
use crate::failure::Failure;
use crate::message::Message;
use crate::source::{Connection, Inlet, Settler, Source};
use crate::target::{Batching, Outlet, Target};

pub use inbox::MemoryInbox;

/// A source that delivers what it is given, redelivers what is requeued, postponed or lost with its connection, and
/// remembers every settlement. Clones are the same source.
#[derive(Clone, Default)]
pub struct MemorySource {
    shared: Arc<SourceShared>,
    postpones: bool,
    resumes: bool,
    ends: bool,
}

#[derive(Default)]
struct SourceShared {
    state: Mutex<SourceState>,
    changed: Notify,
}

#[derive(Default)]
struct SourceState {
    ready: VecDeque<(Token, Message)>,
    later: Vec<(Instant, Token, Message)>,
    unsettled: Vec<(Token, Message)>,
    settled: Vec<(String, Outcome)>,
    connects: u32,
    refused_connects: VecDeque<Failure>,
    refused_settles: VecDeque<Failure>,
    cut: bool,
    settle_time: Duration,
    next_token: u128,
}

impl SourceState {
    /// Makes postponed messages ready whose time has come.
    fn wake(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, ..)| *at <= now);
        self.later = later;
        let due: Vec<_> = due;
        self.ready.extend(due.into_iter().map(|(_, token, message)| (token, message)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemorySource {
    /// A source with these messages, that ends once all of them are settled for good.
    pub fn of(messages: impl IntoIterator<Item = Message>) -> Self {
        let source = Self { ends: true, ..Self::default() };
        for message in messages {
            source.push(message);
        }
        source
    }

    /// Stays open for more messages.
    pub fn endless(mut self) -> Self {
        self.ends = false;
        self
    }

    /// Takes messages back for longer waits.
    pub fn postponing(mut self) -> Self {
        self.postpones = true;
        self
    }

    /// Its tokens settle on later connections too.
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// One more message.
    pub fn push(&self, message: Message) {
        let mut state = lock(&self.shared.state);
        state.next_token += 1;
        let token = Token(state.next_token);
        state.ready.push_back((token, message));
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Fails the next connects, in turn.
    pub fn refuse_connects(&self, failures: impl IntoIterator<Item = Failure>) {
        lock(&self.shared.state).refused_connects.extend(failures);
    }

    /// Fails the next settlements, in turn.
    pub fn refuse_settles(&self, failures: impl IntoIterator<Item = Failure>) {
        lock(&self.shared.state).refused_settles.extend(failures);
    }

    /// Makes every call of `settle` take this long, after it has taken effect: as with a broker that answers late.
    pub fn settle_slowly(&self, time: Duration) {
        lock(&self.shared.state).settle_time = time;
    }

    /// Breaks the connection.
    pub fn cut(&self) {
        lock(&self.shared.state).cut = true;
        self.shared.changed.notify_waiters();
    }

    /// Message ids and outcomes in the order of settlement, redeliveries included.
    pub fn settled(&self) -> Vec<(String, Outcome)> {
        lock(&self.shared.state).settled.clone()
    }

    /// Ids of messages that are not settled for good.
    pub fn remaining(&self) -> Vec<String> {
        let state = lock(&self.shared.state);
        let later = state.later.iter().map(|(_, _, message)| message);
        let now = state.ready.iter().chain(&state.unsettled).map(|(_, message)| message);
        now.chain(later).map(|message| message.id.clone()).collect()
    }

    /// How often it was connected.
    pub fn connects(&self) -> u32 {
        lock(&self.shared.state).connects
    }

    /// Waits until nothing is left unsettled.
    pub async fn all_settled(&self) {
        loop {
            let changed = self.shared.changed.notified();
            if self.remaining().is_empty() {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let mut state = lock(&self.shared.state);
        if let Some(failure) = state.refused_connects.pop_front() {
            return Err(failure);
        }
        state.connects += 1;
        state.cut = false;
        if !self.resumes {
            // As a broker does: what the lost connection held is delivered again, under new tags.
            let lost = std::mem::take(&mut state.unsettled);
            for (_, message) in lost {
                state.next_token += 1;
                let token = Token(state.next_token);
                state.ready.push_back((token, message));
            }
        }
        drop(state);
        let (resumes, postpones) = (self.resumes, self.postpones);
        Ok(Connection { inlet: Box::new(self.clone()), settler: Box::new(self.clone()), resumes, postpones })
    }
}

#[async_trait]
impl Inlet for MemorySource {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        loop {
            let changed = self.shared.changed.notified();
            let next;
            {
                let mut state = lock(&self.shared.state);
                if state.cut {
                    return Err(Failure::disconnected("cut by script"));
                }
                state.wake(Instant::now());
                if !state.ready.is_empty() {
                    let count = max.min(state.ready.len());
                    let taken: Vec<_> = state.ready.drain(..count).collect();
                    state.unsettled.extend(taken.iter().cloned());
                    return Ok(taken.into_iter().map(|(token, message)| Received::new(message, token)).collect());
                }
                if self.ends && state.unsettled.is_empty() && state.later.is_empty() {
                    return Err(Failure::end_of_input());
                }
                next = state.later.iter().map(|(at, ..)| *at).min();
            }
            match next {
                None => changed.await,
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
            }
        }
    }
}

#[async_trait]
impl Settler for MemorySource {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let time = self.settle_now(batch)?;
        self.shared.changed.notify_waiters();
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }
}

impl MemorySource {
    fn settle_now(&self, batch: &[Settled]) -> Result<Duration, Failure> {
        let mut state = lock(&self.shared.state);
        if let Some(failure) = state.refused_settles.pop_front() {
            return Err(failure);
        }
        for settled in batch {
            let Some(at) = state.unsettled.iter().position(|(token, _)| *token == settled.token) else {
                return Err(Failure::permanent(format!("token {:?} settled twice or never received", settled.token)));
            };
            let (token, mut message) = state.unsettled.swap_remove(at);
            state.settled.push((message.id.clone(), settled.outcome.clone()));
            match settled.outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {}
                Settlement::Requeued => state.ready.push_back((token, message)),
                Settlement::Postponed { after, attempt } => {
                    message.attempt = attempt;
                    state.later.push((Instant::now() + after, token, message));
                }
            }
        }
        Ok(state.settle_time)
    }
}

/// A target that keeps what it is given, unless its script says otherwise. Clones are the same target.
#[derive(Clone, Default)]
pub struct MemoryTarget {
    shared: Arc<Mutex<TargetState>>,
}

#[derive(Default)]
struct TargetState {
    published: Vec<Message>,
    script: VecDeque<Reply>,
    then: Option<Reply>,
    refused_connects: VecDeque<Failure>,
    calls: u32,
    connects: u32,
    batch_of: usize,
}

/// How a target answers one message.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Takes it.
    Confirm,
    /// Takes it after this time.
    Slowly(Duration),
    /// Fails.
    Fail(Failure),
    /// Takes it, but the confirmation is lost with the connection.
    ConfirmLost,
    /// Never answers.
    Hang,
}

impl MemoryTarget {
    /// Answers the next messages like this, in turn.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) -> &Self {
        lock(&self.shared).script.extend(replies);
        self
    }

    /// Answers like this when the script is over; confirms if never called.
    pub fn then(&self, reply: Reply) -> &Self {
        lock(&self.shared).then = Some(reply);
        self
    }

    /// Fails the next connects, in turn.
    pub fn refuse_connects(&self, failures: impl IntoIterator<Item = Failure>) {
        lock(&self.shared).refused_connects.extend(failures);
    }

    /// Takes up to `count` messages in one batch, confirmed together; one unless called.
    pub fn in_batches_of(&self, count: usize) {
        lock(&self.shared).batch_of = count;
    }

    /// What it took, in order, duplicates included.
    pub fn published(&self) -> Vec<Message> {
        lock(&self.shared).published.clone()
    }

    /// Bodies of what it took, as text.
    pub fn bodies(&self) -> Vec<String> {
        self.published().iter().map(|m| String::from_utf8_lossy(m.body.bytes()).into_owned()).collect()
    }

    /// How many messages it was asked to take.
    pub fn calls(&self) -> u32 {
        lock(&self.shared).calls
    }

    /// How often it was connected.
    pub fn connects(&self) -> u32 {
        lock(&self.shared).connects
    }

    fn reply(&self) -> Reply {
        let mut state = lock(&self.shared);
        state.calls += 1;
        state.script.pop_front().or_else(|| state.then.clone()).unwrap_or(Reply::Confirm)
    }

    async fn take(&self, message: &Message) -> Result<(), Failure> {
        match self.reply() {
            Reply::Confirm => {}
            Reply::Slowly(time) => tokio::time::sleep(time).await,
            Reply::Fail(failure) => return Err(failure),
            Reply::ConfirmLost => {
                self.keep(message);
                return Err(Failure::disconnected("lost by script"));
            }
            Reply::Hang => std::future::pending().await,
        }
        self.keep(message);
        Ok(())
    }

    fn keep(&self, message: &Message) {
        lock(&self.shared).published.push(message.clone());
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let mut state = lock(&self.shared);
        if let Some(failure) = state.refused_connects.pop_front() {
            return Err(failure);
        }
        state.connects += 1;
        drop(state);
        Ok(Arc::new(self.clone()))
    }

    fn batching(&self) -> Batching {
        Batching { max_messages: lock(&self.shared).batch_of.max(1), max_concurrent: 64 }
    }
}

#[async_trait]
impl Outlet for MemoryTarget {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        join_all(batch.iter().map(|message| self.take(message))).await
    }
}

/// Dead letters kept in memory. Clones are the same.
#[derive(Clone, Default)]
pub struct MemoryDeadLetters {
    shared: Arc<Mutex<DeadLettersState>>,
}

#[derive(Default)]
struct DeadLettersState {
    letters: Vec<Arc<DeadLetter>>,
    refusals: VecDeque<Failure>,
}

impl MemoryDeadLetters {
    /// Fails the next records, in turn.
    pub fn refuse(&self, failures: impl IntoIterator<Item = Failure>) {
        lock(&self.shared).refusals.extend(failures);
    }

    /// What it holds.
    pub fn letters(&self) -> Vec<Arc<DeadLetter>> {
        lock(&self.shared).letters.clone()
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        let mut state = lock(&self.shared);
        if let Some(failure) = state.refusals.pop_front() {
            return Err(failure);
        }
        state.letters.push(Arc::clone(letter));
        Ok(())
    }
}
