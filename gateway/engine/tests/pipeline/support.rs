//! A pipeline put together from memory, and steps given as closures.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::failure::{GuestFailure, StepFailure};
use sluicegate_engine::memory::{MemoryDeadLetters, MemorySource, MemoryTarget};
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::{Assembly, Blueprint, Ended, Order, State, TargetPart};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::step::{Action, Destination, Filter, Route, Step, Transform, Unroutable, Verdict};
use sluicegate_engine::target_driver::TargetSettings;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A pipeline under test and its surroundings.
pub struct Bench {
    pub source: MemorySource,
    pub targets: Vec<(&'static str, MemoryTarget)>,
    pub dead_letters: MemoryDeadLetters,
    pub steps: Vec<Step>,
    pub retry: RetryPolicy,
    pub order: Order,
    pub max_in_flight: usize,
    pub handler_timeout: Option<Duration>,
    pub state: State,
    /// Most messages in publication to one target.
    pub target_in_flight: Option<usize>,
    pub drain_limit: Duration,
}

impl Bench {
    pub fn new(source: MemorySource, targets: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            source,
            targets: targets.into_iter().map(|name| (name, MemoryTarget::default())).collect(),
            dead_letters: MemoryDeadLetters::default(),
            steps: Vec::new(),
            retry: RetryPolicy::default(),
            order: Order::None,
            max_in_flight: 64,
            handler_timeout: None,
            state: State::default(),
            target_in_flight: None,
            drain_limit: Duration::from_secs(30),
        }
    }

    pub fn target(&self, name: &str) -> &MemoryTarget {
        &self.targets.iter().find(|(n, _)| *n == name).expect("a target of that name").1
    }

    pub fn step(mut self, action: Action) -> Self {
        let name = format!("{} {}", action.kind(), self.steps.len());
        self.steps.push(Step { name: name.into(), plugin_digest: None, action });
        self
    }

    fn assemble(&self) -> Assembly {
        let part = |(name, target): &(&'static str, MemoryTarget)| TargetPart {
            name: Arc::from(*name),
            system: "memory",
            target: Box::new(target.clone()),
            settings: TargetSettings {
                max_in_flight: self.target_in_flight.unwrap_or(256),
                ..TargetSettings::default()
            },
        };
        Assembly::new(Blueprint {
            name: "orders".into(),
            config_version: "0123456789ab".into(),
            source_system: "memory",
            source: Box::new(self.source.clone()),
            steps: self.steps.clone(),
            targets: self.targets.iter().map(part).collect(),
            retry: self.retry.clone(),
            dead_letters: Arc::new(self.dead_letters.clone()),
            max_in_flight: self.max_in_flight,
            order: self.order,
            handler_timeout: self.handler_timeout,
            state: self.state.clone(),
        })
    }

    /// Runs until the source ends; an hour of paused time is a hang.
    pub async fn run(&self) -> Ended {
        let run = self.assemble().run(CancellationToken::new(), self.drain_limit);
        tokio::time::timeout(Duration::from_secs(3_600), run).await.expect("the pipeline ends")
    }

    /// Runs beside the test until stopped.
    pub fn start(&self) -> (CancellationToken, JoinHandle<Ended>) {
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(self.assemble().run(stop, self.drain_limit)))
    }
}

/// Messages with bodies `0`, `1`, … and ids to match.
pub fn numbered(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message { id: format!("m{n}"), ..Message::new("test", "test.numbered", n.to_string()) })
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.body.bytes()).into_owned()
}

/// Waits, on paused time, until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

pub struct FilterBy<F>(pub F);
pub struct TransformBy<F>(pub F);
pub struct RouteBy<F>(pub F);

#[async_trait]
impl<F: Fn(&Message) -> Result<Verdict, StepFailure> + Send + Sync> Filter for FilterBy<F> {
    async fn filter(&self, message: &Arc<Message>) -> Result<Verdict, StepFailure> {
        (self.0)(message)
    }
}

#[async_trait]
impl<F: Fn(&Message) -> Result<Vec<Message>, StepFailure> + Send + Sync> Transform for TransformBy<F> {
    async fn transform(&self, message: &Arc<Message>) -> Result<Vec<Message>, StepFailure> {
        (self.0)(message)
    }
}

#[async_trait]
impl<F: Fn(&Message) -> Result<Vec<Destination>, StepFailure> + Send + Sync> Route for RouteBy<F> {
    async fn route(&self, message: &Arc<Message>) -> Result<Vec<Destination>, StepFailure> {
        (self.0)(message)
    }

    fn identity(&self) -> (String, String) {
        ("by-closure".to_owned(), "sha256:0".to_owned())
    }
}

pub fn filter(f: impl Fn(&Message) -> Result<Verdict, StepFailure> + Send + Sync + 'static) -> Action {
    Action::Filter(Arc::new(FilterBy(f)))
}

pub fn transform(f: impl Fn(&Message) -> Result<Vec<Message>, StepFailure> + Send + Sync + 'static) -> Action {
    Action::Transform(Arc::new(TransformBy(f)))
}

pub fn route(f: impl Fn(&Message) -> Result<Vec<Destination>, StepFailure> + Send + Sync + 'static) -> Action {
    Action::Route(Arc::new(RouteBy(f)), Unroutable::DeadLetter)
}

pub fn guest(failure: GuestFailure) -> StepFailure {
    StepFailure::Guest { plugin: "by-closure".to_owned(), digest: "sha256:0".to_owned(), failure }
}
