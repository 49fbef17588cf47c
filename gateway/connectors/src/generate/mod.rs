//! The `generate` connector: made-up messages at a steady rate, for trials. Texts are templates: see [`template`].

mod config;
mod pace;
mod source;
pub mod template;

pub use config::SourceConfig;
pub use source::GenerateSource;
