//! The traits a plugin author implements.

use serde::de::DeserializeOwned;

use crate::{Destination, Draft, Failure, Message, Reason, Verdict};

/// A configured plugin. Implement it once, and one or several of [`Filter`], [`Transform`] and [`Router`] beside it.
pub trait Plugin: Sized + 'static {
    /// The `config` of the pipeline's step. Deny unknown fields, so that a misspelt key is an error.
    type Config: DeserializeOwned;

    /// JSON Schema (draft 2020-12) of [`Config`](Self::Config): `schema_of::<Self::Config>()` for a type that derives
    /// `JsonSchema`, or any text. The gateway checks the configuration against it before the plugin sees it.
    fn config_schema() -> String;

    /// Makes the plugin, once, before any message; what is costly belongs here, since later instances start from the
    /// memory this leaves.
    ///
    /// # Errors
    /// Every mistake of the configuration, not the first only.
    fn configure(config: Self::Config) -> Result<Self, Vec<Reason>>;
}

/// Decides whether a message goes on.
pub trait Filter: Plugin {
    /// # Errors
    /// [`Failure::retry`] to see the message again, [`Failure::reject`] to make it a dead letter.
    fn filter(&self, message: &Message) -> Result<Verdict, Failure>;
}

/// Makes messages from a message.
pub trait Transform: Plugin {
    /// No draft drops the message, several split it; they go on in this order.
    ///
    /// # Errors
    /// [`Failure::retry`] to see the message again, [`Failure::reject`] to make it a dead letter.
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure>;
}

/// Chooses targets, by the names they have in the pipeline.
pub trait Router: Plugin {
    /// No destination leaves the message to the pipeline's `unroutable` policy.
    ///
    /// # Errors
    /// [`Failure::retry`] to see the message again, [`Failure::reject`] to make it a dead letter.
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure>;
}
