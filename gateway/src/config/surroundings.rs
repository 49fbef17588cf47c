//! What a configuration takes from outside: files and environment variables. The only I/O of this module, behind a trait.

use std::env::VarError;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Where files and variables come from. Blocking: call [`load`](super::load) off the runtime's workers.
pub trait Surroundings {
    /// An environment variable.
    ///
    /// # Errors
    /// It is not set, or not Unicode.
    fn variable(&self, name: &str) -> Result<String, VarError>;

    /// A whole file.
    ///
    /// # Errors
    /// It cannot be read, or is larger than `limit_bytes` (`FileTooLarge`).
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>>;

    /// The files of a folder, in any order; `None` if `path` is a file.
    ///
    /// # Errors
    /// It does not exist or cannot be read.
    fn list(&self, path: &Path) -> io::Result<Option<Vec<PathBuf>>>;
}

/// The process's own environment and file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Result<String, VarError> {
        std::env::var(name)
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that fits from one that does not, whatever its metadata say.
        std::fs::File::open(path)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit_bytes} bytes")));
        }
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        if !std::fs::metadata(path)?.is_dir() {
            return Ok(None);
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file.is_file() {
                files.push(file);
            }
        }
        Ok(Some(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("five");
        std::fs::write(&file, "12345").expect("write");
        assert_eq!(Process.read(&file, 5).expect("read"), b"12345");
        assert_eq!(Process.read(&file, 4).expect_err("limit").kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(Process.list(&file).expect("list"), None);
        assert_eq!(Process.list(folder.path()).expect("list"), Some(vec![file]));
    }
}
