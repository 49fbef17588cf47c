//! What the store promises, whichever database keeps it: each test of [`both::both`] runs on SQLite and on PostgreSQL.

#![allow(clippy::unwrap_used, reason = "tests")]

mod both;
mod changes;
mod dead_letters;
mod faults;
mod gateways;
mod inbox;
mod inbox_flow;
mod queues;
mod receipts;
mod redrive;
mod state;
mod vault;
