//! Uploaded plugins: components by digest, immutable versions of a plugin, and which of them run (its rollout).
//!
//! Plugins stand under their full names (`TENANT/NAME`, see [`Realm`](crate::tenant::Realm)). Every change is announced
//! under one topic, so that all gateways on the store follow.

mod read;
mod rollout;
mod upload;

use serde_json::Value as Json;
use tokio::sync::watch;

use crate::store::Store;

pub use rollout::{RolloutChange, RolloutChanged};
pub use upload::{NewVersion, Retired, Uploaded};

/// Versions of one plugin that are not retired.
pub const MAX_VERSIONS: u64 = 100;
/// Plugins, versions or events in one answer.
pub const MAX_LISTED: usize = 1_000;
/// Events kept of a plugin's rollout.
pub const MAX_EVENTS: u64 = 100;
/// Versions that are remembered to go back to.
const MAX_EARLIER: usize = 20;
/// What changes announce.
const TOPIC: &str = "plugins";

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionState {
    /// Inspected and compiled.
    Uploaded,
    /// Has also run on sample messages within its limits.
    Certified,
    /// Failed on its sample messages.
    Refused,
    /// Taken out of use by its owner; its component may be gone.
    Retired,
    /// Taken out of use by a gateway, since it trapped again and again.
    Quarantined,
}

impl VersionState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Uploaded, Self::Certified, Self::Refused, Self::Retired, Self::Quarantined];

    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Certified => "certified",
            Self::Refused => "refused",
            Self::Retired => "retired",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether messages may meet it.
    pub fn may_run(self) -> bool {
        matches!(self, Self::Uploaded | Self::Certified)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A version of a plugin. All but its state, reason and report never change.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Full name of the plugin.
    pub plugin: String,
    /// Counted from 1.
    pub version: u32,
    /// SHA-256 of the component, `sha256:9f2c…`.
    pub digest: String,
    /// Length of the component.
    pub size_bytes: u64,
    /// What it can do.
    pub roles: Vec<String>,
    /// Everything it imports.
    pub imports: Vec<String>,
    /// JSON Schema of its configuration.
    pub config_schema: Json,
    /// Of the last certification.
    pub report: Option<Json>,
    /// Where it stands.
    pub state: VersionState,
    /// Why, if there is something to say.
    pub reason: Option<String>,
    /// When it was uploaded.
    pub created_at_ms: u64,
    /// By whom.
    pub created_by: String,
}

/// How a candidate runs beside the current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// There is no candidate: the current version gets every message.
    All,
    /// The candidate gets this many of 100 messages, 1 to 99.
    Percent(u8),
    /// The candidate sees every message, and what it says is compared and not used.
    Shadow,
}

impl Mode {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Percent(_) => "percent",
            Self::Shadow => "shadow",
        }
    }
}

/// Which versions of a plugin run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Full name of the plugin.
    pub plugin: String,
    /// The version that runs; none before the first rollout.
    pub current: Option<u32>,
    /// The one that is tried beside it.
    pub candidate: Option<u32>,
    /// How.
    pub mode: Mode,
    /// Versions that ran before, the last one last.
    pub earlier: Vec<u32>,
    /// Grows with every change.
    pub revision: u64,
    /// When it was changed.
    pub changed_at_ms: u64,
}

/// Something that happened to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The rollout's revision afterwards.
    pub revision: u64,
    /// When.
    pub at_ms: u64,
    /// Who did it: a credential, or `gateway`.
    pub by: String,
    /// What was done, and why.
    pub what: String,
}

impl Store {
    /// Changes whenever something about plugins has changed, at whichever gateway. Subscribe, look, wait.
    pub fn plugin_news(&self) -> watch::Receiver<u64> {
        self.signals().subscribe(TOPIC)
    }
}
