//! A disk that is easily filled: a file system in memory of a few megabytes, mounted in a folder of the test.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// Name of the file that takes up room.
const BALLAST: &str = "ballast";
/// Written at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// Unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Makes `folder` and mounts `mebibytes` there; `None`, and a line that says why, where that is not permitted.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn mount(folder: &Path, mebibytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mounted = run("mount", |command| {
            command.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder);
        });
        match mounted {
            Ok(_) => Ok(Some(Self { folder: folder.to_owned() })),
            Err(error) => {
                eprintln!("skipped: a small disk cannot be mounted here (it takes root): {error:#}");
                Ok(None)
            }
        }
    }

    /// Takes up room until `left_bytes` or less are left.
    ///
    /// # Errors
    /// When that cannot be written for another reason than that the disk is full.
    pub fn fill_but(&self, left_bytes: u64) -> Result<()> {
        let path = self.folder.join(BALLAST);
        let mut file = File::options().create(true).append(true).open(&path)?;
        let block = vec![0xa5; BLOCK_BYTES];
        while self.free_bytes()? > left_bytes {
            match file.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).with_context(|| format!("writing {}", path.display())),
            }
        }
        Ok(())
    }

    /// Gives back what [`fill_but`](Self::fill_but) took.
    ///
    /// # Errors
    /// When nothing was taken.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.folder.join(BALLAST)).context("giving room back")
    }

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// When `df` does not say.
    pub fn free_bytes(&self) -> Result<u64> {
        let said = run("df", |command| {
            command.args(["--output=avail", "--block-size=1"]).arg(&self.folder);
        })?;
        said.lines().nth(1).and_then(|line| line.trim().parse().ok()).with_context(|| format!("df says {said}"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed a moment ago may still be closing its files.
        match Command::new("umount").arg("--lazy").arg(&self.folder).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("{} was not unmounted: {other:?}", self.folder.display()),
        }
    }
}
