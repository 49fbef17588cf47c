//! Connectors: one folder per system, each with its settings, source and target. None loops, retries or reconnects; the
//! engine's drivers do.

pub mod file;
pub mod generate;
pub mod http;
pub mod quantity;
pub mod rabbitmq;
pub mod redis;
pub mod registry;
pub mod stdio;
