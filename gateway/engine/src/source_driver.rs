//! The source driver: the only place where a source is connected, read within the limit of messages in flight, settled
//! in batches, reconnected and drained.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::delivery::{Delivery, Received, Settled};
use crate::failure::{Failure, FailureKind};
use crate::link::{Link, LinkOwner, LinkState};
use crate::source::{Connection, Inlet, Settler, Source};
use crate::trip::Origin;

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
    origin: Option<Origin>,
}

/// A delivery as the pipeline takes it: with where it comes from.
pub(crate) struct Arrival {
    pub delivery: Delivery,
    pub origin: Origin,
}

/// Why reading ended.
enum Ended {
    Stopped,
    EndOfInput,
    Lost(Failure),
}

/// How a connection ended.
enum Closing {
    /// It is gone; a new one is needed.
    Lost(Failure),
    /// Nothing more comes and everything in flight was settled, or else the connection was lost while draining.
    Drained(Option<Failure>),
}

impl SourceDriver {
    /// The driver and the channel on which deliveries come; it has room for all that may be in flight. `origin` is what
    /// deliveries are marked with; without it, they are a source's that can do what its connection says.
    pub fn new(
        source: Box<dyn Source>,
        owner: LinkOwner,
        max_in_flight: usize,
        origin: Option<Origin>,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let max_in_flight = max_in_flight.max(1);
        let (deliveries, arrivals) = mpsc::channel(max_in_flight);
        let Link { pipeline, system, .. } = owner.link();
        let labels = [("pipeline", pipeline.to_string()), ("system", system.to_owned())];
        let consumed = metrics::counter!("mq_messages_consumed_total", &labels);
        let outdated = metrics::counter!("sluicegate_settlements_outdated_total", &labels);
        (Self { source, owner, max_in_flight, deliveries, consumed, outdated, origin }, arrivals)
    }

    /// Reads until `stop` or the end of input, then settles what is still in flight, then closes.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut source, owner, max_in_flight, deliveries, consumed, outdated, origin } = self;
        let Link { pipeline, system, .. } = owner.link();
        // Room for every permit: a settlement never waits.
        let (settle_to, settlements) = mpsc::channel(max_in_flight);
        let in_flight = Arc::new(Semaphore::new(max_in_flight));
        let from = origin.unwrap_or(Origin::Source { postpones: false });
        let mut intake = Some(Intake { deliveries, settle_to, in_flight, consumed, epoch: 0, origin: from });
        let mut backflow = Backflow { settlements, unsettled: Vec::new(), outdated };
        let mut first_delay = Duration::ZERO;
        loop {
            let Some(connection) = owner.connect(&mut source, &stop, first_delay).await else { break };
            let since = Instant::now();
            let Connection { inlet, mut settler, resumes, postpones } = connection;
            if let Some(intake) = &mut intake {
                intake.epoch += 1;
                intake.origin = origin.unwrap_or(Origin::Source { postpones });
            }
            match flow(&mut intake, &mut backflow, inlet, settler.as_mut(), resumes, &stop).await {
                Closing::Lost(failure) => {
                    warn!(pipeline = %pipeline, system, error = %failure, "source connection lost; connecting again");
                    owner.set(LinkState::Connecting(Some(failure.text)));
                    let broke_at_once = since.elapsed() < Duration::from_secs(1);
                    first_delay = if broke_at_once { Duration::from_millis(500) } else { Duration::ZERO };
                }
                Closing::Drained(lost) => {
                    finish(&pipeline, settler, lost, backflow.unsettled.len()).await;
                    return;
                }
            }
        }
        // Stopped while not connected: nobody to settle with, the source delivers again what was in flight.
        drop(intake);
        let mut left = backflow.unsettled.len();
        while backflow.settlements.recv().await.is_some() {
            left += 1;
        }
        if left > 0 {
            warn!(pipeline = %pipeline, messages = left, "stopped while the source was not connected: it will deliver these messages again");
        }
    }
}

/// Reads and settles on one connection, at the same time. When nothing more is to be read, `intake` is taken and
/// dropped, so that settling ends with the last delivery in flight; it is never interrupted for that, since what is
/// being settled must not be settled twice on one connection.
async fn flow(
    intake: &mut Option<Intake>,
    backflow: &mut Backflow,
    inlet: Box<dyn Inlet>,
    settler: &mut dyn Settler,
    resumes: bool,
    stop: &CancellationToken,
) -> Closing {
    let epoch = intake.as_ref().map(|intake| intake.epoch).filter(|_| !resumes);
    let settling = backflow.settle(settler, epoch);
    tokio::pin!(settling);
    if let Some(intake) = &*intake {
        let ended = tokio::select! {
            ended = intake.read(inlet, stop) => ended,
            lost = &mut settling => return lost.map_or(Closing::Drained(None), Closing::Lost),
        };
        if let Ended::Lost(failure) = ended {
            return Closing::Lost(failure);
        }
    }
    *intake = None;
    Closing::Drained(settling.await)
}

/// What makes deliveries of what is read.
struct Intake {
    deliveries: mpsc::Sender<Arrival>,
    settle_to: mpsc::Sender<Settled>,
    in_flight: Arc<Semaphore>,
    consumed: metrics::Counter,
    epoch: u64,
    origin: Origin,
}

impl Intake {
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
                    if let Err(ended) = self.deliver(received) {
                        return ended;
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
        if self.in_flight.available_permits() < MAX_BATCH {
            // Others that are being settled at this moment make room for a larger batch.
            yield_now().await;
        }
        let room = self.in_flight.available_permits().clamp(1, MAX_BATCH);
        inlet.receive(room).await
    }

    /// Makes deliveries of all that was received. Never waits: this future may be dropped wherever it waits, and what a
    /// source has handed over must not be dropped with it.
    fn deliver(&self, received: Vec<Received>) -> Result<(), Ended> {
        for received in received {
            let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
                return Err(Ended::Lost(Failure::permanent("the source returned more messages than it was asked for")));
            };
            self.consumed.increment(1);
            let delivery = Delivery::new(received, self.epoch, self.settle_to.clone(), permit);
            // There is room for every permit. A refused delivery is dropped here, which requeues it.
            self.deliveries.try_send(Arrival { delivery, origin: self.origin }).map_err(|_| Ended::Stopped)?;
        }
        Ok(())
    }
}

/// What brings settlements back.
struct Backflow {
    settlements: mpsc::Receiver<Settled>,
    /// Given to a connection that has not said that it took them: for the next one, if the source resumes.
    unsettled: Vec<Settled>,
    outdated: metrics::Counter,
}

impl Backflow {
    /// Settles until every delivery is settled and none can come (`None`) or the connection is lost (`Some`).
    /// `epoch` is the connection's, if only its own deliveries can be settled on it.
    async fn settle(&mut self, settler: &mut dyn Settler, epoch: Option<u64>) -> Option<Failure> {
        loop {
            if self.unsettled.is_empty() {
                if self.settlements.recv_many(&mut self.unsettled, MAX_BATCH).await == 0 {
                    return None;
                }
                // Messages that were published together end together: their settlements go together, too.
                yield_now().await;
                while self.unsettled.len() < MAX_BATCH
                    && let Ok(settled) = self.settlements.try_recv()
                {
                    self.unsettled.push(settled);
                }
            }
            if let Some(epoch) = epoch {
                self.forget_outdated(epoch);
            }
            if !self.unsettled.is_empty() {
                if let Err(failure) = settler.settle(&self.unsettled).await {
                    return Some(failure);
                }
                self.unsettled.clear();
            }
        }
    }

    fn forget_outdated(&mut self, epoch: u64) {
        let before = self.unsettled.len();
        self.unsettled.retain(|settled| settled.epoch == epoch);
        let gone = before - self.unsettled.len();
        if gone > 0 {
            self.outdated.increment(gone as u64);
            debug!(
                messages = gone,
                "settlements of an earlier connection are void; the broker delivers these messages again"
            );
        }
    }
}

async fn finish(pipeline: &str, mut settler: Box<dyn Settler>, lost: Option<Failure>, unsettled: usize) {
    if let Some(failure) = lost {
        warn!(pipeline, error = %failure, messages = unsettled, "connection lost while draining: the source will deliver these messages again");
        return;
    }
    match settler.close().await {
        Ok(()) => info!(pipeline, "source closed, everything settled"),
        Err(failure) => {
            warn!(pipeline, error = %failure, "closing the source failed; everything was settled before")
        }
    }
}
