//! The store, in one of two databases: SQLite embedded in the gateway's data folder, nothing else to install, or a
//! PostgreSQL that several gateways share.
//!
//! [`Store`] is what a running gateway has: it writes, and answers only once a change is on the disk (SQLite: write-ahead
//! log, `synchronous=FULL`). Changes of many messages share one transaction and one fsync (group commit).
//! [`Reader`] reads, from another process too, while gateways run and after they have stopped.
//!
//! Inside, a module writes by a `Change` and reads by a `Question`: plain SQL, written once for both databases. Waiting
//! for news is `signals`, claiming work `leases`.
//!
//! The drivers are `rusqlite` and `tokio-postgres`, not `sqlx` for both: measured here, SQLite, rows of 1 KiB in
//! transactions of 128, `rusqlite` inserts a row in 5.6 µs and reads and deletes one in 4.9 µs; `sqlx` takes 77 µs and
//! 82 µs (9.9 µs for rows of one INSERT), because each statement travels to another thread and back.
//!
//! Architecture invariant: SQL and stored forms stay in this crate. The engine's types do not know how they are kept;
//! [`dead_letter`] converts.

#![forbid(unsafe_code)]

pub mod api_key;
pub mod audit;
pub mod backup;
mod body;
mod change;
mod clock;
mod database;
pub mod dead_letter;
pub mod deduplication;
mod drive;
mod error;
mod expiry;
pub mod idempotency;
pub mod inbox;
mod leases;
mod opening;
mod options;
mod place;
pub mod queue;
mod reader;
pub mod receipt;
pub mod redrive;
pub mod resource;
mod schema;
mod signals;
mod store;
mod stored_message;
pub mod tenant;
#[cfg(feature = "testing")]
pub mod testing;
pub mod vault;
mod writer;

pub use database::STORE_FILE;
pub use error::StoreError;
pub use options::StoreOptions;
pub use place::{DatabaseUrl, Location, Place};
pub use reader::Reader;
pub use store::Store;
