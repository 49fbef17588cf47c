//! The `generate` connector.

mod config;
mod source;

pub use config::SourceConfig;

pub use source::GenerateSource;
