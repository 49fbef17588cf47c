//! The target driver: the only place where a target is connected, fed in batches, reconnected and closed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::breaker::{Breaker, BreakerPolicy, BreakerState};
use crate::failure::{Failure, FailureKind};
use crate::link::{End, Link, LinkOwner, LinkState};
use crate::message::Message;
use crate::retry::HOLD_LIMIT;
use crate::target::{Batching, Outlet, Target};

/// How a target is driven.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSettings {
    /// Most messages that wait for or are in publication.
    pub max_in_flight: usize,
    /// Longest wait for the confirmation of a batch; then the connection counts as lost.
    pub publish_timeout: Duration,
    /// When nothing is sent for a while.
    pub breaker: BreakerPolicy,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self { max_in_flight: 256, publish_timeout: Duration::from_secs(30), breaker: BreakerPolicy::default() }
    }
}

/// The pipeline's side of a driven target.
pub struct TargetLink {
    /// The target's name in its pipeline.
    pub name: Arc<str>,
    queue: mpsc::Sender<Publication>,
    readiness: Arc<Readiness>,
}

/// Whether a target takes messages now.
pub(crate) struct Readiness {
    pub link: Link,
    pub breaker: Arc<Breaker>,
    /// Room for messages in publication.
    room: Semaphore,
    max_in_flight: usize,
    /// When a batch was last answered, or the first message came in.
    answered_at: Mutex<Instant>,
}

/// Why a target takes no message now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It has not been connected for this long.
    Down(Duration),
    /// It has as many messages as it may, and has answered none for longer than [`HOLD_LIMIT`].
    Stuck,
}

impl Readiness {
    /// What is in the way of a message, if anything is; the circuit breaker apart, which has to be asked.
    pub fn obstacle(&self) -> Option<Obstacle> {
        if let Some(down_for) = self.link.down_for() {
            return Some(Obstacle::Down(down_for));
        }
        (self.room.available_permits() == 0 && self.answered_at().elapsed() > HOLD_LIMIT).then_some(Obstacle::Stuck)
    }

    fn answered_at(&self) -> MutexGuard<'_, Instant> {
        self.answered_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Publication {
    message: Arc<Message>,
    confirmed: oneshot::Sender<Result<(), Failure>>,
}

/// The driver itself: to be [run](Self::run) by whoever owns the pipeline.
pub struct TargetDriver {
    target: Box<dyn Target>,
    settings: TargetSettings,
    batching: Batching,
    queue: mpsc::Receiver<Publication>,
    owner: LinkOwner,
    meters: Arc<Meters>,
}

struct Meters {
    pipeline: Arc<str>,
    target: Arc<str>,
    readiness: Arc<Readiness>,
    breaker_state: metrics::Gauge,
    published: metrics::Counter,
    failed: metrics::Counter,
    duration: metrics::Histogram,
    batch: metrics::Histogram,
}

/// Makes the two sides of a target.
pub fn drive(
    target: Box<dyn Target>,
    system: &'static str,
    pipeline: &Arc<str>,
    name: &Arc<str>,
    settings: TargetSettings,
) -> (TargetLink, TargetDriver) {
    let max_in_flight = settings.max_in_flight.max(1);
    let (queue, publications) = mpsc::channel(max_in_flight);
    let owner = LinkOwner::new(pipeline, name, system, End::Target);
    let readiness = Arc::new(Readiness {
        link: owner.link(),
        breaker: Arc::new(Breaker::new(settings.breaker)),
        room: Semaphore::new(max_in_flight),
        max_in_flight,
        answered_at: Mutex::new(Instant::now()),
    });
    let labels = [("pipeline", pipeline.to_string()), ("target", name.to_string())];
    let meters = Arc::new(Meters {
        pipeline: Arc::clone(pipeline),
        target: Arc::clone(name),
        readiness: Arc::clone(&readiness),
        breaker_state: metrics::gauge!("sluicegate_breaker_state", &labels),
        published: metrics::counter!("mq_messages_published_total", &labels),
        failed: metrics::counter!("sluicegate_publish_failures_total", &labels),
        duration: metrics::histogram!("sluicegate_publish_duration_seconds", &labels),
        batch: metrics::histogram!("sluicegate_publish_batch_messages", &labels),
    });
    meters.breaker_state.increment(0.0);
    let link = TargetLink { name: Arc::clone(name), queue, readiness };
    let batching = target.batching();
    (link, TargetDriver { target, settings, batching, queue: publications, owner, meters })
}

impl TargetLink {
    /// The connection's state.
    pub fn link(&self) -> Link {
        self.readiness.link.clone()
    }

    pub(crate) fn readiness(&self) -> &Arc<Readiness> {
        &self.readiness
    }

    /// Asks the circuit breaker; see [`Breaker::admit`].
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn admit(&self) -> Result<(), Duration> {
        self.readiness.breaker.admit()
    }

    /// Waits until the target is connected. Cancel safe.
    pub async fn connected(&self) {
        let mut state = self.readiness.link.state.clone();
        // An error means the driver is gone; then publishing says so.
        if state.wait_for(|state| !matches!(state, LinkState::Connecting(_))).await.is_err() {
            tracing::debug!(target_name = %self.name, "the target's driver has ended");
        }
    }

    /// Publishes one message and waits for its confirmation. Not cancel safe in effect: a dropped call may have
    /// published. With `patience` it waits no longer than that for room among the messages in publication.
    ///
    /// # Errors
    /// The target's failure, or `Disconnected` when the connection was lost before the confirmation or there was no room.
    pub async fn publish(&self, message: &Arc<Message>, patience: Option<Duration>) -> Result<(), Failure> {
        let (confirmed, confirmation) = oneshot::channel();
        let gone = || Failure::disconnected(format!("target `{}` was stopped before it confirmed", self.name));
        let entering = self.readiness.room.acquire();
        let room = match patience {
            None => entering.await,
            Some(patience) => timeout(patience, entering)
                .await
                .map_err(|_| Failure::disconnected(format!("target `{}` had no room for {patience:?}", self.name)))?,
        };
        let _room = room.map_err(|_| gone())?;
        if self.readiness.room.available_permits() + 1 == self.readiness.max_in_flight {
            *self.readiness.answered_at() = Instant::now();
        }
        self.queue.send(Publication { message: Arc::clone(message), confirmed }).await.map_err(|_| gone())?;
        confirmation.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl TargetDriver {
    /// Connects and publishes until every [`TargetLink`] is dropped; reconnects whenever the connection is lost. Once
    /// `stop` is cancelled it does not connect any more: what waits for a connection is answered with `Disconnected`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut first_delay = Duration::ZERO;
        loop {
            let Some(outlet) = self.owner.connect(&mut self.target, &stop, first_delay).await else { break };
            let since = Instant::now();
            let Err(failure) = self.serve(&outlet).await else {
                if let Err(failure) = outlet.close().await {
                    warn!(pipeline = %self.meters.pipeline, target = %self.meters.target, error = %failure, "closing failed");
                }
                return;
            };
            self.owner.set(LinkState::Connecting(Some(failure.text.clone())));
            warn!(pipeline = %self.meters.pipeline, target = %self.meters.target, error = %failure, "connection lost; connecting again");
            first_delay =
                if since.elapsed() < Duration::from_secs(1) { Duration::from_millis(500) } else { Duration::ZERO };
        }
        self.queue.close();
        while let Some(publication) = self.queue.recv().await {
            let text = format!("target `{}` is not connected and the gateway is stopping", self.meters.target);
            answer(publication.confirmed, Err(Failure::disconnected(text)));
        }
    }

    /// Publishes on one connection. `Ok` when there is nothing left to publish, `Err` when the connection is lost.
    async fn serve(&mut self, outlet: &Arc<dyn Outlet>) -> Result<(), Failure> {
        let mut batches = FuturesUnordered::new();
        let mut open = true;
        let mut batch = Vec::new();
        let Batching { max_messages, max_concurrent } = self.batching;
        while open || !batches.is_empty() {
            tokio::select! {
                taken = self.queue.recv_many(&mut batch, max_messages.max(1)), if open && batches.len() < max_concurrent.max(1) => {
                    open = taken > 0;
                    if open {
                        // Those that are under way to the queue at this moment come along.
                        yield_now().await;
                        while batch.len() < max_messages && let Ok(publication) = self.queue.try_recv() {
                            batch.push(publication);
                        }
                        let batch = std::mem::take(&mut batch);
                        batches.push(publish(Arc::clone(outlet), batch, self.settings.publish_timeout, Arc::clone(&self.meters)));
                    }
                }
                // Dropping the other batches answers their messages with `Disconnected`: whether they arrived is unknown.
                Some(lost) = batches.next() => if let Some(failure) = lost { return Err(failure) },
            }
        }
        Ok(())
    }
}

/// Publishes one batch and answers each message; returns the failure if the connection was lost.
async fn publish(
    outlet: Arc<dyn Outlet>,
    batch: Vec<Publication>,
    limit: Duration,
    meters: Arc<Meters>,
) -> Option<Failure> {
    let began = Instant::now();
    let (messages, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|p| (p.message, p.confirmed)).unzip();
    let results = timeout(limit, outlet.publish(&messages)).await.unwrap_or_else(|_| {
        let failure =
            Failure::disconnected(format!("no confirmation from target `{}` within {limit:?}", meters.target));
        vec![Err(failure); messages.len()]
    });
    meters.duration.record(began.elapsed().as_secs_f64());
    meters.batch.record(messages.len() as f64);
    meters.count(&results);
    *meters.readiness.answered_at() = Instant::now();
    let lost = results.iter().find_map(|result| match result {
        Err(failure) if failure.kind == FailureKind::Disconnected => Some(failure.clone()),
        Ok(()) | Err(_) => None,
    });
    // A target that answers for fewer messages than it was given has confirmed only those.
    let missing = || Err(Failure::transient(format!("target `{}` gave no result for this message", meters.target)));
    let mut results = results.into_iter();
    for confirmed in waiting {
        answer(confirmed, results.next().unwrap_or_else(missing));
    }
    lost
}

fn answer(confirmed: oneshot::Sender<Result<(), Failure>>, result: Result<(), Failure>) {
    if confirmed.send(result).is_err() {
        // Whoever published was aborted at the drain limit; the delivery is requeued by its own guard.
        tracing::debug!("a confirmation came after its message was given up");
    }
}

impl Meters {
    fn count(&self, results: &[Result<(), Failure>]) {
        let published = results.iter().filter(|result| result.is_ok()).count() as u64;
        // A refusal is an answer: the target works.
        let failed = results.iter().filter(|r| matches!(r, Err(f) if f.kind != FailureKind::Permanent)).count() as u32;
        self.published.increment(published);
        self.failed.increment(results.len() as u64 - published);
        let answered = results.len() as u32 - failed;
        if let Some(state) = self.readiness.breaker.record(answered, failed) {
            self.breaker_state.set(match state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            });
            match state {
                BreakerState::Open => {
                    warn!(pipeline = %self.pipeline, target = %self.target, "circuit breaker opened: nothing is sent to this target until a probe succeeds");
                }
                BreakerState::Closed | BreakerState::HalfOpen => {
                    info!(pipeline = %self.pipeline, target = %self.target, "circuit breaker closed");
                }
            }
        }
    }
}
