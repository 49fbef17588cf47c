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
mod full_disk;
mod identity;
mod lost_store;
mod order;
mod plugin_cli;
mod posting;
mod queues;
mod raw_client;
mod redis_queue;
mod redis_queues;
mod redrive;
mod reload;
mod schedule;
