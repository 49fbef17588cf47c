//! Reads the lines of a file as it grows, is rotated and is truncated. Everything here blocks.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::checkpoint::{FileId, Position};
use crate::json_lines::{Line, Lines};

/// Files of a folder that are looked at for one that was renamed.
const MAX_SIBLINGS: usize = 10_000;

/// An open file and how far it has been read.
///
/// - **Renamed** (logrotate): read to its end first, then the new file at the path from its beginning. After a restart
///   it is looked for by inode in the same folder; if it is gone, what was not read of it is lost and that is logged.
/// - **Truncated** (copytruncate) or overwritten: read again from the beginning, a last line that was not finished left
///   out.
pub(super) struct Tail {
    path: PathBuf,
    max_line_bytes: usize,
    follow: bool,
    lines: Lines<File>,
    id: FileId,
    generation: u64,
    /// Whether the end of a file that is not at the path any more has been seen: its writer gets one more look's time
    /// to finish.
    is_leaving: bool,
}

/// What a look at the file gave.
pub(super) enum Look {
    /// At least one line, of the file of that [`generation`](Position::generation).
    Lines { generation: u64, file: FileId, lines: Vec<Line> },
    /// Nothing new for now.
    Nothing,
    /// Nothing ever: the end of a file that is not followed.
    End,
}

impl Tail {
    /// Opens the file that `position` is about, or else the one at `path` from its beginning.
    pub(super) fn open(
        path: &Path,
        position: Option<&Position>,
        max_line_bytes: usize,
        follow: bool,
    ) -> io::Result<Self> {
        let tail = |file: File, generation, offset| Self::begin(path, file, generation, offset, max_line_bytes, follow);
        let Some(position) = position else { return tail(File::open(path)?, 1, 0) };
        let found = match File::open(path) {
            Ok(file) if position.file.matches(&file)? => Some(file),
            Ok(_) => find_renamed(path, &position.file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(find_renamed(path, &position.file)?.ok_or(error)?)
            }
            Err(error) => return Err(error),
        };
        match found {
            Some(file) if file.metadata()?.len() >= position.offset => tail(file, position.generation, position.offset),
            _ => {
                tracing::warn!(
                    path = %path.display(), offset = position.offset,
                    "the file that was read last is gone or was overwritten; reading the one at its path from the beginning"
                );
                tail(File::open(path)?, position.generation + 1, 0)
            }
        }
    }

    fn begin(
        path: &Path,
        mut file: File,
        generation: u64,
        offset: u64,
        max_line_bytes: usize,
        follow: bool,
    ) -> io::Result<Self> {
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        let id = FileId::of(&file, offset)?;
        let lines = Lines::new(file, offset, max_line_bytes);
        Ok(Self { path: path.to_owned(), max_line_bytes, follow, lines, id, generation, is_leaving: false })
    }

    /// Looks for at most `max` lines.
    pub(super) fn look(&mut self, max: usize) -> io::Result<Look> {
        loop {
            let (lines, _) = self.lines.read(max)?;
            if !lines.is_empty() && self.still_is_that_file(&lines)? {
                self.is_leaving = false;
                return Ok(self.found(lines));
            }
            match self.what_is_at_the_path()? {
                Named::Nothing | Named::Same if self.follow => return Ok(Look::Nothing),
                Named::Nothing | Named::Same => {
                    return match self.lines.take_unterminated() {
                        Some(line) => Ok(self.found(vec![line])),
                        None => Ok(Look::End),
                    };
                }
                Named::Other(_) if self.follow && !self.is_leaving => {
                    self.is_leaving = true;
                    return Ok(Look::Nothing);
                }
                Named::Other(file) => {
                    // Of a file that was emptied or overwritten, what is buffered may be a piece of its new content.
                    if !self.id.may_be(&file.metadata()?)
                        && let Some(line) = self.lines.take_unterminated()
                    {
                        return Ok(self.found(vec![line]));
                    }
                    tracing::info!(path = %self.path.display(), "the file was rotated or truncated; going on with the new one");
                    let next = self.generation + 1;
                    *self = Self::begin(&self.path, file, next, 0, self.max_line_bytes, self.follow)?;
                }
            }
        }
    }

    fn found(&self, lines: Vec<Line>) -> Look {
        Look::Lines { generation: self.generation, file: self.id.clone(), lines }
    }

    /// Takes more of the file's beginning into its fingerprint, unless that shows that it was overwritten: then the
    /// lines are not what follows those before, and the file is read again from its beginning.
    fn still_is_that_file(&mut self, lines: &[Line]) -> io::Result<bool> {
        let end = lines.last().map_or(0, |line| line.end);
        if !self.id.is_short_for(end) {
            return Ok(true);
        }
        let is_same = self.id.matches(self.lines.input())?;
        if is_same {
            self.id = FileId::of(self.lines.input(), end)?;
        }
        Ok(is_same)
    }

    fn what_is_at_the_path(&self) -> io::Result<Named> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Named::Nothing),
            Err(error) => return Err(error),
        };
        let is_same = self.id.matches(&file)? && file.metadata()?.len() >= self.lines.position();
        Ok(if is_same { Named::Same } else { Named::Other(file) })
    }
}

/// What stands at the path.
enum Named {
    Nothing,
    /// The open file.
    Same,
    /// Another one, or the open one emptied.
    Other(File),
}

/// The file with that id in the folder of `path`.
fn find_renamed(path: &Path, id: &FileId) -> io::Result<Option<File>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    for entry in fs::read_dir(folder)?.take(MAX_SIBLINGS) {
        let entry = entry?;
        // A file that vanishes while it is looked at is not the one.
        if entry.metadata().is_ok_and(|metadata| metadata.is_file() && id.may_be(&metadata))
            && let Ok(file) = File::open(entry.path())
            && id.matches(&file)?
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
    }

    impl Fixture {
        fn new(text: &str) -> Self {
            let fixture = Self { folder: tempfile::tempdir().expect("a folder") };
            fixture.write(text);
            fixture
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("in.jsonl")
        }

        fn write(&self, text: &str) {
            fs::write(self.path(), text).expect("written");
        }

        fn append(&self, name: &str, text: &str) {
            let mut file = File::options().append(true).open(self.folder.path().join(name)).expect("open");
            file.write_all(text.as_bytes()).expect("written");
        }

        fn rotate(&self) {
            fs::rename(self.path(), self.folder.path().join("in.jsonl.1")).expect("renamed");
        }

        fn open(&self, position: Option<&Position>, follow: bool) -> Tail {
            Tail::open(&self.path(), position, 100, follow).expect("opened")
        }
    }

    /// Texts and the position after the last, `None` when there was nothing.
    fn look(tail: &mut Tail) -> (Vec<String>, Option<Position>) {
        match tail.look(100).expect("a look") {
            Look::Lines { generation, file, lines } => {
                let offset = lines.last().expect("a line").end;
                let texts = lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect();
                (texts, Some(Position { generation, offset, file }))
            }
            Look::Nothing | Look::End => (Vec::new(), None),
        }
    }

    #[test]
    fn a_file_that_is_not_followed_ends_after_its_last_line() {
        let fixture = Fixture::new("1\n2\n3");
        let mut tail = fixture.open(None, false);
        assert_eq!(look(&mut tail).0, ["1", "2"]);
        assert_eq!(look(&mut tail).0, ["3"]);
        assert!(matches!(tail.look(1), Ok(Look::End)));
    }

    #[test]
    fn a_followed_file_gives_lines_when_they_are_whole() {
        let fixture = Fixture::new("1\n2");
        let mut tail = fixture.open(None, true);
        assert_eq!(look(&mut tail).0, ["1"]);
        assert_eq!(look(&mut tail).1, None);
        fixture.append("in.jsonl", "2\n3\n");
        assert_eq!(look(&mut tail).0, ["22", "3"]);
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_before_the_new_one() {
        let fixture = Fixture::new("1\n");
        let mut tail = fixture.open(None, true);
        assert_eq!(look(&mut tail).0, ["1"]);
        fixture.rotate();
        assert_eq!(look(&mut tail).1, None);
        fixture.write("new\n");
        assert_eq!(look(&mut tail).1, None);
        fixture.append("in.jsonl.1", "late\nunfinished");
        assert_eq!(look(&mut tail).0, ["late"]);
        assert_eq!(look(&mut tail).1, None);
        assert_eq!(look(&mut tail).0, ["unfinished"]);
        let (lines, position) = look(&mut tail);
        assert_eq!((lines, position.expect("a position").generation), (vec!["new".to_owned()], 2));
    }

    #[test]
    fn a_truncated_file_is_read_from_its_beginning() {
        let fixture = Fixture::new("111\n222\n");
        let mut tail = fixture.open(None, true);
        assert_eq!(look(&mut tail).0.len(), 2);
        fixture.write("3\n");
        assert_eq!(look(&mut tail).1, None);
        let (lines, position) = look(&mut tail);
        assert_eq!((lines, position.expect("a position").generation), (vec!["3".to_owned()], 2));
    }

    #[test]
    fn a_file_overwritten_by_a_longer_one_is_read_from_its_beginning() {
        let fixture = Fixture::new("1\n");
        let mut tail = fixture.open(None, false);
        assert_eq!(look(&mut tail).0, ["1"]);
        fixture.write("2\n3\n");
        let mut rest = Vec::new();
        while let (lines, Some(_)) = look(&mut tail) {
            rest.extend(lines);
        }
        assert_eq!(rest, ["2", "3"]);
    }

    #[test]
    fn a_restart_goes_on_at_the_position() {
        let fixture = Fixture::new("1\n2\n");
        let (_, position) = look(&mut fixture.open(None, true));
        fixture.append("in.jsonl", "3\n");
        assert_eq!(look(&mut fixture.open(position.as_ref(), true)).0, ["3"]);
    }

    #[test]
    fn a_restart_finds_the_file_that_was_rotated_meanwhile() {
        let fixture = Fixture::new("1\n");
        let (_, position) = look(&mut fixture.open(None, true));
        fixture.append("in.jsonl", "2\n");
        fixture.rotate();
        fixture.write("3\n");
        let mut tail = fixture.open(position.as_ref(), false);
        assert_eq!(look(&mut tail).0, ["2"]);
        assert_eq!(look(&mut tail).0, ["3"]);
        assert!(matches!(tail.look(1), Ok(Look::End)));
    }

    #[test]
    fn a_restart_after_the_file_was_replaced_begins_anew() {
        let fixture = Fixture::new("1\n2\n");
        let (_, position) = look(&mut fixture.open(None, true));
        fixture.write("a\nb\nc\n");
        let (lines, position) = look(&mut fixture.open(position.as_ref(), true));
        assert_eq!((lines.len(), position.expect("a position").generation), (3, 2));
    }

    #[test]
    fn a_folder_or_a_missing_file_is_an_error() {
        let fixture = Fixture::new("");
        assert!(Tail::open(fixture.folder.path(), None, 100, true).is_err());
        assert!(Tail::open(&fixture.folder.path().join("none"), None, 100, true).is_err());
    }
}
