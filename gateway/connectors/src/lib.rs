//! Connectors: one folder per system, each with its settings, source and target. None loops, retries or reconnects; the
//! engine's drivers do.

pub mod cloudevents;
pub mod envelope;
pub mod file;
pub mod generate;
mod header_list;
pub mod http;
pub mod json_lines;
pub mod json_text;
pub mod quantity;
pub mod queue;
pub mod rabbitmq;
mod redelivery;
pub mod redis;
pub mod registry;
pub mod stdio;

#[cfg(test)]
mod arbitrary;
