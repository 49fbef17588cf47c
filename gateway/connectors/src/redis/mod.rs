//! The `redis` connector.

mod config;
mod source;
mod target;

pub use config::SourceConfig;
pub use config::TargetConfig;
pub use source::RedisSource;
pub use target::RedisTarget;
