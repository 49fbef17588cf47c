//! All deliveries of a pipeline that are under way: started in order, a task each, drained at the end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::delivery::Settlement;
use crate::pipeline::{Order, Pipeline};
use crate::source_driver::Arrival;
use crate::trip::Origin;

/// The deliveries under way, a task each.
pub(crate) struct Flow {
    pipeline: Arc<Pipeline>,
    stop: CancellationToken,
    under_way: JoinSet<Settlement>,
    /// Keys with a message under way, and what waits behind it.
    keys: HashMap<Bytes, VecDeque<Arrival>>,
    busy: HashMap<Id, Bytes>,
    /// Those that came from the source: each of them may still be put into the inbox.
    of_source: HashSet<Id>,
}

impl Flow {
    pub fn new(pipeline: Arc<Pipeline>, stop: CancellationToken) -> Self {
        Self {
            pipeline,
            stop,
            under_way: JoinSet::new(),
            keys: HashMap::new(),
            busy: HashMap::new(),
            of_source: HashSet::new(),
        }
    }

    /// Starts each arrival until neither the source nor the inbox has more; cancels `inbox_is_last` when the source has
    /// none and nothing that came from it is under way, so that an inbox found empty then stays empty.
    pub async fn take(
        &mut self,
        arrivals: &mut mpsc::Receiver<Arrival>,
        mut returning: Option<&mut mpsc::Receiver<Arrival>>,
        inbox_is_last: &CancellationToken,
    ) {
        let mut source_is_open = true;
        while source_is_open || returning.is_some() {
            tokio::select! {
                Some(ended) = self.under_way.join_next_with_id() => self.ended(ended),
                arrival = arrivals.recv(), if source_is_open => match arrival {
                    Some(arrival) => self.start_in_order(arrival),
                    None => source_is_open = false,
                },
                arrival = next(&mut returning) => match arrival {
                    // The inbox gives out one message of a key and lane at a time.
                    Some(arrival) => self.start(arrival, None),
                    None => returning = None,
                },
            }
            if !source_is_open && self.of_source.is_empty() && self.keys.is_empty() {
                inbox_is_last.cancel();
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
        let abandoned = self.under_way.len() + self.keys.values().map(VecDeque::len).sum::<usize>();
        warn!(pipeline = %self.pipeline.name, messages = abandoned, "drain limit of {limit:?} passed: giving back what is left");
        self.keys.clear();
        self.under_way.shutdown().await;
        abandoned
    }

    fn start_in_order(&mut self, arrival: Arrival) {
        let key = match self.pipeline.order {
            Order::None => None,
            Order::Key(_) => arrival.delivery.message().key.clone(),
        };
        match key {
            None => self.start(arrival, None),
            // The message before it may just have been given back: dropped here, it is requeued behind it.
            Some(_) if self.stop.is_cancelled() => drop(arrival),
            Some(key) => match self.keys.get_mut(&key) {
                // Bounded by `max_in_flight`, as every arrival holds one of its permits.
                Some(waiting) => waiting.push_back(arrival),
                None => {
                    self.keys.insert(key.clone(), VecDeque::new());
                    self.start(arrival, Some(key));
                }
            },
        }
    }

    fn start(&mut self, arrival: Arrival, key: Option<Bytes>) {
        let pipeline = Arc::clone(&self.pipeline);
        let stop = self.stop.clone();
        let origin = arrival.origin;
        let task = self.under_way.spawn(async move {
            let delivery = arrival.delivery;
            let outcome = pipeline.carry(&delivery, origin, &stop).await;
            let settlement = outcome.settlement;
            if origin == Origin::Inbox {
                pipeline.left_inbox(&delivery, &outcome);
            }
            delivery.settle(outcome);
            settlement
        });
        if origin != Origin::Inbox {
            self.of_source.insert(task.id());
        }
        if let Some(key) = key {
            self.busy.insert(task.id(), key);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Settlement), JoinError>) {
        let (id, given_back) = match ended {
            Ok((id, settlement)) => (id, settlement == Settlement::Requeued),
            Err(error) => {
                // The delivery's guard has requeued the message.
                error!(pipeline = %self.pipeline.name, %error, "a message's task panicked; the message is requeued");
                (error.id(), true)
            }
        };
        self.of_source.remove(&id);
        let Some(key) = self.busy.remove(&id) else { return };
        if given_back {
            // What follows must not overtake it: dropped here, it is requeued behind it.
            self.keys.remove(&key);
            return;
        }
        match self.keys.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => self.start(next, Some(key)),
            None => {
                self.keys.remove(&key);
            }
        }
    }
}

/// The next arrival from the inbox; never, if there is none.
async fn next(returning: &mut Option<&mut mpsc::Receiver<Arrival>>) -> Option<Arrival> {
    match returning {
        Some(returning) => returning.recv().await,
        None => std::future::pending().await,
    }
}
