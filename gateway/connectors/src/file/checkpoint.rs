//! Where reading a file is to go on after a restart, kept in a small JSON file of its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluicegate_engine::failure::Failure;

/// How much of a file's beginning tells it from another one that has got the same inode.
const MAX_HEAD_BYTES: u64 = 1 << 10;

/// Which file, whatever its name is by now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
    head_bytes: u64,
    head_sha256: String,
}

/// Up to where everything is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Counts the files that have stood at the path, from 1: rotated and truncated ones.
    pub(super) generation: u64,
    /// Bytes from the file's beginning.
    pub(super) offset: u64,
    /// The file.
    pub(super) file: FileId,
}

impl FileId {
    /// Of an open file, whose first bytes up to `offset` will not change any more.
    pub(super) fn of(file: &File, offset: u64) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let head_bytes = offset.min(MAX_HEAD_BYTES);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            head_bytes,
            head_sha256: head_sha256(file, head_bytes)?,
        })
    }

    /// Whether `file` is this one and has not been emptied since.
    pub(super) fn matches(&self, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        Ok((metadata.dev(), metadata.ino()) == (self.device, self.inode)
            && metadata.len() >= self.head_bytes
            && head_sha256(file, self.head_bytes)? == self.head_sha256)
    }

    /// Whether it has the inode, which saves opening most of a folder's files.
    pub(super) fn may_be(&self, metadata: &fs::Metadata) -> bool {
        (metadata.dev(), metadata.ino()) == (self.device, self.inode)
    }

    /// Whether the fingerprint could take in more of a file that has been read up to `offset`.
    pub(super) fn is_short_for(&self, offset: u64) -> bool {
        self.head_bytes < offset.min(MAX_HEAD_BYTES)
    }
}

fn head_sha256(file: &File, head_bytes: u64) -> io::Result<String> {
    let mut head = vec![0; head_bytes.min(MAX_HEAD_BYTES) as usize];
    file.read_exact_at(&mut head, 0)?;
    Ok(Sha256::digest(&head).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Where a checkpoint stands unless it is configured: one for each pipeline and path.
pub(super) fn default_path(data_dir: &Path, pipeline: &str, path: &Path) -> PathBuf {
    let digest = Sha256::digest([pipeline.as_bytes(), b"\0", path.as_os_str().as_encoded_bytes()].concat());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let readable: String =
        pipeline.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    data_dir.join("checkpoints").join(format!("{readable}-{hex}.json"))
}

/// Reads a checkpoint; `None` if there is none yet.
pub(super) fn load(path: &Path) -> Result<Option<Position>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::permanent(format!(
                "reading the checkpoint {}: {error}; check the file's permissions",
                path.display()
            )));
        }
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Failure::permanent(format!(
            "reading the checkpoint {}: {error}; restore it, or delete it to read the file from its beginning",
            path.display()
        ))
    })
}

/// Replaces a checkpoint: whole or not at all, and on the disk when this returns.
pub(super) fn save(path: &Path, position: &Position) -> Result<(), Failure> {
    write(path, position).map_err(|error| {
        Failure::transient(format!("writing the checkpoint {}: {error}; is there room and permission?", path.display()))
    })
}

fn write(path: &Path, position: &Position) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(position)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(path: &Path, offset: u64) -> Position {
        let file = File::open(path).expect("open");
        Position { generation: 3, offset, file: FileId::of(&file, offset).expect("an id") }
    }

    #[test]
    fn a_checkpoint_comes_back_and_its_absence_is_no_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let (input, checkpoint) = (folder.path().join("in"), folder.path().join("deep/er/checkpoint.json"));
        fs::write(&input, "1\n2\n").expect("written");
        assert_eq!(load(&checkpoint), Ok(None));
        save(&checkpoint, &position(&input, 2)).expect("saved");
        save(&checkpoint, &position(&input, 4)).expect("saved again");
        assert_eq!(load(&checkpoint), Ok(Some(position(&input, 4))));
        assert_eq!(fs::read_dir(checkpoint.parent().expect("a folder")).expect("a listing").count(), 1);
    }

    #[test]
    fn a_spoilt_checkpoint_is_told_and_not_taken_for_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = folder.path().join("checkpoint.json");
        fs::write(&checkpoint, "{\"generation\":1}").expect("written");
        assert!(load(&checkpoint).expect_err("spoilt").text.contains("checkpoint.json"));
    }

    #[test]
    fn a_file_is_known_by_inode_and_beginning() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("in");
        fs::write(&path, "first\n").expect("written");
        let id = position(&path, 6).file;
        let matches = || id.matches(&File::open(&path).expect("open")).expect("readable");
        fs::rename(&path, folder.path().join("moved")).expect("renamed");
        assert!(id.matches(&File::open(folder.path().join("moved")).expect("open")).expect("readable"));
        fs::rename(folder.path().join("moved"), &path).expect("renamed");
        fs::write(&path, "other\nmore\n").expect("the same inode written anew");
        assert!(!matches());
        fs::write(&path, "first\nmore\n").expect("written");
        assert!(matches());
        fs::write(&path, "fir").expect("emptied");
        assert!(!matches());
    }

    #[test]
    fn every_pipeline_and_path_has_a_checkpoint_of_its_own() {
        let of = |pipeline, path| default_path(Path::new("/data"), pipeline, Path::new(path));
        assert_ne!(of("a/b", "x"), of("a-b", "x"));
        assert_ne!(of("a", "x"), of("a", "y"));
        assert_eq!(of("a", "x"), of("a", "x"));
        assert_eq!(of("../x", "y").parent(), Some(Path::new("/data/checkpoints")));
    }
}
