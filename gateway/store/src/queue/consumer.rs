//! A member of a group: claims messages and settles them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::claimed::{Claimed, Settle, Settlement};
use super::claiming::{Claim, Claiming};
use super::error::QueueError;
use super::given_out::{Fate, GivenOut, TakeBack};
use super::group::no_group;
use super::settings::{Kind, LONGEST_DELAY};
use super::settling::{Enter, Leave, Settlements};
use super::sql::{QueueRow, topic};
use crate::clock::CLOCK_PATIENCE;
use crate::error::StoreError;
use crate::leases::RELEASED;
use crate::opening::Unreadable;
use crate::store::Store;

/// Most messages of one claim.
pub const MAX_CLAIM_MESSAGES: usize = 1_000;
/// Most bytes of one claim, if its first message is not larger.
const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// How long a consumer waits for news before it looks by itself.
const SLOW_POLL: Duration = Duration::from_secs(10);
/// How soon it looks again when another gateway was claiming.
const CONTENDED_PAUSE: Duration = Duration::from_millis(10);

/// A member of a group. Dropping it without [`leave`](Self::leave) gives back what it holds a little later.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<Store>,
    queue: Arc<str>,
    queue_id: u64,
    group: String,
    group_id: u64,
    is_ordered: bool,
    /// No other consumer has this name.
    name: Arc<str>,
    state: Mutex<State>,
    /// A claim has come to its end.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Claimed for a call that did not wait for it, or not given out yet.
    ready: VecDeque<Claimed>,
    /// A claim is under way; it comes to its end whoever waits for it.
    is_claiming: bool,
    /// What the last claim found instead of messages.
    found: Option<Result<Instead, QueueError>>,
    /// What could not be opened, nor taken back when that was found out.
    to_take_back: Vec<TakeBack>,
    has_left: bool,
}

#[derive(Debug, Clone, Copy)]
enum Instead {
    Nothing { until_ms: Option<u64> },
    Contended,
}

impl Consumer {
    pub(super) async fn join(
        store: &Arc<Store>,
        queue: &QueueRow,
        group_id: u64,
        group: &str,
    ) -> Result<Self, QueueError> {
        let name: Arc<str> = uuid::Uuid::now_v7().to_string().into();
        store.change(Enter { consumer: Arc::clone(&name), group_id }).await?;
        let shared = Shared {
            store: Arc::clone(store),
            queue: queue.name.as_str().into(),
            queue_id: queue.queue_id,
            group: group.to_owned(),
            group_id,
            is_ordered: queue.settings.kind == Kind::Ordered,
            name,
            state: Mutex::default(),
            arrived: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits until there are messages and claims at most `max` of them (cut to 1 through [`MAX_CLAIM_MESSAGES`]): no
    /// more than `max_bytes` (cut to 4 MiB) together, but at least one.
    ///
    /// Cancel safe: what was claimed for a call that was dropped is what the next call returns. For one caller at a time.
    ///
    /// # Errors
    /// `NotFound`, `GroupNotFound`: the queue or group was deleted. The store's trouble.
    pub async fn claim(&self, max: usize, max_bytes: u64) -> Result<Vec<Claimed>, QueueError> {
        let shared = &self.shared;
        let max = max.clamp(1, MAX_CLAIM_MESSAGES);
        let signals = shared.store.signals();
        let (mut news, mut released) = (signals.subscribe(topic(shared.queue_id)), signals.subscribe(RELEASED));
        loop {
            news.mark_unchanged();
            released.mark_unchanged();
            match shared.claim_once(max, max_bytes.min(MAX_CLAIM_BYTES)).await? {
                Once::Got(claimed) => return Ok(claimed),
                Once::Instead(Instead::Contended) => tokio::time::sleep(CONTENDED_PAUSE).await,
                Once::Instead(Instead::Nothing { until_ms }) => {
                    let pause = pause(until_ms, shared.store.now_ms());
                    wait(&mut news, &mut released, pause).await;
                }
            }
        }
    }

    /// Settles claimed messages; durable when it returns. Settling twice, or what a reset has settled, does nothing.
    ///
    /// # Errors
    /// The store's trouble; nothing is settled then, and settling again is right.
    pub async fn settle(&self, batch: &[Settle]) -> Result<(), QueueError> {
        let (mut done, mut given_back) = (Vec::with_capacity(batch.len()), Vec::new());
        let now = self.shared.store.now_ms();
        for one in batch {
            let place = ((one.token >> 64) as u64, one.token as u64);
            match one.settlement {
                Settlement::Done => done.push(place),
                Settlement::Release { after } => {
                    let after_ms = after.min(LONGEST_DELAY).as_millis() as u64;
                    let not_before_ms = if after_ms == 0 { 0 } else { now + after_ms };
                    given_back.push((place, not_before_ms));
                }
            }
        }
        let shared = &self.shared;
        let settlements = Settlements {
            queue_id: shared.queue_id,
            group_id: shared.group_id,
            is_ordered: shared.is_ordered,
            consumer: Arc::clone(&shared.name),
            done,
            given_back,
        };
        Ok(shared.store.change(settlements).await?)
    }

    /// Leaves the group and gives back, at once, what was claimed and is not settled.
    ///
    /// # Errors
    /// The store's trouble; it is given back once this gateway is known to be gone.
    pub async fn leave(&self) -> Result<(), QueueError> {
        let shared = &self.shared;
        loop {
            let arrived = shared.arrived.notified();
            {
                let mut state = shared.state();
                if !state.is_claiming {
                    state.has_left = true;
                    state.ready.clear();
                    break;
                }
            }
            arrived.await;
        }
        Ok(shared.store.change(shared.farewell()).await?)
    }
}

#[cfg(test)]
impl Consumer {
    /// What can be had without waiting.
    pub(super) async fn claim_now(&self, max: usize) -> Result<Vec<Claimed>, QueueError> {
        loop {
            match self.shared.claim_once(max, MAX_CLAIM_BYTES).await? {
                Once::Got(claimed) => return Ok(claimed),
                Once::Instead(Instead::Nothing { until_ms: Some(until) }) if until <= self.shared.store.now_ms() => {}
                Once::Instead(Instead::Nothing { .. } | Instead::Contended) => return Ok(Vec::new()),
            }
        }
    }

    /// As if the gateway had been killed: dropping it does nothing any more.
    pub(super) fn forget(&self) {
        self.shared.state().has_left = true;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let has_left = std::mem::replace(&mut self.shared.state().has_left, true);
        if has_left {
            return;
        }
        // Without a runtime nothing can be done; then the gateway ends, and its claims with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { shared.say_farewell().await });
        }
    }
}

enum Once {
    Got(Vec<Claimed>),
    Instead(Instead),
}

impl Shared {
    /// One claim, or what an earlier one has left.
    async fn claim_once(self: &Arc<Self>, max: usize, max_bytes: u64) -> Result<Once, QueueError> {
        let mut has_asked = false;
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if state.has_left {
                    return Err(no_group(&self.queue, &self.group));
                }
                if !state.ready.is_empty() {
                    let count = state.ready.len().min(max);
                    return Ok(Once::Got(state.ready.drain(..count).collect()));
                }
                if has_asked && let Some(found) = state.found.take() {
                    return found.map(Once::Instead);
                }
                if !state.is_claiming {
                    state.is_claiming = true;
                    state.found = None;
                    has_asked = true;
                    // Not the caller's future: what it claims must not be lost with him.
                    tokio::spawn(Arc::clone(self).claim_to_the_end(max, max_bytes));
                }
            }
            arrived.await;
        }
    }

    async fn claim_to_the_end(self: Arc<Self>, max: usize, max_bytes: u64) {
        let claimed = self.claim_and_open(max, max_bytes).await;
        let has_left = {
            let mut state = self.state();
            state.is_claiming = false;
            match claimed {
                Ok(Once::Got(messages)) => state.ready.extend(messages),
                Ok(Once::Instead(instead)) => state.found = Some(Ok(instead)),
                Err(error) => state.found = Some(Err(error)),
            }
            state.has_left
        };
        self.arrived.notify_waiters();
        if has_left {
            // The consumer was dropped meanwhile.
            self.say_farewell().await;
        }
    }

    async fn claim_and_open(&self, max: usize, max_bytes: u64) -> Result<Once, QueueError> {
        self.take_back().await?;
        let claim = Claim {
            queue: Arc::clone(&self.queue),
            queue_id: self.queue_id,
            group_id: self.group_id,
            is_ordered: self.is_ordered,
            consumer: Arc::clone(&self.name),
            max,
            max_bytes,
        };
        match self.store.change(claim).await? {
            Claiming::Got(given_out) => self.open(given_out).await,
            Claiming::Nothing { until_ms } => Ok(Once::Instead(Instead::Nothing { until_ms })),
            Claiming::Contended => Ok(Once::Instead(Instead::Contended)),
            Claiming::Gone => Err(no_group(&self.queue, &self.group)),
        }
    }

    /// What can be opened; the rest is taken back.
    async fn open(&self, given_out: Vec<GivenOut>) -> Result<Once, QueueError> {
        let generation = given_out.first().map_or(0, |one| one.generation);
        let offsets: Vec<u64> = given_out.iter().map(|one| one.offset).collect();
        let opened = match self.store.open_all(given_out).await {
            Ok(opened) => opened,
            Err(error) => {
                self.state().to_take_back.push(self.taken_back(generation, offsets, Fate::GivenBack));
                self.take_back().await?;
                return Err(error.into());
            }
        };
        let (mut messages, mut unreadable) = (Vec::with_capacity(opened.len()), Vec::new());
        for one in opened {
            match one {
                Ok(message) => messages.push(message),
                Err(Unreadable { sealed, error }) => {
                    self.report(&sealed, &error);
                    unreadable.push(sealed.offset);
                }
            }
        }
        if !unreadable.is_empty() {
            self.state().to_take_back.push(self.taken_back(generation, unreadable, Fate::SetAside));
            match self.take_back().await {
                Ok(()) => {}
                // It is tried again before the next claim; whoever waits has what could be opened.
                Err(error) => tracing::warn!(queue = %self.queue, %error, "messages are not set aside yet"),
            }
        }
        // There may be more behind those that could not be opened.
        Ok(if messages.is_empty() {
            Once::Instead(Instead::Nothing { until_ms: Some(0) })
        } else {
            Once::Got(messages)
        })
    }

    fn report(&self, unreadable: &GivenOut, error: &StoreError) {
        metrics::counter!("sluicegate_queue_messages_unreadable_total", "queue" => self.queue.to_string()).increment(1);
        tracing::error!(
            queue = %self.queue, group = self.group, offset = unreadable.offset, %error,
            "a message cannot be opened; it is set aside and stays in the queue"
        );
    }

    fn taken_back(&self, generation: u64, offsets: Vec<u64>, fate: Fate) -> TakeBack {
        let (queue_id, group_id, consumer) = (self.queue_id, self.group_id, Arc::clone(&self.name));
        TakeBack { queue_id, group_id, consumer, generation, offsets, fate }
    }

    /// Takes back what is to be. One claim at a time is under way, so nobody else does.
    async fn take_back(&self) -> Result<(), StoreError> {
        loop {
            let Some(next) = self.state().to_take_back.first().cloned() else { return Ok(()) };
            self.store.change(next).await?;
            self.state().to_take_back.remove(0);
        }
    }

    fn farewell(&self) -> Leave {
        Leave { consumer: Arc::clone(&self.name), group_id: self.group_id, queue_id: self.queue_id }
    }

    async fn say_farewell(&self) {
        if let Err(error) = self.store.change(self.farewell()).await {
            tracing::warn!(queue = %self.queue, group = self.group, %error, "what a consumer had claimed was not given back; it is once this gateway ends");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // It is whole after every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait, without news, until something is to come again.
fn pause(until_ms: Option<u64>, now_ms: u64) -> Duration {
    until_ms.map_or(SLOW_POLL, |until| Duration::from_millis(until.saturating_sub(now_ms)).min(CLOCK_PATIENCE))
}

async fn wait(news: &mut watch::Receiver<u64>, released: &mut watch::Receiver<u64>, pause: Duration) {
    tokio::select! {
        // They end with the store only, and then the next claim says so.
        _ = news.changed() => {}
        _ = released.changed() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
