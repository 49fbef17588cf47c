//! The audit: who changed or was denied what, when, and from where. Entries are only added; age alone removes them.

mod read;
mod write;

use std::net::IpAddr;

use serde_json::Value;

use crate::tenant::Realm;

pub use read::AuditFilter;

/// Largest `before` and `after`, as JSON in bytes; what is larger is left out, and its size is said.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 10;
/// Longest actor, action and resource, in characters; the rest is cut.
pub const MAX_TEXT_CHARS: usize = 300;

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was tried and refused, for another reason than who asked.
    Failed,
    /// Who asked may not, or could not say who it is.
    Denied,
}

impl AuditOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Denied];

    /// For example `done`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Denied => "denied",
        }
    }

    /// The outcome of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// Something to be remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who: a credential's public name, never a secret.
    pub actor: String,
    /// In whose realm.
    pub realm: Realm,
    /// What, such as `key.create`.
    pub action: String,
    /// With what.
    pub resource: String,
    /// As it was before.
    pub before: Option<Value>,
    /// As it is now.
    pub after: Option<Value>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// From where.
    pub address: Option<IpAddr>,
    /// How many more of the same this stands for.
    pub repeats: u64,
}

/// An entry and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its place: a later one is larger.
    pub seq: u64,
    /// What it says.
    pub entry: AuditEntry,
}
