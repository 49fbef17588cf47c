//! Backups of the embedded store and what else of a data folder matters: the checkpoints of file sources. Compiled
//! plugins are made again where they are missing. (PostgreSQL has its own tools.)
//!
//! A backup is a folder: the files and `manifest.json`, which names each with its sha256. Checkpoints are copied before
//! the store: a source that went on meanwhile reads a little twice after a restore, and never leaves anything out.

mod error;
mod files;
mod restore;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};
use serde::{Deserialize, Serialize};

use self::files::{CHECKPOINTS, Copied, Folder};
use crate::database::{BUSY_TIMEOUT, Database, STORE_FILE, Sqlite};
use crate::drive::drive;
use crate::schema;

pub use self::error::BackupError;
pub use self::restore::{Restored, restore};

/// In a backup's folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// The version of what a backup's folder looks like.
const FORMAT: u32 = 1;
/// Pages of one step, 4 MiB.
const STEP_PAGES: i32 = 1_024;
/// Between two steps, so that those who write have the disk too.
const STEP_PAUSE: Duration = Duration::from_millis(2);

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the backup's own form.
    pub format: u32,
    /// The version of the program that made it.
    pub program: String,
    /// The version of the store's schema.
    pub schema_version: i64,
    /// When it was begun, as RFC 3339.
    pub made_at: String,
    /// Fingerprint of the master key that opens the bodies; `None` when they are not encrypted.
    pub master_key: Option<String>,
    /// Each file.
    pub files: Vec<BackedUpFile>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackedUpFile {
    /// Relative to the backup's folder, and to the data folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are copied.
    pub done_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
}

/// Makes a backup of `data_dir` in the new folder `destination`, while a gateway runs or not. What was committed when it
/// begins is in it. The folder appears whole, checked and synced, or not at all. Blocks.
///
/// The store is copied by SQLite's online backup, in steps, within one reading transaction: writers are not held up, and
/// what they write meanwhile does not make it begin anew (without that transaction every commit of another process
/// would). Until it is done the write-ahead log is not cut back.
///
/// # Errors
/// There is no store, it is damaged, or the destination is there already or cannot be written.
pub fn back_up(
    data_dir: &Path,
    destination: &Path,
    made_at: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, BackupError> {
    let sqlite = Sqlite::find(data_dir, BUSY_TIMEOUT)?;
    let database = Database::Sqlite(sqlite.clone());
    let schema_version = drive(async {
        let mut connection = database.connect_reading().await?;
        schema::check(&mut connection, database.place()).await?;
        connection.close().await?;
        Ok::<_, BackupError>(schema::KNOWN_VERSION)
    })?;
    if destination.exists() {
        return Err(BackupError::Exists { path: destination.to_owned() });
    }
    let folder = Folder::create(files::with_suffix(destination, ".tmp"))?;
    let mut copied = Vec::new();
    let checkpoints = data_dir.join(CHECKPOINTS);
    for file in files::list(&checkpoints)? {
        // One that is being replaced has another name for a moment.
        if file.ends_with(".json") {
            let path = format!("{CHECKPOINTS}/{file}");
            if let Some(file) = files::copy_if_there(&checkpoints.join(&file), &folder.path().join(&path))? {
                copied.push(file.named(path));
            }
        }
    }
    let copy = folder.path().join(STORE_FILE);
    let master_key = copy_store(&sqlite, &copy, progress)?;
    copied.push(Copied::of(&copy)?.named(STORE_FILE.to_owned()));
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        schema_version,
        made_at: made_at.to_owned(),
        master_key,
        files: copied,
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| BackupError::Manifest { path: folder.path().join(MANIFEST_FILE), cause: error.to_string() })?;
    files::write(&folder.path().join(MANIFEST_FILE), &text)?;
    folder.rename(destination)?;
    Ok(manifest)
}

/// Returns the fingerprint of the master key, if bodies are encrypted.
fn copy_store(sqlite: &Sqlite, copy: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Option<String>, BackupError> {
    let failed = |error: &rusqlite::Error| BackupError::Store(sqlite.failed("back up", error));
    files::create(copy)?;
    let mut into = rusqlite::Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|error| failed(&error))?;
    let mut run = |into: &mut rusqlite::Connection| -> rusqlite::Result<Option<String>> {
        let from = rusqlite::Connection::open_with_flags(&sqlite.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        from.busy_timeout(sqlite.busy_timeout)?;
        from.execute_batch("BEGIN")?;
        let page_bytes: u64 = from.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0)).map(u64::from)?;
        let keys = from.prepare("SELECT fingerprint FROM master_key")?.query_row([], |row| row.get(0)).map(Some);
        let master_key = match keys {
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            found => found?,
        };
        let backup = Backup::new(&from, into)?;
        loop {
            let step = backup.step(STEP_PAGES)?;
            let pages = |count: i32| u64::try_from(count).unwrap_or_default() * page_bytes;
            let now = backup.progress();
            progress(Progress {
                done_bytes: pages(now.pagecount.saturating_sub(now.remaining)),
                total_bytes: pages(now.pagecount),
            });
            if step == StepResult::Done {
                break;
            }
            #[expect(clippy::disallowed_methods, reason = "a backup is made on a thread that may block")]
            std::thread::sleep(STEP_PAUSE);
        }
        drop(backup);
        from.execute_batch("COMMIT")?;
        Ok(master_key)
    };
    let master_key = run(&mut into).map_err(|error| failed(&error))?;
    // One file, without a log beside it; a gateway turns it back when it opens it.
    into.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(|error| failed(&error))?;
    into.close().map_err(|(_, error)| failed(&error))?;
    check_integrity(copy)?;
    Ok(master_key)
}

/// Reads every page of a store that nobody uses; returns its schema's version.
fn check_integrity(store: &Path) -> Result<i64, BackupError> {
    let check = || -> rusqlite::Result<(String, i64)> {
        let connection = rusqlite::Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let said = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((said, version))
    };
    match check() {
        Ok((said, version)) if said == "ok" => Ok(version),
        Ok((said, _)) => Err(BackupError::Damaged { path: store.to_owned(), cause: said }),
        Err(error) => Err(BackupError::Damaged { path: store.to_owned(), cause: error.to_string() }),
    }
}

/// Reads what a backup consists of.
///
/// # Errors
/// It is no backup, or one of a newer program.
pub fn manifest(backup: &Path) -> Result<Manifest, BackupError> {
    let path = backup.join(MANIFEST_FILE);
    let text = fs::read(&path).map_err(|error| BackupError::io("read", &path, &error))?;
    let wrong = |cause: String| BackupError::Manifest { path: path.clone(), cause };
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if manifest.format != FORMAT || manifest.schema_version > schema::KNOWN_VERSION {
        return Err(BackupError::Newer { path: backup.to_owned(), program: manifest.program });
    }
    if !manifest.files.iter().any(|file| file.path == STORE_FILE) {
        return Err(wrong(format!("it does not name {STORE_FILE}")));
    }
    Ok(manifest)
}
