//! What can go wrong with a backup or its restoration.

use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// The backup was not made, or not restored; nothing that was there before has changed, but where it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The destination is there already.
    #[error("{} is there already; name a folder that is not, or, if it was left behind by a backup that was killed, remove it", .path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {doing} {}: {cause}; see that the disk has room and this user may do that", .path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// Not what a backup of ours says of itself.
    #[error("{} is not the manifest of a backup: {cause}; name the folder that `sluicegate backup` has made", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A newer program's.
    #[error("the backup {} was made by sluicegate {program}, whose store this program does not know; restore it with that version", .path.display())]
    Newer {
        /// The backup.
        path: PathBuf,
        /// The program's version.
        program: String,
    },
    /// A file is not what was backed up.
    #[error("{} is damaged: {cause}; use another backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        cause: String,
    },
    /// The data folder has something in it.
    #[error("the data folder {} is not empty; --force restores all the same and keeps what is there aside, in a folder in it", .path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl BackupError {
    pub(super) fn io(doing: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Self::File { doing, path: path.to_owned(), cause: error.to_string() }
    }
}
