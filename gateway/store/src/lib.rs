//! The embedded store: SQLite in the gateway's data folder, nothing else to install.
//!
//! [`Store`] is what a running gateway has: it writes, and answers only once a record is on the disk (write-ahead log,
//! `synchronous=FULL`). Records of many messages share one transaction and one fsync (group commit).
//! [`Reader`] reads, from another process too, while the gateway runs and after it has stopped.
//!
//! Architecture invariant: SQL and stored forms stay in this crate. The engine's types do not know how they are kept;
//! [`dead_letter`] converts.

#![forbid(unsafe_code)]

mod database;
pub mod dead_letter;
mod error;
pub mod queue;
mod reader;
mod schema;
mod store;
mod writer;

pub use database::STORE_FILE;
pub use error::StoreError;
pub use reader::Reader;
pub use store::Store;
