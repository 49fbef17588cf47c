//! The `file` connector: JSON Lines as [`json_lines`](crate::json_lines) describes, read with a checkpoint and written
//! with fsync.

mod checkpoint;
mod config;
mod ledger;
mod source;
mod tail;
mod target;
mod writer;

pub use config::{SourceConfig, TargetConfig};
pub use source::FileSource;
pub use target::FileTarget;
