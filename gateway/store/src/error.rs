//! What can go wrong with the store, each with what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The store could not do its work. Texts name the file and a remedy, never the content of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The data folder cannot be made or used.
    #[error(
        "cannot use the data folder {}: {cause}; create it, let the gateway's user write to it, or set data_dir to another folder",
        .path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// There is nothing to read.
    #[error("no store at {}: no gateway has run with this data folder yet; check data_dir", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let us read or write the file.
    #[error(
        "cannot {doing} in {}: {cause}; let this user read and write the file and its folder, and see that the disk is not mounted read-only",
        .path.display()
    )]
    NotPermitted {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's words.
        cause: String,
    },
    /// Another process kept the file locked for longer than the busy timeout.
    #[error(
        "cannot {doing} in {}: another process has kept it locked for {waited:?}; find it (`fuser {}`) and let it finish",
        .path.display(), .path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The file is not an SQLite database, or is one no more.
    #[error(
        "cannot {doing} in {}: the file is damaged ({cause}); stop the gateway, move the file away (`sqlite3 FILE .recover` may save its records) and start again",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's words, or which stored value makes no sense.
        cause: String,
    },
    /// The file is an SQLite database of another program.
    #[error("{} is not a store of Sluicegate but another program's database; set data_dir to another folder", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer gateway has written the file.
    #[error(
        "{} has schema version {found}, this program knows versions up to {known}; use the newer gateway that wrote it",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// An older gateway has written the file, and reading alone may not bring it up to date.
    #[error(
        "{} has schema version {found}, this program reads version {known}; start this version's gateway on it once",
        .path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The one that is read.
        known: i64,
    },
    /// No room.
    #[error("cannot {doing} in {}: the disk is full; free some room", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
    },
    /// Anything else of the database.
    #[error("cannot {doing} in {}: {cause}; see the system's log for failures of the disk, then try again", .path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// SQLite's words.
        cause: String,
    },
    /// No dead letter has that id.
    #[error("no dead letter has an id that starts with `{id}`; `sluicegate dlq list` shows those there are")]
    NotFound {
        /// As asked for.
        id: String,
    },
    /// Several dead letters have that id's beginning.
    #[error("the id `{id}` is not unique: it begins {}{}; give more of it", .candidates.join(", "), if *.more { ", …" } else { "" })]
    Ambiguous {
        /// As asked for.
        id: String,
        /// The first few.
        candidates: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
    /// Not a page token of this store.
    #[error("`{token}` is not a page token; give the `next` of the page before, as it is")]
    PageToken {
        /// As given.
        token: String,
    },
}

/// The database and what was being done with it: what every error text needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub path: &'a Path,
    pub doing: &'static str,
    pub busy_timeout: Duration,
}

impl Doing<'_> {
    /// Sorts an error of the driver by what to do about it.
    pub fn failed(&self, error: &sqlx::Error) -> StoreError {
        let (path, doing) = (self.path.to_owned(), self.doing);
        let (code, cause) = match error {
            sqlx::Error::Database(database) => {
                (primary_code(database.code().as_deref()), database.message().to_owned())
            }
            other => (None, other.to_string()),
        };
        // Primary result codes: https://www.sqlite.org/rescode.html
        match code {
            Some(3 | 8 | 14 | 23) => StoreError::NotPermitted { path, doing, cause },
            Some(5 | 6) => StoreError::Locked { path, doing, waited: self.busy_timeout },
            Some(11 | 26) => StoreError::Damaged { path, doing, cause },
            Some(13) => StoreError::Full { path, doing },
            Some(_) | None => StoreError::Database { path, doing, cause },
        }
    }

    /// A stored value makes no sense.
    pub fn damaged(&self, cause: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.to_owned(), doing: self.doing, cause: cause.into() }
    }
}

/// SQLite's result code without the extension in its upper bytes.
fn primary_code(extended: Option<&str>) -> Option<i32> {
    extended.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_codes_are_sorted_by_their_primary_code() {
        assert_eq!(primary_code(Some("517")), Some(5), "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(primary_code(Some("1032")), Some(8), "SQLITE_READONLY_DBMOVED");
        assert_eq!(primary_code(Some("x")), None);
        assert_eq!(primary_code(None), None);
    }
}
