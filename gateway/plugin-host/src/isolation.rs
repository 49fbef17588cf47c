//! What outlives a call, and the other settings of a configured plugin.

use crate::grants::Grants;
use crate::limits::Limits;

/// What outlives a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Nothing: every message meets a fresh instance, already configured.
    #[default]
    Message,
    /// The guest's memory, for [`BATCH_CALLS`](crate::BATCH_CALLS) calls.
    Batch,
    /// The guest's memory, until something goes wrong.
    Reuse,
}

impl Isolation {
    /// As it stands in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Batch => "batch",
            Self::Reuse => "reuse",
        }
    }
}

/// The isolation in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationInForce {
    /// Which.
    pub isolation: Isolation,
    /// Why it is not the one that was asked for, if it is not.
    pub fallback_reason: Option<String>,
}

/// How a plugin is run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What outlives a call.
    pub isolation: Isolation,
    /// What a call may use.
    pub limits: Limits,
    /// What it may do beside looking at its message and logging.
    pub grants: Grants,
}
