//! What can go wrong with the store, each with what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use sluicegate_engine::failure::Failure;

use crate::place::Place;

/// The store could not do its work. Texts name the place and a remedy, never the content of a message or a password.
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
    /// Another gateway has the data folder.
    #[error(
        "the data folder {} is in use by another gateway; stop that one, or give each its own data_dir (several gateways share a store of PostgreSQL)",
        .path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A backup was being restored to the data folder, and that was interrupted.
    #[error(
        "a backup is being restored to the data folder {}, or that was interrupted; run `sluicegate restore` again, with --force",
        .path.display()
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// Not a URL of PostgreSQL.
    #[error("the store's URL is not usable: {cause}; write postgres://user:password@host:5432/database")]
    Url {
        /// What is wrong with it, without its content.
        cause: String,
    },
    /// There is nothing to read.
    #[error("no store at {place}: no gateway has run with {} yet; check {}", .place.whole(), .place.setting())]
    Missing {
        /// Where.
        place: Place,
    },
    /// The system does not let us read or write the file, the server not this user.
    #[error("cannot {doing} in {place}: {cause}; {}", .place.permission_remedy())]
    NotPermitted {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// The database's words.
        cause: String,
    },
    /// Another process kept the database locked for longer than we wait.
    #[error(
        "cannot {doing} in {place}: another process has kept it locked for {waited:?}; find it ({}) and let it finish",
        .place.lock_remedy()
    )]
    Locked {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// Not a database, or one no more, or a stored value that makes no sense.
    #[error("cannot {doing} in {place}: {} ({cause}); {}", .place.damage(), .place.damage_remedy())]
    Damaged {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// The database's words, or which stored value makes no sense.
        cause: String,
    },
    /// The database is another program's.
    #[error("{place} is not a store of Sluicegate but another program's database; set {}", .place.other())]
    Foreign {
        /// Where.
        place: Place,
    },
    /// A newer gateway has written the store.
    #[error(
        "{place} has schema version {found}, this program knows versions up to {known}; use the newer gateway that wrote it"
    )]
    Newer {
        /// Where.
        place: Place,
        /// Its version.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// An older gateway has written the store, and a command may not bring it up to date.
    #[error(
        "{place} has schema version {found}, this program reads version {known}; start this version's gateway on it once"
    )]
    Older {
        /// Where.
        place: Place,
        /// Its version.
        found: i64,
        /// The one that is read.
        known: i64,
    },
    /// The database keeps text in another encoding than UTF-8.
    #[error("{place} keeps text as {found}; create the database with ENCODING 'UTF8'")]
    Encoding {
        /// Where.
        place: Place,
        /// The server's name of the encoding.
        found: String,
    },
    /// No room.
    #[error("cannot {doing} in {place}: the disk is full; free some room")]
    Full {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
    },
    /// No connection to the server, or it was lost, or the server does not answer.
    #[error("cannot {doing} in {place}: {cause}; see that PostgreSQL runs and can be reached from here")]
    Unreachable {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// The system's words.
        cause: String,
    },
    /// TLS with the server did not come about: it is not the one meant, not known to be, or has none.
    #[error(
        "{place} cannot be trusted: {cause}; name the certificate of its authority (sslrootcert=FILE) and the host that its certificate is for in the store's URL, or, on a network that is trusted, set sslmode=disable"
    )]
    Untrusted {
        /// Where.
        place: Place,
        /// What is wrong with it.
        cause: String,
    },
    /// The server refuses this user.
    #[error(
        "{place} refuses this user: {cause}; check user, password and database of the store's URL and the server's pg_hba.conf"
    )]
    Credentials {
        /// Where.
        place: Place,
        /// The server's words.
        cause: String,
    },
    /// The server has as many connections as it takes.
    #[error(
        "cannot {doing} in {place}: the server has no connection left; raise its max_connections (a gateway takes up to 6)"
    )]
    Connections {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
    },
    /// The server only reads.
    #[error(
        "cannot {doing} in {place}: the server is read-only (a standby?); name the primary server in the store's URL"
    )]
    ReadOnly {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
    },
    /// Other gateways changed the same rows at the same time, again and again.
    #[error("cannot {doing} in {place}: other gateways change the same at the same time; try again")]
    Conflict {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
    },
    /// All connections for questions are busy.
    #[error("cannot {doing} in {place}: too many questions are being answered; try again, or ask fewer at a time")]
    Busy {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
    },
    /// Anything else of the database.
    #[error("cannot {doing} in {place}: {cause}; {}", .place.remedy())]
    Database {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// The database's words.
        cause: String,
    },
    /// The store has been closed, or its writer has failed.
    #[error("cannot {doing}: the store is closed; restart the gateway")]
    Closed {
        /// What was being done.
        doing: &'static str,
    },
    /// The store's bodies are encrypted and no master key was given.
    #[error(
        "the bodies in {place} are encrypted and no master key was given; set encryption.master_key to the key it was started with (commands: --config FILE, or --master-key-file FILE beside --data-dir)"
    )]
    Encrypted {
        /// Where.
        place: Place,
    },
    /// The store's bodies are not encrypted, so there are no keys.
    #[error(
        "the bodies in {place} are not encrypted; set encryption.master_key and restart the gateway to encrypt them"
    )]
    NotEncrypted {
        /// Where.
        place: Place,
    },
    /// The master key is not the one that wraps the store's keys.
    #[error(
        "the master key given (fingerprint {given}) is not the one of {place} (fingerprint {wanted}); set encryption.master_key to that one, or, to replace it, add that one to encryption.previous_master_keys"
    )]
    MasterKey {
        /// Where.
        place: Place,
        /// Fingerprint of the key that was given.
        given: String,
        /// Fingerprint of the key that wraps the store's keys.
        wanted: String,
    },
    /// A key of bodies is not there.
    #[error(
        "the store {place} has no key version {version} of tenant `{tenant}`; `sluicegate keys list` shows those there are, a backup may have the missing one (table data_keys)"
    )]
    UnknownKey {
        /// Where.
        place: Place,
        /// Whose key.
        tenant: String,
        /// Which version.
        version: u32,
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
    /// No redrive job has that id.
    #[error("no redrive job has the id `{id}`; `sluicegate dlq jobs` shows those there are")]
    NoJob {
        /// As asked for.
        id: String,
    },
    /// A value has no stored form.
    #[error("cannot bring it into its stored form: {cause}")]
    Unwritable {
        /// Why.
        cause: String,
    },
    /// Not a page token of this store.
    #[error("`{token}` is not a page token; give the `next` of the page before, as it is")]
    PageToken {
        /// As given.
        token: String,
    },
}

impl StoreError {
    /// Whether the same may succeed later, by itself or once somebody has seen to the store; not so for what is wrong
    /// with the question.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Folder { .. }
            | Self::InUse { .. }
            | Self::Unfinished { .. }
            | Self::NotPermitted { .. }
            | Self::Locked { .. }
            | Self::Damaged { .. }
            | Self::Full { .. }
            | Self::Unreachable { .. }
            | Self::Untrusted { .. }
            | Self::Credentials { .. }
            | Self::Connections { .. }
            | Self::ReadOnly { .. }
            | Self::Conflict { .. }
            | Self::Busy { .. }
            | Self::Database { .. }
            | Self::Encrypted { .. }
            | Self::MasterKey { .. }
            | Self::UnknownKey { .. }
            | Self::Closed { .. } => true,
            Self::Url { .. }
            | Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Encoding { .. }
            | Self::NotEncrypted { .. }
            | Self::NotFound { .. }
            | Self::Ambiguous { .. }
            | Self::NoJob { .. }
            | Self::Unwritable { .. }
            | Self::PageToken { .. } => false,
        }
    }

    /// Whether it is one record that cannot be read, and others may well be.
    pub(crate) fn is_of_one_record(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::UnknownKey { .. })
    }

    /// Whether it is the connection or the whole database that fails, and not what was asked of it: nothing else asked
    /// now would fare better, and finding out may take as long again.
    pub(crate) fn concerns_everyone(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. }
                | Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Credentials { .. }
                | Self::Connections { .. }
                | Self::ReadOnly { .. }
                | Self::Conflict { .. }
                | Self::Closed { .. }
        )
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_transient() { Self::transient(error.to_string()) } else { Self::permanent(error.to_string()) }
    }
}
