//! The connectors against real servers, and the rules between the crates.

mod architecture;
mod rabbitmq;
mod redis;
