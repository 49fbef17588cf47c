//! The source driver: the only place where a source is connected, read within the limit of messages in flight, settled
//! in batches, reconnected and drained.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::delivery::{Delivery, Received, Settled};
use crate::failure::{Failure, FailureKind};
use crate::link::{Link, LinkOwner, LinkState};
use crate::source::{Connection, Inlet, Settler, Source};

/// Most messages taken from the inlet, or settled, in one call.
const MAX_BATCH: usize = 256;

/// To be [run](Self::run) by the pipeline.
pub(crate) struct SourceDriver {
    source: Box<dyn Source>,
    owner: LinkOwner,
    max_in_flight: usize,
    deliveries: mpsc::Sender<Arrival>,
    consumed: metrics::Counter,
    outdated: metrics::Counter,
}

/// A delivery as the pipeline takes it: with what its connection can do.
pub(crate) struct Arrival {
    pub delivery: Delivery,
    pub postpones: bool,
}

/// Why reading ended.
enum Ended {
    Stopped,
    EndOfInput,
    Lost(Failure),
}

impl SourceDriver {
    /// The driver and the channel on which deliveries come; it has room for all that may be in flight.
    pub fn new(source: Box<dyn Source>, owner: LinkOwner, max_in_flight: usize) -> (Self, mpsc::Receiver<Arrival>) {
        let max_in_flight = max_in_flight.max(1);
        let (deliveries, arrivals) = mpsc::channel(max_in_flight);
        let Link { pipeline, system, .. } = owner.link();
        let labels = [("pipeline", pipeline.to_string()), ("system", system.to_owned())];
        let consumed = metrics::counter!("mq_messages_consumed_total", &labels);
        let outdated = metrics::counter!("sluicegate_settlements_outdated_total", &labels);
        (Self { source, owner, max_in_flight, deliveries, consumed, outdated }, arrivals)
    }

    /// Reads until `stop` or the end of input, then settles what is still in flight, then closes.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut source, owner, max_in_flight, deliveries, consumed, outdated } = self;
        let in_flight = Arc::new(Semaphore::new(max_in_flight));
        // Room for every permit: a settlement never waits.
        let (settle_to, mut settlements) = mpsc::channel::<Settled>(max_in_flight);
        let mut unsettled = Vec::new();
        let mut first_delay = Duration::ZERO;
        let mut epoch = 0;
        loop {
            let Some(connection) = owner.connect(&mut source, &stop, first_delay).await else {
                break;
            };
            let Connection { inlet, mut settler, resumes, postpones } = connection;
            epoch += 1;
            let current = if resumes { None } else { Some(epoch) };
            let since = Instant::now();
            let intake = Intake {
                deliveries: &deliveries,
                settle_to: &settle_to,
                in_flight: &in_flight,
                consumed: &consumed,
                epoch,
                postpones,
            };
            let lost = {
                let reading = intake.read(inlet, &stop);
                let settling = settle(settler.as_mut(), &mut settlements, &mut unsettled, current, &outdated);
                tokio::pin!(reading, settling);
                tokio::select! {
                    ended = &mut reading => ended,
                    failure = &mut settling => failure.map_or(Ended::Stopped, Ended::Lost),
                }
            };
            match lost {
                Ended::Lost(failure) => {
                    let Link { pipeline, system, .. } = owner.link();
                    warn!(pipeline = %pipeline, system, error = %failure, "source connection lost; connecting again");
                    owner.set(LinkState::Connecting(Some(failure.text)));
                    first_delay = if since.elapsed() < Duration::from_secs(1) {
                        Duration::from_millis(500)
                    } else {
                        Duration::ZERO
                    };
                }
                Ended::Stopped | Ended::EndOfInput => {
                    drop(deliveries);
                    drop(settle_to);
                    let lost = settle(settler.as_mut(), &mut settlements, &mut unsettled, current, &outdated).await;
                    finish(&owner, settler, lost, unsettled.len()).await;
                    return;
                }
            }
        }
        // Stopped while not connected: nobody to settle with, the source delivers again what was in flight.
        drop(deliveries);
        drop(settle_to);
        let mut left = unsettled.len();
        while settlements.recv().await.is_some() {
            left += 1;
        }
        if left > 0 {
            let Link { pipeline, .. } = owner.link();
            warn!(pipeline = %pipeline, messages = left, "stopped while the source was not connected: it will deliver these messages again");
        }
    }
}

struct Intake<'a> {
    deliveries: &'a mpsc::Sender<Arrival>,
    settle_to: &'a mpsc::Sender<Settled>,
    in_flight: &'a Arc<Semaphore>,
    consumed: &'a metrics::Counter,
    epoch: u64,
    postpones: bool,
}

impl Intake<'_> {
    /// Reads as long as there is room in flight.
    async fn read(&self, mut inlet: Box<dyn Inlet>, stop: &CancellationToken) -> Ended {
        loop {
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                received = self.receive(inlet.as_mut()) => received,
            };
            match received {
                Ok(received) => {
                    for received in received {
                        if self.deliver(received).await.is_err() {
                            return Ended::Stopped;
                        }
                    }
                }
                Err(failure) if failure.kind == FailureKind::EndOfInput => return Ended::EndOfInput,
                Err(failure) => return Ended::Lost(failure),
            }
        }
    }

    async fn receive(&self, inlet: &mut dyn Inlet) -> Result<Vec<Received>, Failure> {
        // Only this task takes permits, so room that was seen stays until it is used.
        drop(self.in_flight.acquire().await);
        let room = self.in_flight.available_permits().clamp(1, MAX_BATCH);
        inlet.receive(room).await
    }

    async fn deliver(&self, received: Received) -> Result<(), ()> {
        let permit = Arc::clone(self.in_flight).acquire_owned().await.map_err(|_| ())?;
        self.consumed.increment(1);
        let delivery = Delivery::new(received, self.epoch, self.settle_to.clone(), permit);
        // A refused delivery is dropped here, which requeues it.
        self.deliveries.send(Arrival { delivery, postpones: self.postpones }).await.map_err(|_| ())
    }
}

/// Settles until every delivery is settled and none can come (`None`) or the connection is lost (`Some`). What the
/// lost connection has not taken stays in `unsettled`, for the next connection.
async fn settle(
    settler: &mut dyn Settler,
    settlements: &mut mpsc::Receiver<Settled>,
    unsettled: &mut Vec<Settled>,
    current_epoch: Option<u64>,
    outdated: &metrics::Counter,
) -> Option<Failure> {
    loop {
        if unsettled.is_empty() && settlements.recv_many(unsettled, MAX_BATCH).await == 0 {
            return None;
        }
        if let Some(epoch) = current_epoch {
            let before = unsettled.len();
            unsettled.retain(|settled| settled.epoch == epoch);
            let gone = before - unsettled.len();
            if gone > 0 {
                outdated.increment(gone as u64);
                debug!(
                    messages = gone,
                    "settlements of an earlier connection are void; the broker delivers these messages again"
                );
            }
        }
        if !unsettled.is_empty() {
            if let Err(failure) = settler.settle(unsettled).await {
                return Some(failure);
            }
            unsettled.clear();
        }
    }
}

async fn finish(owner: &LinkOwner, mut settler: Box<dyn Settler>, lost: Option<Failure>, unsettled: usize) {
    let Link { pipeline, .. } = owner.link();
    if let Some(failure) = lost {
        warn!(pipeline = %pipeline, error = %failure, messages = unsettled, "connection lost while draining: the source will deliver these messages again");
        return;
    }
    match settler.close().await {
        Ok(()) => info!(pipeline = %pipeline, "source closed, everything settled"),
        Err(failure) => {
            warn!(pipeline = %pipeline, error = %failure, "closing the source failed; everything was settled before")
        }
    }
}
