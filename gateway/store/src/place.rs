//! Where a store is: a folder of one gateway's own, or a PostgreSQL that several share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::database::{Postgres, STORE_FILE};
use crate::error::StoreError;

/// Where to keep things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// SQLite in the gateway's data folder.
    Embedded {
        /// The folder; relative to the working folder if it is relative.
        data_dir: PathBuf,
    },
    /// A PostgreSQL database, shared with other gateways.
    Shared {
        /// `postgres://user:password@host:port/database`, see [`DatabaseUrl`].
        url: DatabaseUrl,
    },
}

impl Location {
    /// What error texts call it. Reads the file of root certificates that a URL names; blocks.
    ///
    /// # Errors
    /// `Url`: it is none.
    pub fn place(&self) -> Result<Place, StoreError> {
        match self {
            Self::Embedded { data_dir } => Ok(Place::file(data_dir.join(STORE_FILE))),
            Self::Shared { url } => Postgres::new(url).map(|postgres| postgres.place),
        }
    }

    /// SQLite in this folder.
    pub fn embedded(data_dir: impl Into<PathBuf>) -> Self {
        Self::Embedded { data_dir: data_dir.into() }
    }

    /// The PostgreSQL database of this URL.
    pub fn shared(url: impl Into<String>) -> Self {
        Self::Shared { url: DatabaseUrl::new(url) }
    }
}

/// A PostgreSQL URL, whose password is never shown.
///
/// As libpq's, with `sslmode` `disable` and `prefer` (the default: no TLS), and `require`, `verify-ca` and
/// `verify-full`: TLS, the server's certificate and name checked, against the roots the web trusts or, with
/// `sslrootcert=FILE`, against the certificates (PEM) of that file alone.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Arc<str>);

impl DatabaseUrl {
    /// As written; it is looked at when the store is opened.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into().into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// What error texts call the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// SQLite's file.
    File(Arc<Path>),
    /// `postgres://host:port/database`, without user and password.
    Server(Arc<str>),
}

impl Place {
    /// A file's.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Server(name) => f.write_str(name),
        }
    }
}

/// The words that differ between a file and a server.
impl Place {
    pub(crate) fn whole(&self) -> &'static str {
        match self {
            Self::File(_) => "this data folder",
            Self::Server(_) => "this database",
        }
    }

    pub(crate) fn setting(&self) -> &'static str {
        match self {
            Self::File(_) => "data_dir",
            Self::Server(_) => "the store's URL",
        }
    }

    pub(crate) fn other(&self) -> &'static str {
        match self {
            Self::File(_) => "data_dir to another folder",
            Self::Server(_) => "the store's URL to another database",
        }
    }

    pub(crate) fn permission_remedy(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "let this user read and write the file and its folder, and see that the disk is not mounted read-only"
            }
            Self::Server(_) => "let this user own the database's schema (`ALTER SCHEMA public OWNER TO …`)",
        }
    }

    pub(crate) fn lock_remedy(&self) -> String {
        match self {
            Self::File(path) => format!("`fuser {}`", path.display()),
            Self::Server(_) => "in pg_stat_activity".to_owned(),
        }
    }

    pub(crate) fn damage(&self) -> &'static str {
        match self {
            Self::File(_) => "the file is damaged",
            Self::Server(_) => "the database is damaged",
        }
    }

    pub(crate) fn damage_remedy(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "stop the gateway, move the file away (`sqlite3 FILE .recover` may save its records) and start again"
            }
            Self::Server(_) => "restore it from a backup, and let nothing but gateways write to it",
        }
    }

    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::File(_) => "see the system's log for failures of the disk, then try again",
            Self::Server(_) => "see the server's log, then try again",
        }
    }
}
