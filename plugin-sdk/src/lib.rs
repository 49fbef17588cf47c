//! Write Sluicegate filters, transforms and routers in Rust.
//!
//! A plugin is a struct made from its configuration ([`Plugin`]) that has one or several roles ([`Filter`],
//! [`Transform`], [`Router`]); [`export!`] makes a WebAssembly component of it. The same code compiles natively, where a
//! `MessageBuilder` makes the messages, so that a plugin is tested by plain `cargo test`:
//!
//! ```
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//! use sluicegate_plugin::{Destination, Failure, Message, Plugin, Reason, Router, log, schema_of};
//!
//! /// Sends large orders to their region, and all others to one target.
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// Orders of at least this total are large.
//!     threshold: u64,
//!     /// Target of the others.
//!     others: String,
//! }
//!
//! struct RegionRouter(Config);
//!
//! impl Plugin for RegionRouter {
//!     type Config = Config;
//!
//!     fn config_schema() -> String {
//!         schema_of::<Config>()
//!     }
//!
//!     // Once, when a pipeline is built.
//!     fn configure(config: Config) -> Result<Self, Vec<Reason>> {
//!         let mut mistakes = Vec::new();
//!         if config.threshold == 0 {
//!             mistakes.push(Reason::new("invalid_config", "/threshold: must be more than 0"));
//!         }
//!         if mistakes.is_empty() { Ok(Self(config)) } else { Err(mistakes) }
//!     }
//! }
//!
//! impl Router for RegionRouter {
//!     // For every message; the body is parsed by the gateway, once, and only the values asked for are copied.
//!     fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
//!         let Some(total) = message.value::<u64>("/total")? else {
//!             return Err(Failure::reject("no_total", "the order has no total"));
//!         };
//!         if total < self.0.threshold {
//!             return Ok(vec![Destination::to(&self.0.others)]);
//!         }
//!         let region = message.header("region").unwrap_or_else(|| "eu".to_owned());
//!         log::info(format!("a large order for {region}"));
//!         Ok(vec![Destination::to(region).key("large")])
//!     }
//! }
//!
//! sluicegate_plugin::export!(RegionRouter: Router);
//!
//! # fn main() {
//! // In a test:
//! use sluicegate_plugin::MessageBuilder;
//!
//! let router = RegionRouter::configure(Config { threshold: 100, others: "rest".to_owned() }).unwrap();
//! let large = MessageBuilder::new().header("region", "us").json(&serde_json::json!({ "total": 120 })).build();
//! assert_eq!(router.route(&large), Ok(vec![Destination::to("us").key("large")]));
//! let unknown = MessageBuilder::new().json(&serde_json::json!({})).build();
//! assert_eq!(router.route(&unknown).unwrap_err().reason().code, "no_total");
//! # }
//! ```
//!
//! # Building
//! A plugin is a crate of type `cdylib` (and `rlib`, for its tests) built for `wasm32-wasip2` by Rust 1.85 or later:
//! `cargo build --release --target wasm32-wasip2`, or `sluicegate plugin build`.
//!
//! # What a plugin may do
//! Look at its message, answer, and log. It has no files, network or environment; time and randomness are derived from
//! the message, so that a replay is exact. Crates that touch files or sockets make a component import them, and the
//! gateway refuses it with the import's name.
//!
//! A call has limits (by default 50 ms of CPU, 16 MiB of memory, 1 MiB of output); one that passes them, or panics, fails
//! its message alone. The text of a panic goes to the log. By default every message meets a fresh copy of the configured
//! plugin, so what a call leaves in memory is gone at the next: keep nothing there but what `configure` made.
//!
//! # Grants
//! What goes beyond that has to be granted by the operator, and is asked for by a cargo feature: `state` (key-value state
//! of the plugin's own), `http` (outgoing requests to listed hosts), `secrets` (by name), `metrics` (of declared names). A
//! plugin without these features imports none of it; one that imports what it is not granted is refused, with the grant
//! that would help. Each has a double for native tests. What a granted call answers is not part of the message, so it is
//! the exception to exact replays.
//!
//! Features: `schemars` (default) for `schema_of`; `state`, `http`, `secrets`, `metrics`.

// The generated bindings name this crate the way a plugin does.
extern crate self as sluicegate_plugin;

mod configuration;
mod contract;
mod export;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(not(target_family = "wasm"))]
mod native;
mod outcome;
pub mod pointer;
mod role;
#[cfg(feature = "secrets")]
pub mod secrets;
#[cfg(feature = "state")]
pub mod state;

#[cfg(feature = "schemars")]
pub use configuration::schema_of;
#[cfg(target_family = "wasm")]
pub use contract::messages::{Draft, Message};
pub use contract::outcomes::{Destination, Failure, Postponement, Reason, Verdict};
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
