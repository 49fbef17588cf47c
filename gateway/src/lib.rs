//! The Sluicegate gateway: configuration, commands, and the wiring of engine, connectors, plugins and stores.
//!
//! [`config`] reads what the operator wrote, [`workshop`] makes parts of it, [`gateway`] runs them.

pub mod api;
pub mod bundled;
pub mod command;
pub mod config;
pub mod dead_letters;
mod fleet;
pub mod forecast;
pub mod gateway;
pub mod identity;
pub mod in_force;
pub mod queue_meters;
pub mod queues;
pub mod redriving;
mod schema_compatibility;
pub mod server;
pub mod spool;
pub mod store_options;
pub mod telemetry;
pub mod tenancy;
pub mod trace;
pub mod trial;
pub mod validation;
pub mod workshop;
