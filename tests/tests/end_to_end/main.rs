//! The gateway as its users meet it: faults of everything around it, bad input, reload, and the examples.

mod backlog;
mod backup;
mod bad_input;
mod claims;
mod clients;
mod credentials;
mod durability;
mod examples;
mod fates;
mod faults;
mod identity;
mod full_disk;
mod lost_store;
mod order;
mod plugin_cli;
mod posting;
mod queues;
mod raw_client;
mod redis_queues;
mod redis_queue;
mod redrive;
mod reload;
mod schedule;
