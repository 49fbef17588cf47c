//! The gateway as its users meet it: faults of everything around it, bad input, reload, and the examples.

mod bad_input;
mod clients;
mod credentials;
mod durability;
mod examples;
mod faults;
mod identity;
mod plugin_cli;
mod queues;
mod raw_client;
mod redis_queues;
mod redrive;
mod reload;
