//! A pipeline: where source, steps and targets meet. [`Pipeline::carry`] is a message's whole way; `flow.rs` has the many
//! messages that are on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::dead_letter::DeadLetters;
use crate::delivery::{Outcome, Settlement};
use crate::failure::{GuestFailure, Reason, StepFailure};
use crate::flow::Flow;
use crate::link::{End, Link, LinkOwner};
use crate::message::Message;
use crate::meters::Meters;
use crate::retry::RetryPolicy;
use crate::source::Source;
use crate::source_driver::{Arrival, SourceDriver};
use crate::step::{Action, Destination, Route, Step, Unroutable, Verdict};
use crate::target::Target;
use crate::target_driver::{TargetDriver, TargetLink, TargetSettings, drive};
use crate::trip::{Fault, Place, Trip, dropped};

/// Which order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// None.
    #[default]
    None,
    /// Messages of one key leave in the order they came; at most one of them is under way at a time. Messages without
    /// a key are not ordered.
    Key(OnKeyFailure),
}

/// What happens to a key whose message fails after all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnKeyFailure {
    /// The key waits: its message is tried every `max_delay` until it succeeds, expires or reaches `max_age`; what
    /// follows waits behind it. A permanent failure never succeeds, so it goes to the dead letters as with `Skip`.
    #[default]
    Park,
    /// The message goes to the dead letters and the key goes on.
    Skip,
}

/// What a pipeline is made of.
pub struct Blueprint {
    /// The pipeline's name.
    pub name: Arc<str>,
    /// See [`DeadLetter::config_version`](crate::dead_letter::DeadLetter::config_version).
    pub config_version: Arc<str>,
    /// The source's system, such as `rabbitmq`.
    pub source_system: &'static str,
    /// Where messages come from.
    pub source: Box<dyn Source>,
    /// In order; a `Route` only as the last.
    pub steps: Vec<Step>,
    /// At least one.
    pub targets: Vec<TargetPart>,
    /// When failed messages are tried again.
    pub retry: RetryPolicy,
    /// Where messages go that cannot be delivered.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Most messages between being read and being settled.
    pub max_in_flight: usize,
    /// Which order is kept.
    pub order: Order,
    /// Longest a step may take with one message.
    pub handler_timeout: Option<Duration>,
}

/// One of a pipeline's targets.
pub struct TargetPart {
    /// Its name in the pipeline.
    pub name: Arc<str>,
    /// Its system, such as `redis`.
    pub system: &'static str,
    /// The target.
    pub target: Box<dyn Target>,
    /// How it is driven.
    pub settings: TargetSettings,
}

/// A pipeline, ready to run.
pub struct Pipeline {
    pub(crate) name: Arc<str>,
    pub(crate) config_version: Arc<str>,
    pub(crate) retry: RetryPolicy,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    pub(crate) order: Order,
    pub(crate) meters: Meters,
    steps: Vec<Step>,
    targets: Vec<TargetLink>,
    handler_timeout: Option<Duration>,
}

/// All that has to run for a pipeline to run; nothing does before [`run`](Self::run).
pub struct Assembly {
    pipeline: Arc<Pipeline>,
    source: SourceDriver,
    arrivals: mpsc::Receiver<Arrival>,
    targets: Vec<TargetDriver>,
    links: Vec<Link>,
}

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Messages that were given back because the drain limit passed.
    pub abandoned: usize,
    /// Whether a driver panicked: a defect, after which the pipeline does nothing more.
    pub failed: bool,
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

impl Assembly {
    /// Puts the parts together. Does no I/O and starts nothing.
    pub fn new(blueprint: Blueprint) -> Self {
        let Blueprint { name, source_system, source, steps, targets, max_in_flight, .. } = blueprint;
        let owner = LinkOwner::new(&name, &Arc::from("source"), source_system, End::Source);
        let mut links = vec![owner.link()];
        let (source, arrivals) = SourceDriver::new(source, owner, max_in_flight);
        let (targets, drivers): (Vec<_>, Vec<_>) =
            targets.into_iter().map(|part| drive(part.target, part.system, &name, &part.name, part.settings)).unzip();
        links.extend(targets.iter().map(TargetLink::link));
        let pipeline = Arc::new(Pipeline {
            meters: Meters::new(&name, &steps),
            name,
            config_version: blueprint.config_version,
            retry: blueprint.retry,
            dead_letters: blueprint.dead_letters,
            order: blueprint.order,
            steps,
            targets,
            handler_timeout: blueprint.handler_timeout,
        });
        Self { pipeline, source, arrivals, targets: drivers, links }
    }

    /// The connections, to watch; the source's first.
    pub fn links(&self) -> Vec<Link> {
        self.links.clone()
    }

    /// Runs until `stop` is cancelled or the source ends; then drains what is in flight for at most `drain_limit` and
    /// gives the rest back to the source.
    pub async fn run(self, stop: CancellationToken, drain_limit: Duration) -> Ended {
        let Self { pipeline, source, mut arrivals, targets, .. } = self;
        let mut drivers = JoinSet::new();
        let no_more_connects = stop.child_token();
        for target in targets {
            drivers.spawn(target.run(no_more_connects.clone()));
        }
        drivers.spawn(source.run(stop.clone()));
        let mut flow = Flow::new(pipeline, stop);
        flow.take(&mut arrivals).await;
        drop(arrivals);
        let abandoned = flow.drain(drain_limit).await;
        // With the pipeline go its target links: the drivers finish and close.
        drop(flow);
        no_more_connects.cancel();
        let mut failed = false;
        let closing = async {
            while let Some(ended) = drivers.join_next().await {
                if let Err(error) = ended {
                    error!(%error, "a connection's driver panicked");
                    failed = true;
                }
            }
        };
        if timeout(CLOSE_LIMIT, closing).await.is_err() {
            warn!("connections did not close within {CLOSE_LIMIT:?}; dropping them");
            drivers.shutdown().await;
        }
        Ended { abandoned, failed }
    }
}

/// Longest delay a router may ask for: the message is held in flight meanwhile.
pub const MAX_HELD_DELAY: Duration = Duration::from_secs(3_600);

/// Longest wait for connections to close after everything is settled.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

impl Pipeline {
    /// A message's way: validate, filter, transform, route, target, settle.
    ///
    /// Each step takes all messages that came of the delivery so far and lets through what goes on; whatever ends on
    /// the way ends in `outcome`, through [`Trip::attempt`] if it failed.
    pub(crate) async fn carry(&self, original: &Arc<Message>, postpones: bool, stop: &CancellationToken) -> Outcome {
        let began = Instant::now();
        let trip = Trip { pipeline: self, original, postpones, stop, began };
        let mut outcome = Outcome::default();
        let mut messages = vec![Arc::clone(original)];
        let mut publications = Vec::new();

        for (index, step) in self.steps.iter().enumerate() {
            let alone = messages.len() == 1 && outcome.settlement == Settlement::Delivered;
            let mut passed = Vec::with_capacity(messages.len());
            for message in messages {
                let done = self.apply(step, &message, &trip, alone).await;
                self.meters.step(index, done.as_ref().err());
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
        for end in join_all(publications.iter().map(|publication| self.publish(publication, &trip, alone))).await {
            outcome.merge(end);
        }
        self.meters.ended(&outcome, began.elapsed());
        outcome
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
        if delay > MAX_HELD_DELAY {
            let text = format!("it asked for a delay of {delay:?}; the longest is {MAX_HELD_DELAY:?}");
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
                // Held in flight whatever its length: a postponed message would be routed, and delayed, again.
                trip.hold(*delay).await?;
            }
            trip.attempt(place, || async { target.publish(message).await.map_err(Fault::Target) }).await
        };
        match published.await {
            Ok(()) => Outcome { delivered_to: vec![Arc::clone(&target.name)], ..Outcome::default() },
            Err(end) => end,
        }
    }
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
