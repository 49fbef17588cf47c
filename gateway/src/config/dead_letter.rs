//! Dead letters in a broker, until the RabbitMQ connector's own settings are there.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_connectors::quantity::Secret;

/// A RabbitMQ exchange that gets dead letters.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqDeadLetterConfig {
    /// The broker, when it is not the source's or a target's.
    pub url: Option<Secret>,
    /// The exchange.
    pub exchange: String,
}
