//! The `rabbitmq` connector.

mod config;
mod source;
mod target;

pub use config::SourceConfig;
pub use config::TargetConfig;
pub use source::RabbitmqSource;
pub use target::RabbitmqTarget;
