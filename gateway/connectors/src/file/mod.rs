//! The `file` connector.

mod config;
mod source;
mod target;

pub use config::SourceConfig;
pub use config::TargetConfig;
pub use source::FileSource;
pub use target::FileTarget;
