//! What the store promises, whichever database keeps it: each test of [`both::both`] runs on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "tests")]

mod backlog;
mod both;
mod changes;
mod clocks;
mod dead_letters;
mod faults;
mod gateways;
mod identity;
mod inbox;
mod inbox_flow;
mod queues;
mod receipts;
mod redrive;
mod resources;
mod retention;
mod sigkill;
mod tls;
mod unreadable;
mod vault;
