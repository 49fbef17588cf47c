//! SQLite: one file in the data folder.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, OpenFlags};

use super::value::{Row, Value};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::place::Place;
use crate::vault::Vault;

/// Name of the database's file in the data folder. SQLite keeps its write-ahead log and shared memory beside it, under
/// the same name with `-wal` and `-shm`; the three belong together.
pub const STORE_FILE: &str = "sluicegate.sqlite";

/// In a data folder while a backup is being restored to it.
pub(crate) const UNFINISHED_FILE: &str = "restore.unfinished";

/// How long one process waits for another one's lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries where SQLite itself does not wait.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// The write-ahead log is cut back to this size after it has grown.
const JOURNAL_LIMIT_BYTES: u64 = 64 << 20;
/// Prepared statements a connection keeps.
const CACHED_STATEMENTS: usize = 256;

/// A database file and how long to wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    pub path: PathBuf,
    pub place: Place,
    pub busy_timeout: Duration,
    pub vault: Arc<Vault>,
    pub clock: Clock,
}

impl Sqlite {
    fn new(path: PathBuf, busy_timeout: Duration) -> Self {
        let place = Place::file(&path);
        let vault = Arc::new(Vault::new(place.clone(), None));
        Self { place, path, busy_timeout, vault, clock: Clock::default() }
    }

    /// Makes the folder (0700) and the file (0600) where they are missing. Others than the gateway's user have no
    /// business with messages; what is there already keeps the permissions its operator gave it. Blocks.
    pub fn create(data_dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        refuse_unfinished(data_dir)?;
        create_files(data_dir).map(|path| Self::new(path, busy_timeout))
    }

    /// The file in `data_dir`, which must be there. Blocks.
    pub fn find(data_dir: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        refuse_unfinished(data_dir)?;
        let path = data_dir.join(STORE_FILE);
        match fs::canonicalize(&path) {
            Ok(path) => Ok(Self::new(path, busy_timeout)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::Missing { place: Place::file(path) }),
            Err(error) => Err(StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() }),
        }
    }

    /// Connects to write: every commit is on the disk when it returns. Turning an empty file into a write-ahead-logged
    /// database needs a lock for which SQLite does not wait, so that a second process opening at the same moment is
    /// refused: wait here.
    #[expect(clippy::disallowed_methods, reason = "on a thread for what blocks")]
    pub fn connect_writing(&self) -> Result<SqliteConnection, StoreError> {
        let give_up = Instant::now() + self.busy_timeout;
        loop {
            match self.try_connect_writing() {
                Err(StoreError::Locked { .. }) if Instant::now() < give_up => std::thread::sleep(BUSY_PAUSE),
                connected => return connected,
            }
        }
    }

    fn try_connect_writing(&self) -> Result<SqliteConnection, StoreError> {
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Only at its creation can a database be told to give room back later (retention), and before it has a log.
        connection.batch(&format!(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}; PRAGMA foreign_keys = ON"
        ))?;
        Ok(connection)
    }

    /// Connects to read only.
    pub fn connect_reading(&self) -> Result<SqliteConnection, StoreError> {
        self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(&self, mode: OpenFlags) -> Result<SqliteConnection, StoreError> {
        let doing = "open the database";
        let open = || {
            let inner = rusqlite::Connection::open_with_flags(&self.path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            inner.busy_timeout(self.busy_timeout)?;
            inner.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
            Ok(inner)
        };
        match open() {
            Ok(inner) => Ok(SqliteConnection { inner, sqlite: self.clone(), doing }),
            Err(error) => Err(self.failed(doing, &error)),
        }
    }

    /// Sorts an error of SQLite by what to do about it.
    pub fn failed(&self, doing: &'static str, error: &rusqlite::Error) -> StoreError {
        let place = self.place.clone();
        let cause = match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            other => other.to_string(),
        };
        // Primary result codes, without the extension in the upper bytes: https://www.sqlite.org/rescode.html
        match error.sqlite_error().map(|code| code.extended_code & 0xff) {
            Some(3 | 8 | 14 | 23) => StoreError::NotPermitted { place, doing, cause },
            Some(5 | 6) => StoreError::Locked { place, doing, waited: self.busy_timeout },
            Some(11 | 26) => StoreError::Damaged { place, doing, cause },
            Some(13) => StoreError::Full { place, doing },
            Some(_) | None => StoreError::Database { place, doing, cause },
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct SqliteConnection {
    inner: rusqlite::Connection,
    sqlite: Sqlite,
    pub doing: &'static str,
}

impl SqliteConnection {
    pub fn place(&self) -> &Place {
        &self.sqlite.place
    }

    pub fn clock(&self) -> &Clock {
        &self.sqlite.clock
    }

    pub fn execute(&mut self, sql: &str, arguments: &[Value]) -> Result<u64, StoreError> {
        let run = || {
            let mut statement = self.inner.prepare_cached(&numbered(sql))?;
            bind(&mut statement, arguments)?;
            statement.raw_execute()
        };
        run().map(|changed| changed as u64).map_err(|error| self.sqlite.failed(self.doing, &error))
    }

    pub fn query(&mut self, sql: &str, arguments: &[Value]) -> Result<Vec<Row>, StoreError> {
        let run = || {
            let mut statement = self.inner.prepare_cached(&numbered(sql))?;
            bind(&mut statement, arguments)?;
            let columns = statement.column_count();
            let mut found = statement.raw_query();
            let mut rows = Vec::new();
            while let Some(row) = found.next()? {
                let values = (0..columns).map(|column| own(row.get_ref(column)?, column)).collect::<Result<_, _>>()?;
                rows.push(Row {
                    values,
                    place: self.sqlite.place.clone(),
                    doing: self.doing,
                    vault: Arc::clone(&self.sqlite.vault),
                });
            }
            Ok(rows)
        };
        run().map_err(|error| self.sqlite.failed(self.doing, &error))
    }

    pub fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.inner.execute_batch(sql).map_err(|error| self.sqlite.failed(self.doing, &error))
    }

    /// Whether no transaction is open: some failures end it by themselves.
    pub fn is_idle(&self) -> bool {
        self.inner.is_autocommit()
    }

    pub fn close(self) -> Result<(), StoreError> {
        let Self { inner, sqlite, .. } = self;
        inner.close().map_err(|(_, error)| sqlite.failed("close the database", &error))
    }
}

/// A restoration that was interrupted may have left no store there, or half of one.
fn refuse_unfinished(data_dir: &Path) -> Result<(), StoreError> {
    if data_dir.join(UNFINISHED_FILE).exists() {
        return Err(StoreError::Unfinished { path: data_dir.to_owned() });
    }
    Ok(())
}

/// `$3` is a parameter's name to SQLite, numbered by where it stands, and looking names up costs more than all else where
/// there are thousands of them; `?3` is the third parameter, wherever it stands.
fn numbered(sql: &str) -> String {
    let mut numbered = sql.to_owned().into_bytes();
    for at in 1..numbered.len() {
        if numbered[at - 1] == b'$' && numbered[at].is_ascii_digit() {
            numbered[at - 1] = b'?';
        }
    }
    // One ASCII character took the place of another.
    String::from_utf8(numbered).unwrap_or_default()
}

fn bind(statement: &mut CachedStatement<'_>, arguments: &[Value]) -> rusqlite::Result<()> {
    let wanted = statement.parameter_count();
    if wanted > arguments.len() {
        return Err(rusqlite::Error::InvalidParameterCount(arguments.len(), wanted));
    }
    for (index, argument) in arguments[..wanted].iter().enumerate() {
        statement.raw_bind_parameter(
            index + 1,
            ToSqlOutput::Borrowed(match argument {
                Value::Null => ValueRef::Null,
                Value::Integer(number) => ValueRef::Integer(*number),
                Value::Text(text) => ValueRef::Text(text.as_bytes()),
                Value::Bytes(bytes) => ValueRef::Blob(bytes),
            }),
        )?;
    }
    Ok(())
}

fn own(value: ValueRef<'_>, column: usize) -> rusqlite::Result<Value> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        // Nothing of ours is one; a CAST is missing.
        ValueRef::Real(_) => {
            return Err(rusqlite::Error::InvalidColumnType(column, "a real number".to_owned(), value.data_type()));
        }
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(error) => return Err(rusqlite::Error::Utf8Error(column, error)),
        },
        ValueRef::Blob(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes)),
    })
}

/// Returns the file's path, absolute: SQLite would take a relative one that begins with `file:` as a URI.
fn create_files(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let refused = |error: std::io::Error| StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() };
    let folder = create_folder(data_dir)?;
    let path = folder.join(STORE_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == ErrorKind::PermissionDenied || error.kind() == ErrorKind::ReadOnlyFilesystem => {
            let place = Place::file(path);
            Err(StoreError::NotPermitted { place, doing: "write", cause: error.to_string() })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Makes the folder where it is missing and returns its absolute path.
pub(crate) fn create_folder(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let refused = |error: std::io::Error| StoreError::Folder { path: data_dir.to_owned(), cause: error.to_string() };
    let is_new = !data_dir.exists();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(data_dir).map_err(refused)?;
    let folder = fs::canonicalize(data_dir).map_err(refused)?;
    // SQLite syncs the folder for its own files; the name of a new folder is for us to make durable.
    if let Some(parent) = folder.parent().filter(|_| is_new) {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(refused)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_by_their_number_wherever_it_stands() {
        let connection = rusqlite::Connection::open_in_memory().expect("a database");
        let mut statement = connection.prepare_cached(&numbered("SELECT $2, $10, $1, $2")).expect("a statement");
        let arguments: Vec<Value> = (1_i64..=11).map(Value::from).collect();
        assert!(bind(&mut statement, &arguments[..9]).is_err(), "the tenth is missing");
        bind(&mut statement, &arguments).expect("bound");
        let mut rows = statement.raw_query();
        let row = rows.next().expect("a row").expect("one row");
        let found: Vec<i64> = (0..4).map(|column| row.get(column).expect("a number")).collect();
        assert_eq!(found, [2, 10, 1, 2]);
    }
}
