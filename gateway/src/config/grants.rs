//! What a plugin is granted, resolved.

use std::fmt::Write as _;

use sluicegate_connectors::http::outgoing::OutgoingConfig;
use sluicegate_connectors::quantity::Secret;

pub use super::written::MetricKind;

/// What a plugin may do beside looking at its message and logging. By default nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GrantsConfig {
    /// Key-value state of at most so many bytes.
    pub state_bytes: Option<u64>,
    /// Outgoing HTTP.
    pub http: Option<OutgoingConfig>,
    /// Secrets by name, at most 32.
    pub secrets: Vec<(String, Secret)>,
    /// Metrics of its own, at most 32.
    pub metrics: Vec<MetricConfig>,
}

/// A metric of a plugin's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricConfig {
    /// As the plugin calls it.
    pub name: String,
    /// What its values mean.
    pub kind: MetricKind,
    /// Labels, each with the values it may have.
    pub labels: Vec<(String, Vec<String>)>,
}

impl GrantsConfig {
    /// Whether the capability of that name is granted.
    pub fn has(&self, name: &str) -> bool {
        match name {
            "state" => self.state_bytes.is_some(),
            "http" => self.http.is_some(),
            "secrets" => !self.secrets.is_empty(),
            "metrics" => !self.metrics.is_empty(),
            _ => false,
        }
    }

    /// All of it as one text, secrets included: only to be hashed.
    pub(crate) fn identity(&self) -> String {
        let mut identity = format!("{:?} {:?} {:?}", self.state_bytes, self.http, self.metrics);
        for (name, secret) in &self.secrets {
            // Writing to a string does not fail.
            write!(identity, " {name:?}={:?}", secret.expose()).unwrap_or_default();
        }
        identity
    }
}
