//! Dead letters in a broker, as well as in the store: one enum and one match each, as the registry of connectors.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_connectors::rabbitmq;
use sluicegate_connectors::registry::{BuildContext, Problem, Promise, SourceConfig};
use sluicegate_engine::dead_letter::DeadLetters;

/// A broker that gets dead letters.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum DeadLetterConfig {
    /// A RabbitMQ exchange and a queue bound to it.
    Rabbitmq(rabbitmq::DeadLetterConfig),
}

impl DeadLetterConfig {
    /// The system's name, as in the configuration.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Rabbitmq(_) => "rabbitmq",
        }
    }

    /// All mistakes that show without I/O. `source` is the pipeline's, whose connection it may share.
    pub fn problems(&self, source: &SourceConfig) -> Vec<Problem> {
        match self {
            Self::Rabbitmq(config) => config.problems(rabbitmq_source(source)),
        }
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        match self {
            Self::Rabbitmq(config) => config.promise(),
        }
    }

    /// The broker, not yet connected. `source` is the pipeline's.
    pub fn build(&self, source: &SourceConfig, context: &BuildContext) -> Box<dyn DeadLetters> {
        match self {
            Self::Rabbitmq(config) => {
                Box::new(rabbitmq::RabbitmqDeadLetters::new(config, rabbitmq_source(source), context))
            }
        }
    }
}

fn rabbitmq_source(source: &SourceConfig) -> Option<&rabbitmq::SourceConfig> {
    match source {
        SourceConfig::Rabbitmq(source) => Some(source),
        SourceConfig::Http(_)
        | SourceConfig::Redis(_)
        | SourceConfig::File(_)
        | SourceConfig::Stdio(_)
        | SourceConfig::Queue(_)
        | SourceConfig::Generate(_) => None,
    }
}
