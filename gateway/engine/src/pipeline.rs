//! A pipeline: where source, steps and targets meet. [`Pipeline::carry`] is a message's whole way; `flow.rs` has the many
//! messages that are on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::assembly::{Assembly, Ended};
pub use crate::blueprint::{Blueprint, OnKeyFailure, Order, State, TargetPart};
use crate::dead_letter::DeadLetters;
use crate::deduplication::{Deduplication, Underway};
use crate::delivery::{Delivery, Outcome, Settlement};
use crate::failure::{GuestFailure, Reason, StepFailure};
use crate::inbox::{Inbox, Progress, Waypoint};
use crate::journal::Journal;
use crate::message::{Message, now_ms};
use crate::meters::Meters;
use crate::parked_keys::ParkedKeys;
use crate::receipt::{Event, Happening, Receipt, Receipts, StepResult};
use crate::retry::RetryPolicy;
use crate::step::{Action, Destination, Route, Step, Unroutable, Verdict};
use crate::target_driver::TargetLink;
use crate::trip::{Fault, Origin, Place, Trip, dropped};

/// A pipeline, ready to run.
pub struct Pipeline {
    pub(crate) name: Arc<str>,
    pub(crate) config_version: Arc<str>,
    pub(crate) retry: RetryPolicy,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) order: Order,
    pub(crate) meters: Meters,
    pub(crate) inbox: Option<Arc<dyn Inbox>>,
    pub(crate) parked_keys: ParkedKeys,
    pub(crate) receipts: Option<Arc<dyn Receipts>>,
    pub(crate) deduplication: Option<Arc<dyn Deduplication>>,
    pub(crate) steps: Vec<Step>,
    pub(crate) targets: Vec<TargetLink>,
    pub(crate) handler_timeout: Option<Duration>,
}

/// What a step lets through of one message.
enum Passed<'a> {
    /// The message as it is.
    Same,
    /// What was made of it, at least one.
    Made(Vec<Message>),
    /// Its ways to targets, at least one.
    Routed(Vec<Publication<'a>>),
}

/// A message on its way to one target.
struct Publication<'a> {
    message: Arc<Message>,
    target: &'a TargetLink,
    delay: Duration,
}

/// Longest delay a router may ask for.
pub const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Longest such delay in a pipeline without an inbox, where the message is held in flight meanwhile.
pub const MAX_HELD_DELAY: Duration = Duration::from_secs(3_600);

/// How long to wait before asking again which keys are parked.
const KEYS_RETRY_DELAY: Duration = Duration::from_secs(1);

impl Pipeline {
    /// A message's way: validate, filter, transform, route, target, settle.
    ///
    /// It begins where the message was put down if it comes from the inbox, else at the start.
    pub(crate) async fn carry(&self, delivery: &Delivery, origin: Origin, stop: &CancellationToken) -> Outcome {
        let (message, resumption) = (delivery.message(), delivery.resumption());
        let fresh = Progress::default();
        let trip = Trip {
            pipeline: self,
            origin,
            original: resumption.and_then(|resumption| resumption.original.as_ref()).unwrap_or(message),
            message,
            progress: resumption.map_or(&fresh, |resumption| &resumption.progress),
            stop,
            began: Instant::now(),
            began_at_ms: now_ms(),
            journal: Journal::new(self.receipts.is_some()),
        };
        let begun = self.begin(&trip).await;
        let (begun, underway) = match begun {
            Ok(underway) => (Ok(()), underway),
            Err(end) => (Err(end), None),
        };
        let outcome = match begun {
            Ok(()) => match &trip.progress.waypoint {
                Waypoint::Start => self.walk(&trip, 0, trip.original).await,
                Waypoint::Step(name) => match self.steps.iter().position(|step| step.name == *name) {
                    Some(index) => self.walk(&trip, index, message).await,
                    None => self.walk(&trip, 0, trip.original).await,
                },
                Waypoint::Target(name) => match self.targets.iter().find(|target| target.name == *name) {
                    Some(target) => {
                        let publication = Publication { message: Arc::clone(message), target, delay: Duration::ZERO };
                        self.publish(&publication, &trip, true).await
                    }
                    None => trip.without_target(name).await,
                },
            },
            Err(end) => end,
        };
        self.conclude(trip, &outcome).await;
        drop(underway);
        outcome
    }

    /// What comes before the way itself: a message waits for its time and behind those of its key, and repetitions end.
    /// Returned is what its repetitions wait for.
    async fn begin<'a>(&'a self, trip: &Trip<'a>) -> Result<Option<Underway<'a>>, Outcome> {
        let waypoint = &trip.progress.waypoint;
        if trip.origin == Origin::Inbox && self.may_have_waited(trip) {
            trip.journal.note(|| Happening::Resumed { waypoint: waypoint.clone(), attempt: trip.progress.attempt });
        }
        if *waypoint != Waypoint::Start {
            return Ok(None);
        }
        let place = Place { message: trip.original, step: None, target: None, alone: true };
        // The inbox has kept the time and the order of what comes from it.
        if trip.origin != Origin::Inbox {
            let due = trip.original.deliver_at_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
            if let Some(delay) = due.filter(|delay| !delay.is_zero() && self.inbox.is_some()) {
                trip.defer(place, delay, "its delivery time has not come".to_owned()).await?;
            }
            self.queue_up(trip, place).await?;
        }
        let Some(deduplication) = &self.deduplication else { return Ok(None) };
        let known =
            trip.attempt(place, || async { deduplication.was_delivered(trip.original).await.map_err(Fault::Target) });
        if known.await? {
            return Err(dropped(Reason::new("duplicate", "a message with its source and id was delivered before")));
        }
        Ok(Some(Underway::new(deduplication.as_ref(), trip.original)))
    }

    /// Whether a message from the inbox may have been here before. One that was only accepted into it begins its way like
    /// one from any source, and its receipt is kept or not like theirs.
    fn may_have_waited(&self, trip: &Trip<'_>) -> bool {
        let Progress { waypoint, attempt, disconnects, attempts, redrive, .. } = trip.progress;
        let is_under_way = *waypoint != Waypoint::Start || trip.original.deliver_at_ms.is_some() || redrive.is_some();
        let has_failed = *attempt > 1 || *disconnects > 0 || !attempts.is_empty();
        is_under_way || has_failed || self.order != Order::None && trip.original.key.is_some()
    }

    /// In an ordered pipeline, a message goes behind those of its key that wait at this place.
    async fn queue_up(&self, trip: &Trip<'_>, place: Place<'_>) -> Result<(), Outcome> {
        let Some(key) = place.message.key.as_ref().filter(|_| self.order != Order::None) else { return Ok(()) };
        let lane = place.target.map_or("", |target| &target.name);
        while self.parked_keys.holds(lane, key) {
            trip.queue_up(place).await?;
        }
        Ok(())
    }

    /// From the step at `first` to the targets. Each step takes all messages that came of the delivery so far and lets
    /// through what goes on; whatever ends on the way ends in the outcome, through [`Trip::attempt`] if it failed.
    async fn walk(&self, trip: &Trip<'_>, first: usize, message: &Arc<Message>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut messages = vec![Arc::clone(message)];
        let mut publications = Vec::new();
        for (index, step) in self.steps.iter().enumerate().skip(first) {
            let alone = messages.len() == 1 && outcome.settlement == Settlement::Delivered;
            let mut passed = Vec::with_capacity(messages.len());
            for message in messages {
                let done = self.apply(step, &message, trip, alone).await;
                self.meters.step(index, done.as_ref().err());
                note_step(trip, step, &done);
                match done {
                    Ok(Passed::Same) => passed.push(message),
                    Ok(Passed::Made(made)) => passed.extend(made.into_iter().map(Arc::new)),
                    Ok(Passed::Routed(routed)) => publications.extend(routed),
                    Err(end) => outcome.merge(end),
                }
            }
            messages = passed;
        }
        // Without a router, what is left goes to every target.
        for message in &messages {
            publications.extend(self.targets.iter().map(|target| Publication {
                message: Arc::clone(message),
                target,
                delay: Duration::ZERO,
            }));
        }
        let alone = publications.len() == 1 && outcome.settlement == Settlement::Delivered;
        if let [publication] = &publications[..] {
            outcome.merge(self.publish(publication, trip, alone).await);
        } else {
            for end in join_all(publications.iter().map(|publication| self.publish(publication, trip, alone))).await {
                outcome.merge(end);
            }
        }
        outcome
    }

    /// What comes after the way: counting, remembering, the receipt.
    async fn conclude(&self, trip: Trip<'_>, outcome: &Outcome) {
        self.meters.ended(outcome, trip.began.elapsed());
        if let (Some(deduplication), Settlement::Delivered) = (&self.deduplication, outcome.settlement)
            && let Err(failure) = deduplication.remember(trip.original).await
        {
            warn!(pipeline = %self.name, message.id = %trip.original.id, error = %failure,
                "cannot remember that the message was delivered; a repetition of it would be delivered, too");
        }
        let (message, received_at_ms, began_at_ms) = (trip.original, trip.received_at_ms(), trip.began_at_ms);
        let (Some(receipts), Some(events)) = (&self.receipts, trip.journal.close()) else { return };
        if events.iter().any(Event::is_trouble) || receipts.samples(message) {
            receipts.record(Receipt {
                message: Arc::clone(message),
                pipeline: Arc::clone(&self.name),
                config_version: Arc::clone(&self.config_version),
                received_at_ms,
                began_at_ms,
                ended_at_ms: now_ms(),
                settlement: outcome.settlement,
                events,
            });
        }
    }

    /// A message of the inbox has ended, or left its lane for another: its key is free there if it was the last.
    pub(crate) fn left_inbox(&self, delivery: &Delivery, outcome: &Outcome) {
        let (Some(key), Some(resumption)) = (&delivery.message().key, delivery.resumption()) else { return };
        let lane = resumption.progress.waypoint.lane();
        let gone = match outcome.settlement {
            Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => true,
            Settlement::Postponed { .. } => {
                outcome.parked.as_ref().is_some_and(|entry| entry.progress.waypoint.lane() != lane)
            }
            Settlement::Requeued => false,
        };
        if gone && self.order != Order::None {
            self.parked_keys.leave(lane, key);
        }
    }

    /// Asks the inbox which keys have messages in it, before anything could overtake them.
    pub(crate) async fn load_parked_keys(&self, stop: &CancellationToken) {
        let Some(inbox) = self.inbox.as_ref().filter(|_| self.order != Order::None) else { return };
        while !stop.is_cancelled() {
            match inbox.ordered_keys().await {
                Ok(keys) => {
                    for (lane, key) in keys {
                        self.parked_keys.enter(&lane, key);
                    }
                    return;
                }
                Err(failure) => {
                    warn!(pipeline = %self.name, error = %failure, "cannot read which keys are parked; the pipeline starts once it can");
                    tokio::select! { () = stop.cancelled() => {} () = tokio::time::sleep(KEYS_RETRY_DELAY) => {} }
                }
            }
        }
    }

    /// One step with one message.
    async fn apply(
        &self,
        step: &Step,
        message: &Arc<Message>,
        trip: &Trip<'_>,
        alone: bool,
    ) -> Result<Passed<'_>, Outcome> {
        let place = Place { message, step: Some(&step.name), target: None, alone };
        match &step.action {
            Action::Validate(schema) => {
                trip.attempt(place, || async { schema.validate(message).map_err(Fault::Step) }).await?;
                Ok(Passed::Same)
            }
            Action::Filter(filter) => match trip.attempt(place, || self.limited(filter.filter(message))).await? {
                Verdict::Keep => Ok(Passed::Same),
                Verdict::Drop(reason) => Err(dropped(reason)),
            },
            Action::Transform(transform) => {
                let made = trip.attempt(place, || self.limited(transform.transform(message))).await?;
                if made.is_empty() {
                    Err(dropped(Reason::new("empty", "the transform made no message of it")))
                } else {
                    Ok(Passed::Made(made))
                }
            }
            Action::Route(route, unroutable) => {
                let routed = trip.attempt(place, || self.destinations(route.as_ref(), unroutable, message)).await?;
                if routed.is_empty() {
                    Err(dropped(Reason::new("unroutable", "the router named no target")))
                } else {
                    Ok(Passed::Routed(routed))
                }
            }
        }
    }

    /// A step's call within the handler timeout.
    async fn limited<T>(&self, call: impl Future<Output = Result<T, StepFailure>>) -> Result<T, Fault> {
        match self.handler_timeout {
            None => call.await,
            Some(limit) => timeout(limit, call).await.unwrap_or(Err(StepFailure::Timeout(limit))),
        }
        .map_err(Fault::Step)
    }

    /// Asks the router and looks its names up; a name that is not a target's breaks the plugin contract.
    async fn destinations(
        &self,
        route: &dyn Route,
        unroutable: &Unroutable,
        message: &Arc<Message>,
    ) -> Result<Vec<Publication<'_>>, Fault> {
        let mut destinations = self.limited(route.route(message)).await?;
        if destinations.is_empty() {
            match unroutable {
                Unroutable::DeadLetter => return Err(Fault::Step(StepFailure::Unroutable)),
                Unroutable::Drop => return Ok(Vec::new()),
                Unroutable::Target(target) => destinations.push(Destination::to(&**target)),
            }
        }
        destinations.into_iter().map(|destination| self.publication(destination, route, message)).collect()
    }

    fn publication(
        &self,
        destination: Destination,
        route: &dyn Route,
        message: &Arc<Message>,
    ) -> Result<Publication<'_>, Fault> {
        let Destination { target, key, delay_ms } = destination;
        let Some(link) = self.targets.iter().find(|link| *link.name == *target) else {
            let known: Vec<&str> = self.targets.iter().map(|link| &*link.name).collect();
            let text = format!(
                "it named the target `{}`, which this pipeline does not have; it has {}",
                printable(&target),
                known.join(", ")
            );
            return Err(broken(route, text));
        };
        let delay = Duration::from_millis(delay_ms.unwrap_or_default());
        let longest = if self.inbox.is_some() { MAX_DELAY } else { MAX_HELD_DELAY };
        if delay > longest {
            let text = format!("it asked for a delay of {delay:?}; the longest is {longest:?}");
            return Err(broken(route, text));
        }
        let message = match key {
            None => Arc::clone(message),
            Some(key) => Arc::new(Message { key: Some(Bytes::from(key)), ..Message::clone(message) }),
        };
        Ok(Publication { message, target: link, delay })
    }

    /// Publishes to one target, when its circuit breaker and its connection allow.
    async fn publish(&self, publication: &Publication<'_>, trip: &Trip<'_>, alone: bool) -> Outcome {
        let Publication { message, target, delay } = publication;
        let place = Place { message, step: None, target: Some(target), alone };
        let published = async {
            if !delay.is_zero() {
                trip.defer(place, *delay, "the router delayed it".to_owned()).await?;
            }
            // The first of its key in its lane comes from there; all others go behind what waits there.
            if trip.origin != Origin::Inbox || trip.progress.waypoint.lane() != &*target.name {
                self.queue_up(trip, place).await?;
            }
            let patience = trip.room_patience(place);
            trip.attempt(place, || async { target.publish(message, patience).await.map_err(Fault::Target) }).await
        };
        match published.await {
            Ok(()) => {
                trip.journal.note(|| Happening::Delivered { target: Arc::clone(&target.name) });
                Outcome { delivered_to: vec![Arc::clone(&target.name)], ..Outcome::default() }
            }
            Err(end) => end,
        }
    }
}

/// What a step that did not fail did; failures have been noted where they were judged.
fn note_step(trip: &Trip<'_>, step: &Step, done: &Result<Passed<'_>, Outcome>) {
    let result = || {
        Some(match done {
            Ok(Passed::Same) => StepResult::Passed,
            Ok(Passed::Made(made)) => StepResult::Made { messages: made.len() },
            Ok(Passed::Routed(routed)) => {
                StepResult::Routed(routed.iter().map(|publication| Arc::clone(&publication.target.name)).collect())
            }
            Err(end) if end.settlement == Settlement::Dropped => StepResult::Dropped(end.dropped.first()?.clone()),
            Err(_) => return None,
        })
    };
    trip.journal.note_if(|| {
        let (step_name, plugin_digest) = (Arc::clone(&step.name), step.plugin_digest.clone());
        result().map(|result| Happening::Step { step: step_name, plugin_digest, result })
    });
}

/// A router broke the plugin contract.
fn broken(route: &dyn Route, text: String) -> Fault {
    let (plugin, digest) = route.identity();
    Fault::Step(StepFailure::Guest { plugin, digest, failure: GuestFailure::ContractViolation(text) })
}

/// Guest text for an error message: short, and nothing that moves a terminal.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
