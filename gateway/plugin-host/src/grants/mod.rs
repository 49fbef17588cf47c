//! Capabilities: what a plugin may do beside looking at its message and logging, each by grant only. Their contract is in
//! `wit/`, a package each; what stands behind them is the gateway's ([`access`]).
//!
//! Architecture invariant: a component's imports are linked as they stand, and a plugin is only configured with grants for
//! all of them; so an instance that sees a message has what it imports, and nothing it was not granted. While a guest is
//! configured it can call none of it, so that a snapshot depends on nothing but the configuration.

mod access;
mod bindings;
mod call;
mod http;
mod metrics;
mod secrets;
mod state;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};

pub use access::{
    HttpAccess, HttpError, HttpRequest, HttpResponse, MetricValue, MetricsAccess, SecretsAccess, StateAccess,
    StateChange, StateChanged, StateError,
};
pub(crate) use call::HostCalls;

use crate::state::State;

/// A kind of grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Key-value state.
    State,
    /// Outgoing HTTP.
    Http,
    /// Secrets by name.
    Secrets,
    /// Metrics.
    Metrics,
}

impl Capability {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::State, Self::Http, Self::Secrets, Self::Metrics];

    /// As it stands in configuration and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Http => "http",
            Self::Secrets => "secrets",
            Self::Metrics => "metrics",
        }
    }

    /// What a component that wants it imports.
    pub fn import(self) -> &'static str {
        match self {
            Self::State => "sluicegate:state/key-value@0.1.0",
            Self::Http => "sluicegate:http/outgoing@0.1.0",
            Self::Secrets => "sluicegate:secrets/named@0.1.0",
            Self::Metrics => "sluicegate:metrics/recording@0.1.0",
        }
    }

    /// How it is granted in a configuration.
    pub fn example(self) -> &'static str {
        match self {
            Self::State => "state: { max: 1MiB }",
            Self::Http => "http: { hosts: [api.example.org] }",
            Self::Secrets => "secrets: { api: '${file:/run/secrets/api}' }",
            Self::Metrics => "metrics: { lookups_total: { kind: counter } }",
        }
    }

    pub(crate) fn of_import(import: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.import() == import)
    }

    /// Makes it callable.
    pub(crate) fn link(self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        use bindings::sluicegate;
        match self {
            Self::State => sluicegate::state::key_value::add_to_linker::<_, HasSelf<_>>(linker, |state| state),
            Self::Http => sluicegate::http::outgoing::add_to_linker::<_, HasSelf<_>>(linker, |state| state),
            Self::Secrets => sluicegate::secrets::named::add_to_linker::<_, HasSelf<_>>(linker, |state| state),
            Self::Metrics => sluicegate::metrics::recording::add_to_linker::<_, HasSelf<_>>(linker, |state| state),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a configured plugin may do, and what stands behind it. By default nothing.
#[derive(Clone, Default)]
pub struct Grants {
    /// Key-value state.
    pub state: Option<Arc<dyn StateAccess>>,
    /// Outgoing HTTP.
    pub http: Option<Arc<dyn HttpAccess>>,
    /// Secrets by name.
    pub secrets: Option<Arc<dyn SecretsAccess>>,
    /// Metrics.
    pub metrics: Option<Arc<dyn MetricsAccess>>,
    /// What the calls of one message may come to.
    pub limits: HostCallLimits,
}

impl Grants {
    /// Whether it is granted.
    pub fn has(&self, capability: Capability) -> bool {
        match capability {
            Capability::State => self.state.is_some(),
            Capability::Http => self.http.is_some(),
            Capability::Secrets => self.secrets.is_some(),
            Capability::Metrics => self.metrics.is_some(),
        }
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(Capability::ALL.into_iter().filter(|capability| self.has(*capability))).finish()
    }
}

/// What the host calls of one call of a plugin may come to, over all its capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCallLimits {
    /// Calls of capabilities that wait or hand out secrets.
    pub calls: u32,
    /// Calls that record metrics.
    pub metric_calls: u32,
    /// Bytes handed over, either way.
    pub bytes: u64,
    /// Waiting, summed up. It costs the guest no CPU time, but for the slice in which it falls.
    pub wait: Duration,
}

impl Default for HostCallLimits {
    fn default() -> Self {
        Self { calls: 64, metric_calls: 256, bytes: 4 * 1_024 * 1_024, wait: Duration::from_secs(10) }
    }
}
