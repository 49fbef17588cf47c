//! The `http` connector over real TCP connections: each status, each kind of bad client, reload, webhooks.

#![allow(clippy::unwrap_used, reason = "all of this crate is tests")]

mod bad_clients;
mod client;
mod durable;
mod events;
mod idempotent;
mod outcomes;
mod pipeline;
mod reload;
mod server;
mod spool;
mod waiting;
mod webhook;
mod webhook_tls;
