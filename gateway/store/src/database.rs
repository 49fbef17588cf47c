//! Where the database is and how it is opened.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use crate::error::{Doing, StoreError};

/// Name of the database's file in the data folder. SQLite keeps its write-ahead log and shared memory beside it, under
/// the same name with `-wal` and `-shm`; the three belong together.
pub const STORE_FILE: &str = "sluicegate.sqlite";

/// How long one process waits for another one's lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries where SQLite itself does not wait.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// The write-ahead log is cut back to this size after it has grown.
const JOURNAL_LIMIT_BYTES: &str = "67108864";

/// A database file and how long to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub path: PathBuf,
    pub busy_timeout: Duration,
}

impl Database {
    /// Makes the folder (0700) and the file (0600) where they are missing. Others than the gateway's user have no
    /// business with messages; what is there already keeps the permissions its operator gave it.
    pub async fn create(data_dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let wanted = data_dir.to_owned();
        let made = tokio::task::spawn_blocking(move || create_files(&wanted)).await;
        let path = match made {
            Ok(created) => created?,
            Err(panicked) => {
                return Err(StoreError::Folder { path: data_dir.to_owned(), cause: panicked.to_string() });
            }
        };
        Ok(Self { path, busy_timeout })
    }

    /// The file in `data_dir`, which must be there.
    pub async fn find(data_dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let path = data_dir.join(STORE_FILE);
        match tokio::fs::canonicalize(&path).await {
            Ok(path) => Ok(Self { path, busy_timeout }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Missing { path }),
            Err(error) => Err(StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() }),
        }
    }

    /// What is being done, for error texts.
    pub fn doing(&self, doing: &'static str) -> Doing<'_> {
        Doing { path: &self.path, doing, busy_timeout: self.busy_timeout }
    }

    /// To write: every commit is on the disk when it returns.
    pub fn writing(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(self.busy_timeout)
            // Only at its creation can a database be told to give room back later (retention).
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("journal_size_limit", JOURNAL_LIMIT_BYTES)
            .disable_statement_logging()
    }

    /// To read only.
    pub fn reading(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(self.busy_timeout)
            .read_only(true)
            .disable_statement_logging()
    }

    /// Connects to write. Turning an empty file into a write-ahead-logged database needs a lock for which SQLite does
    /// not wait, so that a second process opening at the same moment is refused: wait here.
    pub async fn connect_writing(&self) -> Result<SqliteConnection, StoreError> {
        let give_up = Instant::now() + self.busy_timeout;
        loop {
            match self.writing().connect().await {
                Ok(mut connection) => {
                    let ping = connection.ping().await;
                    return ping.map(|()| connection).map_err(|error| self.doing("open the database").failed(&error));
                }
                Err(error) => match self.doing("open the database").failed(&error) {
                    StoreError::Locked { .. } if Instant::now() < give_up => tokio::time::sleep(BUSY_PAUSE).await,
                    failed => return Err(failed),
                },
            }
        }
    }
}

/// Returns the file's path, absolute: SQLite would take a relative one that begins with `file:` as a URI.
fn create_files(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let refused = |error: std::io::Error| StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() };
    let is_new = !data_dir.exists();
    create_folder(data_dir).map_err(refused)?;
    let folder = fs::canonicalize(data_dir).map_err(refused)?;
    let path = folder.join(STORE_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied || error.kind() == ErrorKind::ReadOnlyFilesystem => {
            return Err(StoreError::NotPermitted { path, doing: "write", cause: error.to_string() });
        }
        Err(error) => return Err(refused(error)),
    }
    // SQLite syncs the folder for its own files; the name of a new folder is for us to make durable.
    if let Some(parent) = folder.parent().filter(|_| is_new) {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(refused)?;
    }
    Ok(path)
}

fn create_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
