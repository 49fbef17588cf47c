//! A delivery: a message and its settlement, settled by value exactly once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::dead_letter::DeadLetter;
use crate::failure::Reason;
use crate::inbox::{Entry, Progress};
use crate::message::Message;

/// What a source needs to find a message again when it is settled: a delivery tag, a stream id, an offset. The engine
/// only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u128);

/// What a source read: a message and the token that settles it.
#[derive(Debug)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// Settles it.
    pub token: Token,
    /// How far it has come already, if it comes from an [inbox](crate::inbox).
    pub resumption: Option<Box<Resumption>>,
}

impl Received {
    /// A message at the beginning of its way.
    pub fn new(message: Message, token: Token) -> Self {
        Self { message, token, resumption: None }
    }
}

/// What a message from an inbox brings along.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumption {
    /// The message as it was received at first, if a step has changed it since.
    pub original: Option<Arc<Message>>,
    /// How far it had come.
    pub progress: Progress,
}

/// What becomes of a delivery, from best to worst: a message that was split or fanned out is settled with the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Settlement {
    /// Every target confirmed.
    #[default]
    Delivered,
    /// A step dropped it on purpose.
    Dropped,
    /// The inbox holds it, or the parts of it that are not delivered yet.
    Parked,
    /// A durable dead letter holds it.
    DeadLettered,
    /// The source is to deliver it again after `after`, as attempt `attempt`. Only given to sources whose connection
    /// says it [postpones](crate::source::Connection::postpones).
    Postponed {
        /// Not before this delay.
        after: Duration,
        /// The number of that attempt; 2 after the first failed.
        attempt: u32,
    },
    /// Nothing was decided: the source is to deliver it again.
    Requeued,
}

/// How a message's way ended: its settlement and, for whoever waits for an answer, why.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The worst of all branches.
    pub settlement: Settlement,
    /// Names of the targets that confirmed, one entry a published message.
    pub delivered_to: Vec<Arc<str>>,
    /// Why branches were dropped.
    pub dropped: Vec<Reason>,
    /// The dead letters written.
    pub dead_letters: Vec<Arc<DeadLetter>>,
    /// Why nothing was decided, when the settlement is `Requeued`, `Postponed` or `Parked`.
    pub undecided: Option<String>,
    /// What an inbox is to keep in place of its entry, when the settlement is `Postponed`.
    pub parked: Option<Box<Entry>>,
}

impl Outcome {
    /// Nothing was decided, for this reason: the source keeps the message.
    pub fn requeued(why: impl Into<String>) -> Self {
        Self { settlement: Settlement::Requeued, undecided: Some(why.into()), ..Self::default() }
    }

    /// Takes in the end of another branch.
    pub fn merge(&mut self, other: Self) {
        self.settlement = self.settlement.max(other.settlement);
        self.delivered_to.extend(other.delivered_to);
        self.dropped.extend(other.dropped);
        self.dead_letters.extend(other.dead_letters);
        self.undecided = self.undecided.take().or(other.undecided);
        self.parked = self.parked.take().or(other.parked);
    }
}

/// A settled delivery on its way back to its source.
#[derive(Debug)]
pub struct Settled {
    /// As received.
    pub token: Token,
    /// The message as it was received.
    pub message: Arc<Message>,
    /// How it ended.
    pub outcome: Outcome,
    /// Which connection of the source it came from.
    pub(crate) epoch: u64,
    /// Holds the delivery's place among those in flight until the source has taken the settlement.
    pub(crate) _in_flight: Option<OwnedSemaphorePermit>,
}

impl Settled {
    /// A settlement outside a pipeline, for tests of connectors.
    pub fn new(token: Token, message: Arc<Message>, outcome: Outcome) -> Self {
        Self { token, message, outcome, epoch: 0, _in_flight: None }
    }
}

/// A message in flight. It must be settled; dropping it unsettled (a panic, an aborted task) requeues it and counts in
/// `sluicegate_deliveries_abandoned_total`, never as a success.
#[must_use = "an unsettled delivery is requeued"]
#[derive(Debug)]
pub struct Delivery {
    message: Arc<Message>,
    resumption: Option<Box<Resumption>>,
    token: Token,
    epoch: u64,
    settled: Option<(mpsc::Sender<Settled>, OwnedSemaphorePermit)>,
}

impl Delivery {
    /// `settled` must have room for every permit that exists: a settlement never waits.
    pub(crate) fn new(
        received: Received,
        epoch: u64,
        settled: mpsc::Sender<Settled>,
        in_flight: OwnedSemaphorePermit,
    ) -> Self {
        let Received { message, token, resumption } = received;
        let delivery =
            Self { message: Arc::new(message), resumption, token, epoch, settled: Some((settled, in_flight)) };
        #[cfg(feature = "early-ack-fault-control")]
        delivery.settle_early();
        delivery
    }

    /// Tells the source "delivered" before anything is: what `tests/faults` must notice.
    #[cfg(feature = "early-ack-fault-control")]
    fn settle_early(&self) {
        let Some((settled, _)) = &self.settled else { return };
        let (message, outcome) = (Arc::clone(&self.message), Outcome::default());
        let settlement = Settled { token: self.token, message, outcome, epoch: self.epoch, _in_flight: None };
        if settled.try_send(settlement).is_err() {
            tracing::warn!("early settlement lost: the source has stopped");
        }
    }

    /// The message as received.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// How far it had come, if it comes from an inbox.
    pub fn resumption(&self) -> Option<&Resumption> {
        self.resumption.as_deref()
    }

    /// Ends the delivery.
    pub fn settle(mut self, outcome: Outcome) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Outcome) {
        let Some((settled, permit)) = self.settled.take() else { return };
        if cfg!(feature = "early-ack-fault-control") {
            return; // settled already
        }
        let settlement = Settled {
            token: self.token,
            message: Arc::clone(&self.message),
            outcome,
            epoch: self.epoch,
            _in_flight: Some(permit),
        };
        if settled.try_send(settlement).is_err() {
            // The source driver is gone; its connection with it, so the source delivers the message again.
            metrics::counter!("sluicegate_settlements_lost_total").increment(1);
            tracing::warn!(message.id = %self.message.id, "settlement lost: the source has stopped; it will deliver the message again");
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.settled.is_some() {
            metrics::counter!("sluicegate_deliveries_abandoned_total").increment(1);
            self.send(Outcome::requeued("the gateway stopped before the message was through"));
        }
    }
}
