//! The schema's versions. A migration, once released, is never changed: a new one is added.

use crate::database::{Backend, Connection, Row};
use crate::error::StoreError;
use crate::place::Place;

/// The same step in either database's words.
struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migrations {
    ($($file:literal),+ $(,)?) => {
        [$(Migration {
            sqlite: include_str!(concat!("../migrations/sqlite/", $file, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $file, ".sql")),
        }),+]
    };
}

/// In order; the database's version says how many of them it has had.
static MIGRATIONS: &[Migration] = &migrations![
    "0001_dead_letters",
    "0002_gateways",
    "0003_inbox",
    "0004_queues",
    "0005_redrive",
    "0006_receipts",
    "0007_vault",
    "0008_set_aside",
    "0009_tenants",
    "0012_resources",
];

/// The version this program writes and reads.
pub(crate) const KNOWN_VERSION: i64 = MIGRATIONS.len() as i64;

/// Marks SQLite's file as ours: "SLGC". Also the number of the lock under which PostgreSQL's schema is changed.
const APPLICATION_ID: i64 = 0x534c_4743;

/// Brings the database up to date. Several processes may do so at once: the others wait and find nothing left to do.
pub(crate) async fn migrate(connection: &mut Connection, place: &Place) -> Result<(), StoreError> {
    // Most starts find an up-to-date schema and need no lock.
    if current_version(connection, place).await? == KNOWN_VERSION {
        return Ok(());
    }
    connection.set_doing("bring the schema up to date");
    connection.begin().await?;
    if connection.backend() == Backend::Postgres {
        connection.query("SELECT pg_advisory_xact_lock($1)", &[APPLICATION_ID.into()]).await?;
    }
    let version = current_version(connection, place).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        match connection.backend() {
            Backend::Sqlite => connection.batch(migration.sqlite).await?,
            Backend::Postgres => connection.batch(migration.postgres).await?,
        }
    }
    // Neither pragmas nor the definition of a table take values; these are constants.
    let marks = match connection.backend() {
        Backend::Sqlite => {
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {KNOWN_VERSION}")
        }
        Backend::Postgres => format!(
            "CREATE TABLE IF NOT EXISTS sluicegate_schema (version BIGINT NOT NULL); DELETE FROM sluicegate_schema; \
             INSERT INTO sluicegate_schema (version) VALUES ({KNOWN_VERSION})"
        ),
    };
    connection.batch(&marks).await?;
    connection.commit().await?;
    if version < KNOWN_VERSION {
        tracing::info!(store = %place, from = version, to = KNOWN_VERSION, "store brought up to date");
    }
    Ok(())
}

/// Refuses to read what this program's queries were not written for.
pub(crate) async fn check(connection: &mut Connection, place: &Place) -> Result<(), StoreError> {
    let found = current_version(connection, place).await?;
    let place = place.clone();
    match found {
        0 => Err(StoreError::Missing { place }),
        KNOWN_VERSION => Ok(()),
        _ => Err(StoreError::Older { place, found, known: KNOWN_VERSION }),
    }
}

/// 0 for an empty database.
async fn current_version(connection: &mut Connection, place: &Place) -> Result<i64, StoreError> {
    connection.set_doing("read the schema's version");
    let version = match connection.backend() {
        Backend::Sqlite => sqlite_version(connection, place).await?,
        Backend::Postgres => postgres_version(connection, place).await?,
    };
    if version > KNOWN_VERSION {
        return Err(StoreError::Newer { place: place.clone(), found: version, known: KNOWN_VERSION });
    }
    Ok(version)
}

async fn sqlite_version(connection: &mut Connection, place: &Place) -> Result<i64, StoreError> {
    let row = only_row(
        connection,
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
         (SELECT count(*) FROM sqlite_schema)",
    )
    .await?;
    let (application, version, tables) = (row.integer(0)?, row.integer(1)?, row.integer(2)?);
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(StoreError::Foreign { place: place.clone() });
    }
    Ok(version)
}

async fn postgres_version(connection: &mut Connection, place: &Place) -> Result<i64, StoreError> {
    let row = only_row(
        connection,
        "SELECT current_setting('server_encoding'), count(*), count(*) FILTER (WHERE relname = 'sluicegate_schema') \
         FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
         WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm', 'f')",
    )
    .await?;
    let (encoding, tables, ours) = (row.text(0)?, row.integer(1)?, row.integer(2)?);
    if encoding != "UTF8" {
        return Err(StoreError::Encoding { place: place.clone(), found: encoding });
    }
    match (tables, ours) {
        (0, _) => Ok(0),
        (_, 0) => Err(StoreError::Foreign { place: place.clone() }),
        _ => only_row(connection, "SELECT version FROM sluicegate_schema").await?.integer(0),
    }
}

async fn only_row(connection: &mut Connection, sql: &str) -> Result<Row, StoreError> {
    match connection.query_first(sql, &[]).await? {
        Some(row) => Ok(row),
        None => Err(connection.failed("no row answers what has one")),
    }
}
