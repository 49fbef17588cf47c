//! What a pipeline's steps are. Each kind has one trait with one method; plugins, schemas and tests implement them.

use std::sync::Arc;

use async_trait::async_trait;

use crate::failure::{Reason, StepFailure};
use crate::message::Message;

/// One step of a pipeline, under the name it has in metrics and dead letters.
#[derive(Clone)]
pub struct Step {
    /// For example `filter jq` or `validate order`; unique within the pipeline.
    pub name: Arc<str>,
    /// The digest of its plugin, if it has one: evidence in receipts.
    pub plugin_digest: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
}

/// The four kinds of steps.
#[derive(Clone)]
pub enum Action {
    /// Lets pass what satisfies a schema.
    Validate(Arc<dyn Validate>),
    /// Keeps or drops.
    Filter(Arc<dyn Filter>),
    /// Makes none, one or several messages of one.
    Transform(Arc<dyn Transform>),
    /// Names targets. The last step, if there is one; without it a message goes to every target.
    Route(Arc<dyn Route>, Unroutable),
}

impl Action {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Validate(_) => "validate",
            Self::Filter(_) => "filter",
            Self::Transform(_) => "transform",
            Self::Route(..) => "route",
        }
    }
}

/// What becomes of a message for which a router names no target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Unroutable {
    /// A dead letter.
    #[default]
    DeadLetter,
    /// Dropped on purpose.
    Drop,
    /// Goes to this target.
    Target(Arc<str>),
}

/// A filter's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on.
    Keep,
    /// Ends here, successfully.
    Drop(Reason),
}

/// Where a router sends a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Name of one of the pipeline's targets.
    pub target: String,
    /// Replaces the message's key.
    pub key: Option<String>,
    /// Milliseconds to wait before publishing.
    pub delay_ms: Option<u64>,
}

impl Destination {
    /// To that target, at once, the key unchanged.
    pub fn to(target: impl Into<String>) -> Self {
        Self { target: target.into(), key: None, delay_ms: None }
    }
}

/// See [`Action::Validate`].
pub trait Validate: Send + Sync {
    /// # Errors
    /// `StepFailure::Schema` with every violation.
    fn validate(&self, message: &Message) -> Result<(), StepFailure>;
}

/// See [`Action::Filter`]. Cancel safe: a dropped call has no effect.
#[async_trait]
pub trait Filter: Send + Sync {
    /// # Errors
    /// Why there is no verdict.
    async fn filter(&self, message: &Arc<Message>) -> Result<Verdict, StepFailure>;
}

/// See [`Action::Transform`]. Cancel safe: a dropped call has no effect.
#[async_trait]
pub trait Transform: Send + Sync {
    /// None drops the message, several split it.
    ///
    /// # Errors
    /// Why nothing was made.
    async fn transform(&self, message: &Arc<Message>) -> Result<Vec<Message>, StepFailure>;
}

/// See [`Action::Route`]. Cancel safe: a dropped call has no effect.
#[async_trait]
pub trait Route: Send + Sync {
    /// None means unroutable.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn route(&self, message: &Arc<Message>) -> Result<Vec<Destination>, StepFailure>;

    /// The plugin's name and digest, as evidence when it names a target that does not exist.
    fn identity(&self) -> (String, String);
}
