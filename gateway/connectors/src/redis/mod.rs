//! The `redis` connector: a Redis Stream, read as a consumer group and written with XADD.
//!
//! How entries become messages and back: [`mapping`]. How a source keeps, takes over and gives back entries: see
//! [`RedisSource`].

mod claims;
mod config;
mod durability;
mod in_flight;
mod inlet;
pub mod mapping;
mod reply;
mod server;
mod settler;
mod source;
pub mod stream;
mod target;

pub use config::{SourceConfig, Start, TargetConfig, Tls};
pub use reply::EntryId;
pub use source::RedisSource;
pub use target::RedisTarget;
