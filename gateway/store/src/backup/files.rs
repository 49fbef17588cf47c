//! Files that are on the disk when they are said to be written, and what they hash to.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::{BackedUpFile, BackupError};

/// Where file sources keep their checkpoints in the data folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";

const CHUNK_BYTES: usize = 256 << 10;

/// A folder in the making: removed unless it is renamed.
pub(super) struct Folder {
    path: Option<PathBuf>,
}

impl Folder {
    /// Makes a new one, for its owner alone.
    pub fn create(path: PathBuf) -> Result<Self, BackupError> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&path) {
            Ok(()) => Ok(Self { path: Some(path) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(BackupError::Exists { path }),
            Err(error) => Err(BackupError::io("make", &path, &error)),
        }
    }

    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new("."))
    }

    /// Gives it its final name, durably.
    pub fn rename(mut self, name: &Path) -> Result<(), BackupError> {
        sync_folder(self.path())?;
        fs::rename(self.path(), name).map_err(|error| BackupError::io("rename to", name, &error))?;
        self.path = None;
        sync_parent(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_dir_all(path)
        {
            tracing::warn!(folder = %path.display(), %error, "a folder that is of no use was left behind; remove it");
        }
    }
}

/// What was copied.
pub(super) struct Copied {
    bytes: u64,
    sha256: String,
}

impl Copied {
    /// Of a file that is there; synced.
    pub fn of(path: &Path) -> Result<Self, BackupError> {
        let failed = |error: std::io::Error| BackupError::io("read", path, &error);
        let mut file = File::open(path).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        pour(&mut file, path, |_| Ok(()))
    }

    pub fn named(self, path: String) -> BackedUpFile {
        BackedUpFile { path, bytes: self.bytes, sha256: self.sha256 }
    }
}

/// Makes an empty file for its owner alone, and its folder.
pub(super) fn create(path: &Path) -> Result<File, BackupError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| BackupError::io("make", parent, &error))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| BackupError::io("make", path, &error))
}

/// Writes a new file, durably.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let mut file = create(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| BackupError::io("write", path, &error))?;
    sync_parent(path)
}

/// Copies to a new file, durably; `None` when there is nothing any more.
pub(super) fn copy_if_there(from: &Path, to: &Path) -> Result<Option<Copied>, BackupError> {
    match File::open(from) {
        Ok(source) => copy_from(source, from, to, &mut |_| ()).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackupError::io("read", from, &error)),
    }
}

/// Copies to a new file, durably, and says how many bytes at a time.
pub(super) fn copy(from: &Path, to: &Path, copied: &mut dyn FnMut(u64)) -> Result<Copied, BackupError> {
    let source = File::open(from).map_err(|error| BackupError::io("read", from, &error))?;
    copy_from(source, from, to, copied)
}

fn copy_from(mut source: File, from: &Path, to: &Path, copied: &mut dyn FnMut(u64)) -> Result<Copied, BackupError> {
    let failed = |error: std::io::Error| BackupError::io("write", to, &error);
    let mut target = create(to)?;
    let poured = pour(&mut source, from, |chunk| {
        copied(chunk.len() as u64);
        target.write_all(chunk).map_err(failed)
    })?;
    target.sync_all().map_err(failed)?;
    sync_parent(to)?;
    Ok(poured)
}

fn pour(
    source: &mut File,
    path: &Path,
    mut into: impl FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<Copied, BackupError> {
    let (mut context, mut bytes, mut chunk) = (Context::new(&SHA256), 0_u64, vec![0; CHUNK_BYTES]);
    loop {
        let length = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(BackupError::io("read", path, &error)),
        };
        context.update(&chunk[..length]);
        into(&chunk[..length])?;
        bytes += length as u64;
    }
    let sha256 = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Copied { bytes, sha256 })
}

/// Names of what is in a folder, sorted; none where there is no folder. Names that are not UTF-8 are not ours.
pub(super) fn list(folder: &Path) -> Result<Vec<String>, BackupError> {
    let failed = |error: std::io::Error| BackupError::io("list", folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    names.sort();
    Ok(names)
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| BackupError::io("sync", folder, &error))
}

fn sync_parent(path: &Path) -> Result<(), BackupError> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        Some(_) | None => sync_folder(Path::new(".")),
    }
}

/// The same path with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    // A trailing slash is no part of the name.
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(suffix);
    name.into()
}
