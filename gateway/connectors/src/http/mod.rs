//! The `http` connector.

mod config;
mod source;
mod target;

pub use config::SourceConfig;
pub use config::TargetConfig;
pub use source::HttpSource;
pub use target::HttpTarget;

/// Where HTTP sources announce their paths.
#[derive(Debug, Clone, Default)]
pub struct Ingress {}
