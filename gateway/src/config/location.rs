//! Where something stands in the configuration, and the text of the files it came from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which file, by its place in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// A stretch of text in a file. Lines and columns count from 1, columns in characters; the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file.
    pub file: FileId,
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column after the last character.
    pub end_column: u32,
}

impl Location {
    /// A single character.
    pub fn point(file: FileId, line: u32, column: u32) -> Self {
        Self { file, line, column, end_line: line, end_column: column.saturating_add(1) }
    }
}

/// Every file that was read, kept to show the lines that diagnostics are about.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<SourceFile>);

#[derive(Debug, Clone)]
struct SourceFile {
    path: PathBuf,
    text: Arc<str>,
    /// Stretches that hold secrets written out in the file.
    concealed: Vec<Location>,
}

impl Sources {
    /// Adds a file under the path that people know it by.
    pub fn add(&mut self, path: impl Into<PathBuf>, text: impl Into<Arc<str>>) -> FileId {
        self.0.push(SourceFile { path: path.into(), text: text.into(), concealed: Vec::new() });
        FileId((self.0.len() - 1) as u32)
    }

    /// The path of a file.
    pub fn path(&self, file: FileId) -> &Path {
        self.0.get(file.0 as usize).map_or(Path::new(""), |f| f.path.as_path())
    }

    /// All paths, in the order in which they were read.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|file| file.path.as_path())
    }

    /// Never shows this stretch again.
    pub(crate) fn conceal(&mut self, location: Location) {
        if let Some(file) = self.0.get_mut(location.file.0 as usize) {
            file.concealed.push(location);
        }
    }

    /// A line as it may be shown: secrets and the passwords of URLs as asterisks, tabs as one space, so that columns
    /// stay what they are.
    pub(crate) fn shown_line(&self, file: FileId, line: u32) -> Option<String> {
        let file = self.0.get(file.0 as usize)?;
        let text = file.text.lines().nth(line.checked_sub(1)? as usize)?;
        let mut shown: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for hidden in file.concealed.iter().filter(|hidden| hidden.line <= line && line <= hidden.end_line) {
            let from = if hidden.line == line { hidden.column.saturating_sub(1) as usize } else { 0 };
            let to = if hidden.end_line == line { hidden.end_column.saturating_sub(1) as usize } else { shown.len() };
            let to = to.min(shown.len());
            if from < to {
                shown[from..to].fill('*');
            }
        }
        hide_passwords(&mut shown);
        Some(shown.into_iter().collect())
    }
}

/// Turns `user:password@` of every URL in the line into `user:********@`.
fn hide_passwords(line: &mut [char]) {
    let mut start = 0;
    while let Some(found) = line[start..].windows(3).position(|w| w == [':', '/', '/']) {
        let authority = start + found + 3;
        let end = line[authority..]
            .iter()
            .position(|c| matches!(c, '/' | ' ' | '"' | '\'' | '?' | '#'))
            .map_or(line.len(), |offset| authority + offset);
        if let Some(at) = line[authority..end].iter().rposition(|c| *c == '@')
            && let Some(colon) = line[authority..authority + at].iter().position(|c| *c == ':')
        {
            line[authority + colon + 1..authority + at].fill('*');
        }
        start = authority;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_and_concealed_stretches_are_not_shown() {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml", "url: amqp://me:pa:ss@host/x, b: redis://h:6379\nkey: hunter2 # x\n");
        sources.conceal(Location { file, line: 2, column: 6, end_line: 2, end_column: 13 });
        assert_eq!(sources.shown_line(file, 1).as_deref(), Some("url: amqp://me:*****@host/x, b: redis://h:6379"),);
        assert_eq!(sources.shown_line(file, 2).as_deref(), Some("key: ******* # x"));
        assert_eq!(sources.shown_line(file, 3), None);
    }

    #[test]
    fn a_secret_of_several_lines_is_hidden_on_each() {
        let mut sources = Sources::default();
        let file = sources.add("a.yaml", "key: |\n  one\n  two\nnext: 1\n");
        sources.conceal(Location { file, line: 1, column: 6, end_line: 4, end_column: 1 });
        assert_eq!(sources.shown_line(file, 2).as_deref(), Some("*****"));
        assert_eq!(sources.shown_line(file, 4).as_deref(), Some("next: 1"));
    }
}
