//! What the contract suite (`tests/tests/store`) needs to see and to do inside a store. Not part of the gateway.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection};
use crate::error::StoreError;
use crate::leases::LEASE_TERM;
use crate::reader::Question;
use crate::store::Store;
use crate::vault::DEFAULT_TENANT;

pub use crate::clock::Clock;

/// After how long a gateway that writes nothing is dead.
pub const TERM: Duration = LEASE_TERM;

/// Announced when a dead gateway's claims have been released.
pub const RELEASED: &str = crate::leases::RELEASED;

/// The store's clock, to be set.
pub fn clock(store: &Store) -> Clock {
    store.reader().database().clock().clone()
}

struct Announce(String);

#[async_trait]
impl Change for Announce {
    type Output = ();

    fn size_bytes(&self) -> usize {
        self.0.len()
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        transaction.announce(self.0.as_str());
        Ok(())
    }
}

struct Claim;

#[async_trait]
impl Change for Claim {
    type Output = String;

    fn size_bytes(&self) -> usize {
        1
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<String, StoreError> {
        Ok(transaction.owner().as_str().to_owned())
    }
}

struct Gateways;

#[async_trait]
impl Question for Gateways {
    type Output = Vec<String>;

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<String>, StoreError> {
        connection.query("SELECT id FROM gateways ORDER BY id", &[]).await?.iter().map(|row| row.text(0)).collect()
    }
}

/// A statement without values, as a change.
struct Execute(String);

#[async_trait]
impl Change for Execute {
    type Output = u64;

    fn size_bytes(&self) -> usize {
        self.0.len()
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u64, StoreError> {
        transaction.execute(&self.0, &[]).await
    }
}

/// The same as a question.
struct Select(String);

#[async_trait]
impl Question for Select {
    type Output = i64;

    async fn ask(&self, connection: &mut Connection) -> Result<i64, StoreError> {
        match connection.query_first(&self.0, &[]).await? {
            Some(row) => row.integer(0),
            None => Err(connection.failed("no row")),
        }
    }
}

/// Whether other gateways can use the same store.
pub fn is_shared(store: &Store) -> bool {
    store.backend() == Backend::Postgres
}

/// A body as inboxes and queues once kept it: bound to nothing.
///
/// # Errors
/// As [`Vault::seal`](crate::vault::Vault::seal).
pub fn seal_unbound(store: &Store, body: &[u8]) -> Result<Bytes, StoreError> {
    store.vault().seal(DEFAULT_TENANT, body, false, &[])
}

/// Commits a change that announces `topic`.
///
/// # Errors
/// What is wrong with the store.
pub async fn announce(store: &Store, topic: &str) -> Result<(), StoreError> {
    store.change(Announce(topic.to_owned())).await
}

/// Waits for news of `topic`.
pub fn subscribe(store: &Store, topic: &str) -> watch::Receiver<u64> {
    store.signals().subscribe(topic)
}

/// Commits a change that claims, and returns under which name.
///
/// # Errors
/// What is wrong with the store.
pub async fn claim(store: &Store) -> Result<String, StoreError> {
    store.change(Claim).await
}

/// The name under which the store would claim.
pub fn owner(store: &Store) -> String {
    store.owner().as_str().to_owned()
}

/// All gateways that are taken for alive.
///
/// # Errors
/// What is wrong with the store.
pub async fn gateways(store: &Store) -> Result<Vec<String>, StoreError> {
    store.ask(Gateways).await
}

/// Commits a statement and says how many rows it changed.
///
/// # Errors
/// What is wrong with the statement or the store.
pub async fn execute(store: &Store, sql: &str) -> Result<u64, StoreError> {
    store.change(Execute(sql.to_owned())).await
}

/// The number a query answers with.
///
/// # Errors
/// What is wrong with the query or the store.
pub async fn select(store: &Store, sql: &str) -> Result<i64, StoreError> {
    store.ask(Select(sql.to_owned())).await
}
