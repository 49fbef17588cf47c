//! The dead letter: one record, whatever the broker, with all that is needed to explain and redrive it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::failure::{Failure, FailureClass, SchemaError};
use crate::message::Message;

/// A message that could not be delivered, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its own id (UUID version 7), apart from the message's.
    pub id: String,
    /// When it failed for good, milliseconds since the Unix epoch.
    pub failed_at_ms: u64,
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// Which configuration was running: the first 12 hex digits of its sha256.
    pub config_version: Arc<str>,
    /// The message as received: body and headers byte for byte.
    pub original: Arc<Message>,
    /// The message as it was at the failing step; the same as `original` when no step had changed it.
    pub at_failure: Arc<Message>,
    /// The failing step's name, if a step failed.
    pub step: Option<Arc<str>>,
    /// The failing target's name, if a target failed.
    pub target: Option<Arc<str>>,
    /// The class of the last failure.
    pub class: FailureClass,
    /// The last failure, for people.
    pub error: String,
    /// Every violation, when the class is `schema`.
    pub schema_errors: Vec<SchemaError>,
    /// The plugin's name, when a plugin failed.
    pub plugin: Option<String>,
    /// The plugin's digest, `sha256:…`.
    pub plugin_digest: Option<String>,
    /// Guest frames, innermost first.
    pub backtrace: Vec<String>,
    /// Every attempt made here, oldest first.
    pub attempts: Vec<Attempt>,
    /// The W3C trace id (32 hex digits), if the message had one.
    pub trace_id: Option<String>,
    /// How often it has been redriven.
    pub redrive_count: u32,
}

/// One try that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What went wrong.
    pub error: String,
}

/// Keeps dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Returns once the record is durable. Recording the same id twice is the same as once.
    ///
    /// # Errors
    /// The engine tries again until it succeeds or the gateway stops; the message stays in flight.
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure>;
}
