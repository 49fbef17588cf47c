//! Bringing a backup back.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::files::{self, Folder};
use super::{BackedUpFile, BackupError, Manifest, Progress, check_integrity, manifest};
use crate::database::{STORE_FILE, UNFINISHED_FILE};
use crate::store::{LOCK_FILE, lock};

/// Compiled plugins: no harm, whatever store they stand beside.
const COMPILED: &str = "compiled";
/// What is being restored, in the data folder; left behind only by a restoration that was killed.
const STAGED: &str = ".restore-";
/// What was in the data folder before, in it.
const ASIDE: &str = "before-restore-";

/// What a restoration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was restored.
    pub manifest: Manifest,
    /// Where what was there before is kept, if there was anything.
    pub aside: Option<PathBuf>,
}

/// Puts the backup in `source` into `data_dir`, which no gateway may hold and which must be empty unless `is_forced`:
/// then what is there is moved into a folder in it, named with `stamp`. Every file is copied and checked before anything
/// is moved; should the moving be interrupted, no gateway starts on the folder until it is restored again. Blocks.
///
/// # Errors
/// `InUse` (of [`BackupError::Store`]), `NotEmpty`, `Damaged`, `Newer`; or a file cannot be read or written.
pub fn restore(
    source: &Path,
    data_dir: &Path,
    is_forced: bool,
    stamp: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, BackupError> {
    let manifest = manifest(source)?;
    let _lock = lock(data_dir)?;
    let in_the_way = in_the_way(data_dir)?;
    if !is_forced && !in_the_way.is_empty() {
        return Err(BackupError::NotEmpty { path: data_dir.to_owned() });
    }
    for left in in_the_way.iter().filter(|name| name.starts_with(STAGED)) {
        let left = data_dir.join(left);
        fs::remove_dir_all(&left).map_err(|error| BackupError::io("remove", &left, &error))?;
    }
    let staged = stage(source, data_dir, &manifest, stamp, progress)?;
    let marker = data_dir.join(UNFINISHED_FILE);
    if !marker.exists() {
        files::write(
            &marker,
            b"a backup is being restored here; if that was interrupted, run it again with --force\n",
        )?;
    }
    let aside = put_aside(data_dir, &in_the_way, stamp)?;
    for name in files::list(staged.path())? {
        rename(&staged.path().join(&name), &data_dir.join(&name))?;
    }
    files::sync_folder(data_dir)?;
    fs::remove_file(&marker).map_err(|error| BackupError::io("remove", &marker, &error))?;
    files::sync_folder(data_dir)?;
    Ok(Restored { manifest, aside })
}

/// Copies and checks all, in a folder on the data folder's disk.
fn stage(
    source: &Path,
    data_dir: &Path,
    manifest: &Manifest,
    stamp: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Folder, BackupError> {
    let staged = Folder::create(data_dir.join(format!("{STAGED}{stamp}")))?;
    let total_bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let mut done_bytes = 0_u64;
    for file in &manifest.files {
        let from = path_in(source, file)?;
        let copied = files::copy(&from, &path_in(staged.path(), file)?, &mut |bytes| {
            done_bytes = done_bytes.saturating_add(bytes);
            progress(Progress { done_bytes, total_bytes });
        })?;
        let copied = copied.named(file.path.clone());
        if copied != *file {
            let cause = format!(
                "it has {} bytes of sha256 {}, the manifest says {} of {}",
                copied.bytes, copied.sha256, file.bytes, file.sha256
            );
            return Err(BackupError::Damaged { path: from, cause });
        }
    }
    let version = check_integrity(&staged.path().join(STORE_FILE))?;
    if version != manifest.schema_version {
        let cause = format!("its schema has version {version}, the manifest says {}", manifest.schema_version);
        return Err(BackupError::Damaged { path: source.join(STORE_FILE), cause });
    }
    Ok(staged)
}

/// A manifest names files below the folder, whatever it says.
fn path_in(folder: &Path, file: &BackedUpFile) -> Result<PathBuf, BackupError> {
    let path = Path::new(&file.path);
    if file.path.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        let cause = format!("it names the file {:?}, which would be elsewhere", file.path);
        return Err(BackupError::Manifest { path: folder.to_owned(), cause });
    }
    Ok(folder.join(path))
}

fn in_the_way(data_dir: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = files::list(data_dir)?;
    names.retain(|name| ![LOCK_FILE, COMPILED].contains(&name.as_str()));
    Ok(names)
}

/// Moves what is there away, but what earlier restorations have put aside.
fn put_aside(data_dir: &Path, names: &[String], stamp: &str) -> Result<Option<PathBuf>, BackupError> {
    let stays = |name: &&String| name.starts_with(ASIDE) || *name == UNFINISHED_FILE || name.starts_with(STAGED);
    let names: Vec<&String> = names.iter().filter(|name| !stays(name)).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let aside = data_dir.join(format!("{ASIDE}{stamp}"));
    fs::create_dir(&aside).map_err(|error| BackupError::io("make", &aside, &error))?;
    for name in names {
        rename(&data_dir.join(name), &aside.join(name))?;
    }
    files::sync_folder(&aside)?;
    Ok(Some(aside))
}

fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(from, to).map_err(|error| BackupError::io("rename to", to, &error))
}
