//! The `rabbitmq` connector: queues as sources, exchanges and queues as targets, dead letters. AMQP 0-9-1.
//!
//! [`config`] has the settings, `mapping` how messages look on either side, `delay` where messages wait for a retry.
//!
//! Known limits: a message whose `type`, `message_id` or header *name* is not UTF-8 cannot be parsed by the client
//! library, which ends the connection on it; values of headers may be any bytes.

mod checks;
pub mod config;
mod dead_letter;
pub mod declaration;
mod delay;
mod diagnosis;
mod endpoint;
mod mapping;
mod publisher;
mod refusal;
mod routing_key;
mod settler;
mod source;
mod target;
mod topology;

pub use config::{DeadLetterConfig, SourceConfig, TargetConfig};
pub use dead_letter::RabbitmqDeadLetters;
pub use endpoint::TlsConfig;
pub use source::RabbitmqSource;
pub use target::RabbitmqTarget;
