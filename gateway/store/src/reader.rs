//! Reading the store, beside the gateways that write it or after them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::database::{BUSY_TIMEOUT, Connection, Database, Postgres, Sqlite};
use crate::drive::drive;
use crate::error::StoreError;
use crate::options::StoreOptions;
use crate::place::Location;
use crate::schema;
use crate::vault;

/// Most questions answered at the same time; the rest waits.
const MAX_CONNECTIONS: usize = 4;
/// How long a question waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// Something to read, see [`Store::ask`](crate::Store::ask).
#[async_trait]
pub(crate) trait Question: Send + Sync + 'static {
    /// The answer.
    type Output: Send + 'static;

    /// For error texts: "cannot DOING in PLACE".
    fn doing(&self) -> &'static str {
        "read"
    }

    /// Reads; writing is refused. Awaits nothing but the connection. May be called again on another connection. Each
    /// statement sees what was committed when it began.
    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError>;
}

/// Answers questions about what is stored. Never writes, and never makes a writer wait.
///
/// The questions: [`list`](Self::list), [`count`](Self::count) and [`show`](Self::show) for dead letters.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    turns: Semaphore,
    /// Those that nobody uses; as many as there are turns at most.
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    /// Opens the store to read only.
    ///
    /// # Errors
    /// `Missing` when no gateway has used it yet; `Newer`, `Older`, `Foreign` or `Damaged` when it cannot be
    /// understood; `NotPermitted` or `Credentials` when this user may not read it; `Unreachable` where there is no
    /// server.
    pub async fn open(options: impl Into<StoreOptions>) -> Result<Self, StoreError> {
        let StoreOptions { location, encryption } = options.into();
        let (database, connection) = match location {
            Location::Embedded { data_dir } => {
                let opened = tokio::task::spawn_blocking(move || {
                    let database = Database::Sqlite(Sqlite::find(&data_dir, BUSY_TIMEOUT)?).encrypted(encryption);
                    drive(open(&database)).map(|connection| (database, connection))
                });
                joined(opened.await, "open the database")?
            }
            Location::Shared { url } => {
                let reading = tokio::task::spawn_blocking(move || Postgres::new(&url));
                let database = Database::Postgres(joined(reading.await, "read the store's URL")?).encrypted(encryption);
                let connection = open(&database).await?;
                (database, connection)
            }
        };
        let reader = Self::new(database);
        reader.keep(connection);
        Ok(reader)
    }

    /// Connects when it is first asked; the schema is known to be right.
    pub(crate) fn new(database: Database) -> Self {
        let turns = Semaphore::new(MAX_CONNECTIONS);
        Self { shared: Arc::new(Shared { database, turns, idle: Mutex::new(Vec::new()) }) }
    }

    /// What it reads.
    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    /// Asks. Waits for its turn, 30 s at most. Cancel safe.
    pub(crate) async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Output, StoreError> {
        let doing = question.doing();
        let turn = self.turn(doing).await?;
        match &self.shared.database {
            Database::Sqlite(_) => {
                // The thread keeps the turn, also when nobody waits for the answer any more.
                let reader = self.clone();
                turn.forget();
                let asking = tokio::task::spawn_blocking(move || {
                    let answered = drive(reader.answer(&question));
                    reader.shared.turns.add_permits(1);
                    answered
                });
                joined(asking.await, doing)
            }
            Database::Postgres(_) => self.answer(&question).await,
        }
    }

    async fn turn(&self, doing: &'static str) -> Result<SemaphorePermit<'_>, StoreError> {
        match tokio::time::timeout(TURN_TIMEOUT, self.shared.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(StoreError::Closed { doing }),
            Err(_) => Err(StoreError::Busy { place: self.shared.database.place().clone(), doing }),
        }
    }

    /// On a connection that is there, or else on a new one; a connection that has failed is not used again.
    async fn answer<Q: Question>(&self, question: &Q) -> Result<Q::Output, StoreError> {
        while let Some(mut connection) = self.idle() {
            if connection.is_broken() {
                continue;
            }
            connection.set_doing(question.doing());
            match self.put(question, &mut connection).await {
                // It broke while nobody used it.
                Err(StoreError::Unreachable { .. }) => {}
                answered => return self.done(connection, answered),
            }
        }
        let mut connection = self.shared.database.connect_reading().await?;
        connection.set_doing(question.doing());
        let answered = self.put(question, &mut connection).await;
        self.done(connection, answered)
    }

    /// Another gateway may have sealed a body with a key it has just made.
    async fn put<Q: Question>(&self, question: &Q, connection: &mut Connection) -> Result<Q::Output, StoreError> {
        match question.ask(connection).await {
            Err(error @ StoreError::UnknownKey { .. }) => {
                if !vault::reload(connection, self.shared.database.vault()).await? {
                    return Err(error);
                }
                connection.set_doing(question.doing());
                question.ask(connection).await
            }
            answered => answered,
        }
    }

    fn done<T>(&self, connection: Connection, answered: Result<T, StoreError>) -> Result<T, StoreError> {
        if answered.is_ok() {
            self.keep(connection);
        }
        answered
    }

    fn idle(&self) -> Option<Connection> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, connection: Connection) {
        if !self.shared.turns.is_closed() {
            self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// Closes its connections; questions asked later fail. SQLite's write-ahead log stays behind if a reader is the
    /// last to close the file; that is in order, the next writer takes it in.
    pub async fn close(&self) {
        self.shared.turns.close();
        while let Some(connection) = self.idle() {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection was not closed cleanly");
            }
        }
    }
}

async fn open(database: &Database) -> Result<Connection, StoreError> {
    let mut connection = database.connect_reading().await?;
    schema::check(&mut connection, database.place()).await?;
    vault::reload(&mut connection, database.vault()).await?;
    Ok(connection)
}

/// The end of work on another thread.
pub(crate) fn joined<T>(
    ended: Result<Result<T, StoreError>, tokio::task::JoinError>,
    doing: &'static str,
) -> Result<T, StoreError> {
    match ended {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, doing, "a thread of the store failed");
            Err(StoreError::Closed { doing })
        }
    }
}
