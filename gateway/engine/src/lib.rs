//! The engine: how a message gets from a source through steps to targets, and what happens when something fails.
//!
//! Architecture invariant: this crate names no broker, no HTTP, no YAML and no wasmtime; `tests/src/architecture.rs`
//! reads its manifest and says so. Connectors implement [`source`] and [`target`], plugins and schemas implement
//! [`step`], stores implement [`dead_letter`]; [`pipeline`] is where they meet.

pub mod dead_letter;
pub mod delivery;
pub mod failure;
pub mod message;
pub mod source;
pub mod step;
pub mod target;
