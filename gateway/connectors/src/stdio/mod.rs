//! The `stdio` connector: standard input and output, a message a line as [`json_lines`](crate::json_lines) describes.

mod config;
mod source;
mod target;

pub use config::{SourceConfig, TargetConfig};
pub use source::StdioSource;
pub use target::StdioTarget;
