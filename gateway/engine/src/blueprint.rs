//! What a pipeline is made of, before anything runs.

use std::sync::Arc;
use std::time::Duration;

use crate::dead_letter::DeadLetters;
use crate::deduplication::Deduplication;
use crate::inbox::Inbox;
use crate::receipt::Receipts;
use crate::retry::RetryPolicy;
use crate::source::Source;
use crate::step::Step;
use crate::target::Target;
use crate::target_driver::TargetSettings;

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
    /// What the gateway keeps for it.
    pub state: State,
}

/// What the gateway keeps for a pipeline, each only if it does.
#[derive(Clone, Default)]
pub struct State {
    /// Messages that wait. Without it they wait in flight, or with sources that take them back.
    pub inbox: Option<Arc<dyn Inbox>>,
    /// What happened to messages.
    pub receipts: Option<Arc<dyn Receipts>>,
    /// Which messages were delivered, to drop their repetitions.
    pub deduplication: Option<Arc<dyn Deduplication>>,
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
