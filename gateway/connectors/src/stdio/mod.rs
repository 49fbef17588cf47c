//! The `stdio` connector.

mod config;
mod source;
mod target;

pub use config::SourceConfig;
pub use config::TargetConfig;
pub use source::StdioSource;
pub use target::StdioTarget;
