//! Appends whole lines to a file, durably.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sluicegate_engine::failure::Failure;

/// How far back an unfinished last line is looked for when a file is opened.
const MAX_UNFINISHED_BYTES: u64 = 64 << 20;

/// An open file. All calls block; every error leaves the file ending with a whole line.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
}

impl Writer {
    /// Opens the file; creates it and its folders durably if need be. A last line that was not finished, which a crash
    /// leaves behind and which was never confirmed, is cut off; if it is whole JSON, its line break is added.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        open(path).map(|file| Self { path: path.to_owned(), file }).map_err(|error| failure("opening", path, &error))
    }

    /// Appends `lines` and returns when they are on the disk. On an error nothing of them is left.
    ///
    /// The file is locked meanwhile (flock), so that two gateways or pipelines can share it.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Failure> {
        if self.is_moved() {
            // Somebody rotated or deleted the file: what is written from now on belongs into the new one.
            *self = Self::open(&self.path)?;
        }
        append(&self.file, lines).map_err(|error| failure("appending to", &self.path, &error))
    }

    fn is_moved(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => (open.dev(), open.ino()) != (named.dev(), named.ino()),
            _ => true,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let is_new = !path.try_exists()?;
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if is_new {
        File::open(folder)?.sync_all()?;
    }
    locked(&file, finish_last_line)?;
    Ok(file)
}

fn append(file: &File, lines: &[u8]) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        // A device or a pipe, such as /dev/null, has neither length nor disk.
        let mut file = file;
        return file.write_all(lines);
    }
    locked(file, |mut file| {
        let good_bytes = file.metadata()?.len();
        let result = file.write_all(lines).and_then(|()| file.sync_data());
        if let Err(error) = result {
            // If even this fails, the next opening cuts off what is left.
            if let Err(also) = file.set_len(good_bytes).and_then(|()| file.sync_data()) {
                tracing::error!("taking back a half-written line: {also}");
            }
            return Err(error);
        }
        Ok(())
    })
}

/// With an exclusive lock, where the file system has any.
fn locked<T>(file: &File, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    match file.lock() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return work(file),
        Err(error) => return Err(error),
    }
    let result = work(file);
    file.unlock()?;
    result
}

fn finish_last_line(mut file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let looked_at = length.min(MAX_UNFINISHED_BYTES);
    if looked_at == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - looked_at))?;
    let mut end = Vec::new();
    file.take(looked_at).read_to_end(&mut end)?;
    let unfinished = match end.iter().rposition(|&byte| byte == b'\n') {
        Some(at) => &end[at + 1..],
        None if looked_at == length => &end[..],
        // No line of ours: do not touch it.
        None => return file.write_all(b"\n"),
    };
    if serde_json::from_slice::<serde::de::IgnoredAny>(unfinished).is_ok() {
        file.write_all(b"\n")?;
    } else {
        tracing::warn!(
            bytes = unfinished.len(),
            "cut off the last line of a file, which a crash had left half written"
        );
        file.set_len(length - unfinished.len() as u64)?;
    }
    file.sync_data()
}

fn failure(doing: &str, path: &Path, error: &io::Error) -> Failure {
    let text = |advice: &str| format!("{doing} {}: {error}; {advice}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::permanent(text("give the gateway's user the right to write there"))
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            Failure::permanent(text("name a file in a folder"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Failure::transient(text("free some space; nothing of the batch was kept"))
        }
        _ => Failure::disconnected(text("the file is opened anew")),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::failure::FailureKind;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn folders_are_made_and_lines_are_appended() {
        let folder = folder();
        let path = folder.path().join("a/b/out.jsonl");
        Writer::open(&path).expect("opened").append(b"1\n").expect("appended");
        Writer::open(&path).expect("opened").append(b"2\n").expect("appended");
        assert_eq!(fs::read(&path).expect("read"), b"1\n2\n");
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off_and_a_whole_one_is_ended() {
        let folder = folder();
        let path = folder.path().join("out.jsonl");
        for (before, after) in [
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\nnew\n"),
            ("{\"a\":1}\n{\"b\":2}", "{\"a\":1}\n{\"b\":2}\nnew\n"),
            ("{\"a\"", "new\n"),
            ("", "new\n"),
        ] {
            fs::write(&path, before).expect("written");
            Writer::open(&path).expect("opened").append(b"new\n").expect("appended");
            assert_eq!(fs::read_to_string(&path).expect("read"), after);
        }
    }

    #[test]
    fn a_file_that_was_rotated_away_is_made_anew() {
        let folder = folder();
        let path = folder.path().join("out.jsonl");
        let mut writer = Writer::open(&path).expect("opened");
        writer.append(b"1\n").expect("appended");
        fs::rename(&path, folder.path().join("out.jsonl.1")).expect("renamed");
        writer.append(b"2\n").expect("appended");
        assert_eq!(fs::read(&path).expect("read"), b"2\n");
        fs::remove_file(&path).expect("removed");
        writer.append(b"3\n").expect("appended");
        assert_eq!(fs::read(&path).expect("read"), b"3\n");
    }

    #[test]
    fn a_full_disk_is_worth_another_try_and_a_folder_is_not() {
        let full =
            Writer { path: "/dev/full".into(), file: OpenOptions::new().append(true).open("/dev/full").expect("open") };
        let error = append(&full.file, b"1\n").expect_err("full");
        assert_eq!(failure("appending to", &full.path, &error).kind, FailureKind::Transient { retry_after: None });
        let folder = folder();
        let failure = Writer::open(folder.path()).expect_err("a folder");
        assert_eq!(failure.kind, FailureKind::Permanent, "{}", failure.text);
    }

    #[test]
    fn two_writers_do_not_mix_their_lines() {
        let folder = folder();
        let path = folder.path().join("out.jsonl");
        let line = |digit: u8| [vec![b'0' + digit; 5_000], b"\n".to_vec()].concat();
        std::thread::scope(|scope| {
            for digit in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    let mut writer = Writer::open(path).expect("opened");
                    for _ in 0..20 {
                        writer.append(&line(digit)).expect("appended");
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text.lines().count(), 80);
        assert!(text.lines().all(|line| line.len() == 5_000 && line.bytes().all(|byte| byte == line.as_bytes()[0])));
    }
}
