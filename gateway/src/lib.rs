//! The Sluicegate gateway: configuration, commands, and the wiring of engine, connectors, plugins and stores.

pub mod command;
pub mod config;
pub mod validation;
