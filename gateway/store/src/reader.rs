//! Reading the store, beside the gateway that writes it or after it.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use crate::database::{BUSY_TIMEOUT, Database};
use crate::error::{Doing, StoreError};
use crate::schema;

/// Most questions answered at the same time; the rest waits.
const MAX_CONNECTIONS: u32 = 4;
/// How long a question waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers questions about what is stored. Never writes, and never makes a writer wait.
///
/// The questions: [`list`](Self::list), [`count`](Self::count) and [`show`](Self::show) for dead letters.
#[derive(Debug, Clone)]
pub struct Reader {
    database: Database,
    pool: SqlitePool,
}

impl Reader {
    /// Opens the store in `data_dir` to read only.
    ///
    /// # Errors
    /// `Missing` when no gateway has used the folder yet; `Newer`, `Older`, `Foreign` or `Damaged` when the file cannot
    /// be understood; `NotPermitted` when this user may not read it.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let database = Database::find(data_dir, BUSY_TIMEOUT).await?;
        let doing = database.doing("open the database");
        let mut connection = database.reading().connect().await.map_err(|error| doing.failed(&error))?;
        schema::check(&mut connection, &database).await?;
        connection.close().await.map_err(|error| doing.failed(&error))?;
        Ok(Self::new(database))
    }

    /// Connects when it is first asked; the schema is known to be right.
    pub(crate) fn new(database: Database) -> Self {
        let options: SqliteConnectOptions = database.reading();
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(TURN_TIMEOUT)
            .connect_lazy_with(options);
        Self { database, pool }
    }

    /// Closes its connections; questions asked later fail. The write-ahead log stays behind if a reader is the last to
    /// close the file; that is in order, the next writer takes it in.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    pub(crate) fn doing(&self, doing: &'static str) -> Doing<'_> {
        self.database.doing(doing)
    }
}
