//! (docs follow)

// The generated bindings name this crate the way a plugin does.
extern crate self as sluicegate_plugin;

mod configuration;
mod contract;
mod export;
pub mod log;
mod message;
#[cfg(not(target_family = "wasm"))]
mod native;
mod outcome;
pub mod pointer;
mod role;

#[cfg(feature = "schemars")]
pub use configuration::schema_of;
pub use contract::outcomes::{Destination, Failure, Postponement, Reason, Verdict};
#[cfg(target_family = "wasm")]
pub use contract::messages::{Draft, Message};
#[cfg(not(target_family = "wasm"))]
pub use native::{Draft, Message, MessageBuilder};
pub use role::{Filter, Plugin, Router, Transform};

/// What [`export!`] expands to; not for direct use.
#[doc(hidden)]
pub mod __private {
    pub use crate::contract::{filtering, lifecycle, routing, transforming};
    pub use crate::export::Slot;
    pub use wit_bindgen::rt;
}
