//! What tenants have made through the API: pipelines, subscriptions, schemas and routes, each a document as its tenant wrote
//! it, with a revision and a history. What the documents mean is the gateway's; here they are text.
//!
//! A change names the revision that it is based on, so that of two people who edit the same thing the second is told. Every
//! change announces [`TOPIC`]: gateways on the same store look again and run what has changed.

mod read;
mod write;

pub use read::MAX_PAGE_ITEMS;
use tokio::sync::watch;

use crate::store::Store;
use crate::tenant::TenantName;

/// Announced with every change.
pub(crate) const TOPIC: &str = "resources";

/// Longest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 10;

/// Most resources of one kind that a tenant may have.
pub const MAX_RESOURCES: usize = 1_000;

/// Revisions of one resource that are remembered; older ones are forgotten.
pub const MAX_HISTORY: usize = 100;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A pipeline.
    Pipeline,
    /// A pipeline on a queue, in the words of requirement B4.
    Subscription,
    /// A JSON Schema.
    Schema,
    /// A condition, a filter, a transform and a destination on a queue, in the words of requirement E3.
    Route,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pipeline, Self::Subscription, Self::Schema, Self::Route];

    /// For example `pipeline`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Subscription => "subscription",
            Self::Schema => "schema",
            Self::Route => "route",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// Whose it is.
    pub tenant: TenantName,
    /// What it is.
    pub kind: ResourceKind,
    /// Its name, which its tenant chose.
    pub name: String,
}

/// A resource as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Which it is.
    pub id: ResourceId,
    /// From 1, one more with each change.
    pub revision: u64,
    /// Whether it is to rest.
    pub is_paused: bool,
    /// As it was written: YAML or JSON.
    pub document: String,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub updated_at_ms: u64,
}

/// A change to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Makes it. It must not exist.
    Create {
        /// What it says.
        document: String,
        /// Whether it is to rest from the start.
        is_paused: bool,
    },
    /// Gives it another document.
    Update {
        /// What it says now.
        document: String,
    },
    /// Lets it rest.
    Pause,
    /// Lets it go on.
    Resume,
    /// Removes it; its history stays.
    Delete,
}

impl Edit {
    /// For the history: `created`, `updated`, `paused`, `resumed` or `deleted`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "created",
            Self::Update { .. } => "updated",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Delete => "deleted",
        }
    }
}

/// What became of an [`Edit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// It is made; this is the resource now, or was when it was deleted.
    Done(Resource),
    /// There is no such resource.
    NotFound,
    /// There is one already.
    Exists,
    /// It has changed since that revision; this is its own.
    Conflict(u64),
    /// The tenant has [`MAX_RESOURCES`] of that kind.
    Full,
}

/// One revision of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// How it came about: `created`, `updated`, `paused`, `resumed` or `deleted`.
    pub change: String,
    /// What it said.
    pub document: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who it was.
    pub by: String,
}

impl Store {
    /// Changes whenever a resource does, here or at another gateway on the same store.
    pub fn resources_changed(&self) -> watch::Receiver<u64> {
        self.signals().subscribe(TOPIC)
    }
}
