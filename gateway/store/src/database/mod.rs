//! Connections to either database, behind one face: statements are written once, with `$1` for values, and columns are
//! BIGINT or INTEGER, TEXT, and BYTEA or BLOB.
//!
//! What both understand and mean alike: `ON CONFLICT`, `RETURNING`, row values, `CAST(… AS BIGINT)` (PostgreSQL sums
//! numbers to a type of their own: cast), `lower`, `substr`, `LIKE … ESCAPE`. A value stands as often as it is needed
//! under its number. What differs (`FOR UPDATE SKIP LOCKED`) is chosen by [`Connection::backend`].

mod postgres;
mod sqlite;
mod tls;
mod value;

use std::sync::Arc;

pub(crate) use postgres::{CHANNEL, Postgres, PostgresConnection};
pub use sqlite::STORE_FILE;
pub(crate) use sqlite::{BUSY_TIMEOUT, Sqlite, SqliteConnection, UNFINISHED_FILE, create_folder};
pub(crate) use value::{Row, Value};

use crate::clock::Clock;
use crate::error::StoreError;
use crate::place::Place;
use crate::vault::{Encryption, Vault};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// How connections are made.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Database {
    pub fn place(&self) -> &Place {
        match self {
            Self::Sqlite(sqlite) => &sqlite.place,
            Self::Postgres(postgres) => &postgres.place,
        }
    }

    /// Opens and seals the bodies in it.
    pub fn vault(&self) -> &Arc<Vault> {
        match self {
            Self::Sqlite(sqlite) => &sqlite.vault,
            Self::Postgres(postgres) => &postgres.vault,
        }
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        match self {
            Self::Sqlite(sqlite) => &sqlite.clock,
            Self::Postgres(postgres) => &postgres.clock,
        }
    }

    /// With a vault that can have keys; they are read by [`vault::begin`](crate::vault::begin) or
    /// [`vault::reload`](crate::vault::reload).
    pub fn encrypted(mut self, encryption: Option<Encryption>) -> Self {
        let vault = Arc::new(Vault::new(self.place().clone(), encryption));
        match &mut self {
            Self::Sqlite(sqlite) => sqlite.vault = vault,
            Self::Postgres(postgres) => postgres.vault = vault,
        }
        self
    }

    pub fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// Connects to write. With SQLite this blocks the thread.
    pub async fn connect_writing(&self) -> Result<Connection, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.connect_writing().map(Connection::Sqlite),
            Self::Postgres(postgres) => postgres.connect(None).await.map(Connection::Postgres),
        }
    }

    /// Connects to read only. With SQLite this blocks the thread.
    pub async fn connect_reading(&self) -> Result<Connection, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.connect_reading().map(Connection::Sqlite),
            Self::Postgres(postgres) => {
                let mut connection = postgres.connect(None).await?;
                connection.batch("SET default_transaction_read_only = on").await?;
                Ok(Connection::Postgres(connection))
            }
        }
    }
}

/// A connection to either database. With SQLite its futures never wait, they block their thread.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PostgresConnection),
}

impl Connection {
    /// Runs a statement that answers no rows; returns how many it changed. The statement is prepared once.
    ///
    /// # Errors
    /// What the database says, sorted.
    pub async fn execute(&mut self, sql: &str, arguments: &[Value]) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(connection) => connection.execute(sql, arguments),
            Self::Postgres(connection) => connection.execute(sql, arguments).await,
        }
    }

    /// Runs a statement and returns all its rows: limit them. The statement is prepared once.
    ///
    /// # Errors
    /// What the database says, sorted.
    pub async fn query(&mut self, sql: &str, arguments: &[Value]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(connection) => connection.query(sql, arguments),
            Self::Postgres(connection) => connection.query(sql, arguments).await,
        }
    }

    /// The first row of a query's answer, if there is one.
    ///
    /// # Errors
    /// What the database says, sorted.
    pub async fn query_first(&mut self, sql: &str, arguments: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, arguments).await?.into_iter().next())
    }

    /// Runs statements without values, one after another, not prepared.
    ///
    /// # Errors
    /// What the database says, sorted.
    pub async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.batch(sql),
            Self::Postgres(connection) => connection.batch(sql).await,
        }
    }

    /// Milliseconds since the Unix epoch by this gateway's clock.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::Sqlite(connection) => connection.clock().now_ms(),
            Self::Postgres(connection) => connection.clock().now_ms(),
        }
    }

    /// Begins a transaction that will write.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        match self {
            // At once with the lock for writing: a transaction that asked for it later could not wait for it.
            Self::Sqlite(connection) => connection.execute("BEGIN IMMEDIATE", &[]).map(drop),
            Self::Postgres(connection) => connection.batch("BEGIN").await,
        }
    }

    /// Makes it durable.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.execute("COMMIT", &[]).map(drop),
            Self::Postgres(connection) => connection.batch("COMMIT").await,
        }
    }

    /// Undoes it.
    pub(crate) async fn roll_back(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) if connection.is_idle() => Ok(()),
            Self::Sqlite(connection) => connection.execute("ROLLBACK", &[]).map(drop),
            Self::Postgres(connection) => connection.batch("ROLLBACK").await,
        }
    }

    /// Which database this is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }

    /// What error texts say is being done.
    pub fn set_doing(&mut self, doing: &'static str) {
        match self {
            Self::Sqlite(connection) => connection.doing = doing,
            Self::Postgres(connection) => connection.doing = doing,
        }
    }

    /// Whether it is known to be of no more use.
    pub fn is_broken(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(connection) => connection.is_closed(),
        }
    }

    /// What contradicts this program's own statements.
    pub fn failed(&self, cause: impl Into<String>) -> StoreError {
        let (place, doing) = match self {
            Self::Sqlite(connection) => (connection.place(), connection.doing),
            Self::Postgres(connection) => (connection.place(), connection.doing),
        };
        StoreError::Database { place: place.clone(), doing, cause: cause.into() }
    }

    /// Ends it in order.
    pub async fn close(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => connection.close(),
            Self::Postgres(connection) => {
                connection.close().await;
                Ok(())
            }
        }
    }
}
