//! The engine: how a message gets from a source through steps to targets, and what happens when something fails.
//!
//! Read [`pipeline`] first: `Pipeline::carry` is a message's whole way, and `trip.rs` has the one function that decides
//! what a failure leads to. Connectors implement [`source`] and [`target`], plugins and schemas implement [`step`],
//! stores implement [`dead_letter`].
//!
//! Architecture invariant: this crate names no broker, no HTTP, no YAML and no wasmtime; a test reads its manifest.

mod assembly;
mod blueprint;
pub mod breaker;
pub mod dead_letter;
pub mod deduplication;
pub mod delivery;
pub mod failure;
mod flow;
pub mod inbox;
mod journal;
pub mod lanes;
pub mod link;
pub mod memory;
pub mod message;
mod meters;
mod parked_keys;
pub mod pipeline;
pub mod receipt;
pub mod retry;
pub mod source;
mod source_driver;
pub mod step;
pub mod target;
pub mod target_driver;
mod trip;
