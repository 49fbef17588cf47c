//! The schema's versions. A migration, once released, is never changed: a new one is added.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::database::Database;
use crate::error::StoreError;

/// In order; the database's `user_version` says how many of them it has had.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001_dead_letters.sql")];

/// The version this program writes and reads.
const KNOWN_VERSION: i64 = MIGRATIONS.len() as i64;

/// Marks the file as ours: "SLGC".
const APPLICATION_ID: i64 = 0x534c_4743;

/// Brings the database up to date. Two processes may do so at once: the second waits and finds nothing left to do.
pub(crate) async fn migrate(connection: &mut SqliteConnection, database: &Database) -> Result<(), StoreError> {
    // Most starts find an up-to-date schema and need no lock.
    if current_version(connection, database).await? == KNOWN_VERSION {
        return Ok(());
    }
    let doing = database.doing("bring the schema up to date");
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| doing.failed(&error))?;
    let version = current_version(&mut transaction, database).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(|error| doing.failed(&error))?;
    }
    // Pragmas take no bound values; these are constants.
    let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {KNOWN_VERSION}");
    sqlx::raw_sql(AssertSqlSafe(marks)).execute(&mut *transaction).await.map_err(|error| doing.failed(&error))?;
    transaction.commit().await.map_err(|error| doing.failed(&error))?;
    if version < KNOWN_VERSION {
        tracing::info!(store = %database.path.display(), from = version, to = KNOWN_VERSION, "store brought up to date");
    }
    Ok(())
}

/// Refuses to read what this program's queries were not written for.
pub(crate) async fn check(connection: &mut SqliteConnection, database: &Database) -> Result<(), StoreError> {
    let found = current_version(connection, database).await?;
    let path = database.path.clone();
    match found {
        0 => Err(StoreError::Missing { path }),
        KNOWN_VERSION => Ok(()),
        _ => Err(StoreError::Older { path, found, known: KNOWN_VERSION }),
    }
}

/// 0 for an empty file.
async fn current_version(connection: &mut SqliteConnection, database: &Database) -> Result<i64, StoreError> {
    let read = "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
                (SELECT count(*) FROM sqlite_schema)";
    let doing = database.doing("read the schema's version");
    let row: SqliteRow = sqlx::query(read).fetch_one(connection).await.map_err(|error| doing.failed(&error))?;
    let column = |index: usize| row.try_get::<i64, _>(index).map_err(|error| doing.failed(&error));
    let (application, version, tables) = (column(0)?, column(1)?, column(2)?);
    let path = database.path.clone();
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(StoreError::Foreign { path });
    }
    if version > KNOWN_VERSION {
        return Err(StoreError::Newer { path, found: version, known: KNOWN_VERSION });
    }
    Ok(version)
}
