//! All deliveries of a pipeline that are under way: started in order, a task for a few, drained at the end.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::delivery::Settlement;
use crate::pipeline::{Order, Pipeline};
use crate::source_driver::Arrival;
use crate::trip::Origin;

/// Most arrivals taken at once.
const MAX_TAKEN: usize = 256;
/// Most messages that share a task: what they save of its cost is little more with more of them, and a step that computes
/// for long keeps the others waiting.
const MAX_TOGETHER: usize = 8;

/// The deliveries under way.
pub(crate) struct Flow {
    pipeline: Arc<Pipeline>,
    /// Shared: a token that is cloned takes a lock.
    stop: Arc<CancellationToken>,
    under_way: JoinSet<Settlement>,
    /// How many messages those tasks carry.
    messages: Arc<AtomicUsize>,
    /// Keys with a message under way, and what waits behind it.
    keys: HashMap<Bytes, VecDeque<Arrival>>,
    busy: HashMap<Id, Bytes>,
}

impl Flow {
    pub fn new(pipeline: Arc<Pipeline>, stop: CancellationToken) -> Self {
        Self {
            pipeline,
            stop: Arc::new(stop),
            under_way: JoinSet::new(),
            messages: Arc::default(),
            keys: HashMap::new(),
            busy: HashMap::new(),
        }
    }

    /// Starts each arrival until neither the source nor the inbox has more; cancels `inbox_is_last` when the source has
    /// none.
    pub async fn take(
        &mut self,
        arrivals: &mut mpsc::Receiver<Arrival>,
        mut returning: Option<&mut mpsc::Receiver<Arrival>>,
        inbox_is_last: &CancellationToken,
    ) {
        let (mut from_source, mut from_inbox) = (Vec::new(), Vec::new());
        let mut source_is_open = true;
        while source_is_open || returning.is_some() {
            tokio::select! {
                Some(ended) = self.under_way.join_next_with_id() => self.ended(ended),
                count = arrivals.recv_many(&mut from_source, MAX_TAKEN), if source_is_open => {
                    if count == 0 {
                        source_is_open = false;
                        inbox_is_last.cancel();
                    }
                    self.start_in_order(&mut from_source);
                }
                count = next(&mut returning, &mut from_inbox) => {
                    if count == 0 {
                        returning = None;
                    }
                    // The inbox gives out one message of a key and lane at a time.
                    self.start_together(&mut from_inbox);
                }
            }
        }
    }

    /// Waits for what is under way; returns how many messages were given back at the limit.
    pub async fn drain(&mut self, limit: Duration) -> usize {
        let draining = async {
            while let Some(ended) = self.under_way.join_next_with_id().await {
                self.ended(ended);
            }
        };
        if timeout(limit, draining).await.is_ok() {
            return 0;
        }
        let abandoned = self.messages.load(Ordering::Relaxed) + self.keys.values().map(VecDeque::len).sum::<usize>();
        warn!(pipeline = %self.pipeline.name, messages = abandoned, "drain limit of {limit:?} passed: giving back what is left");
        self.keys.clear();
        self.under_way.shutdown().await;
        abandoned
    }

    fn start_in_order(&mut self, arrivals: &mut Vec<Arrival>) {
        if self.pipeline.order == Order::None {
            return self.start_together(arrivals);
        }
        for arrival in arrivals.drain(..) {
            match arrival.delivery.message().key.clone() {
                None => self.start(vec![arrival], None),
                // The message before it may just have been given back: dropped here, it is requeued behind it.
                Some(_) if self.stop.is_cancelled() => drop(arrival),
                Some(key) => match self.keys.get_mut(&key) {
                    // Bounded by `max_in_flight`, as every arrival holds one of its permits.
                    Some(waiting) => waiting.push_back(arrival),
                    None => {
                        self.keys.insert(key.clone(), VecDeque::new());
                        self.start(vec![arrival], Some(key));
                    }
                },
            }
        }
    }

    /// A few messages share a task, but only where there are enough for every worker of the runtime.
    fn start_together(&mut self, arrivals: &mut Vec<Arrival>) {
        let workers = Handle::current().metrics().num_workers();
        let together = (arrivals.len() / (2 * workers.max(1))).clamp(1, MAX_TOGETHER);
        let mut arrivals = arrivals.drain(..);
        loop {
            let few: Vec<_> = arrivals.by_ref().take(together).collect();
            if few.is_empty() {
                return;
            }
            self.start(few, None);
        }
    }

    fn start(&mut self, mut arrivals: Vec<Arrival>, key: Option<Bytes>) {
        let pipeline = Arc::clone(&self.pipeline);
        let stop = Arc::clone(&self.stop);
        let messages = Arc::clone(&self.messages);
        messages.fetch_add(arrivals.len(), Ordering::Relaxed);
        let task = self.under_way.spawn(async move {
            let alone = if arrivals.len() == 1 { arrivals.pop() } else { None };
            if let Some(arrival) = alone {
                return carry(&pipeline, arrival, &stop, &messages).await;
            }
            let carried = arrivals.into_iter().map(|arrival| {
                // A panic is one message's own.
                let carried = AssertUnwindSafe(carry(&pipeline, arrival, &stop, &messages)).catch_unwind();
                carried.map(|ended| ended.unwrap_or_else(|_| panicked(&pipeline, "it was caught")))
            });
            let mut carried: FuturesUnordered<_> = carried.collect();
            while carried.next().await.is_some() {}
            // Only told of messages that have a key, which come alone.
            Settlement::Delivered
        });
        if let Some(key) = key {
            self.busy.insert(task.id(), key);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Settlement), JoinError>) {
        let (id, given_back) = match ended {
            Ok((id, settlement)) => (id, settlement == Settlement::Requeued),
            Err(error) => {
                panicked(&self.pipeline, &error);
                (error.id(), true)
            }
        };
        let Some(key) = self.busy.remove(&id) else { return };
        if given_back {
            // What follows must not overtake it: dropped here, it is requeued behind it.
            self.keys.remove(&key);
            return;
        }
        match self.keys.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.start(vec![next], Some(key)),
            None => {
                self.keys.remove(&key);
            }
        }
    }
}

/// A message's way and its settlement.
async fn carry(pipeline: &Pipeline, arrival: Arrival, stop: &CancellationToken, messages: &AtomicUsize) -> Settlement {
    let _counted = Counted(messages);
    let Arrival { delivery, origin } = arrival;
    let outcome = pipeline.carry(&delivery, origin, stop).await;
    let settlement = outcome.settlement;
    if origin == Origin::Inbox {
        pipeline.left_inbox(&delivery, &outcome);
    }
    delivery.settle(outcome);
    settlement
}

/// A message is under way, until dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The delivery's guard has requeued the message.
fn panicked(pipeline: &Pipeline, error: impl Display) -> Settlement {
    error!(pipeline = %pipeline.name, %error, "a message's task panicked; the message is requeued");
    Settlement::Requeued
}

/// The next arrivals from the inbox; never, if there is none.
async fn next(returning: &mut Option<&mut mpsc::Receiver<Arrival>>, taken: &mut Vec<Arrival>) -> usize {
    match returning {
        Some(returning) => returning.recv_many(taken, MAX_TAKEN).await,
        None => std::future::pending().await,
    }
}
