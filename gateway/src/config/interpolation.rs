//! Fills in `${VAR}`, `${VAR:-default}` and `${file:/path}` inside text values, after YAML was parsed: whatever a variable
//! holds, it stays a text. `$${` is a literal `${`; a `$` without `{` means itself.

use std::collections::HashMap;
use std::env::VarError;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::location::Location;
use super::surroundings::Surroundings;
use super::tree::{Filling, Node, NodeValue};

/// Largest file that `${file:…}` reads.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Longest text that filling in may make, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Fills in every text of a tree. `base` is the folder of the file the tree came from.
pub(crate) fn fill(root: &mut Node, base: &Path, surroundings: &dyn Surroundings) -> Vec<Diagnostic> {
    let mut filler = Filler { base, surroundings, files: HashMap::new() };
    let mut wrong = Vec::new();
    let mut found = Vec::new();
    root.walk(&mut |pointer, node| {
        if node.text().is_some_and(|text| text.contains("${")) {
            found.push((pointer.to_owned(), root.path(pointer)));
        }
    });
    for (pointer, path) in found {
        let Some(node) = root.find_mut(&pointer) else { continue };
        let Some(text) = node.text() else { continue };
        match filler.fill(text) {
            Ok(filled) => {
                node.filling = if filled.literal { Filling::None } else { Filling::Filled };
                node.value = NodeValue::Text(filled.text);
            }
            Err(problems) => {
                node.filling = Filling::Failed;
                let at: Location = node.at;
                wrong.extend(problems.into_iter().map(|p| Diagnostic::new(at, &*path, p.text).hint(p.hint)));
            }
        }
    }
    wrong
}

#[derive(Debug, PartialEq)]
struct Filled {
    text: String,
    /// Nothing but escapes was replaced.
    literal: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Problem {
    text: String,
    hint: String,
}

impl Problem {
    fn new(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: hint.into() }
    }
}

struct Filler<'s> {
    base: &'s Path,
    surroundings: &'s dyn Surroundings,
    /// Each file is read once, however often it is named.
    files: HashMap<PathBuf, Result<String, Problem>>,
}

impl Filler<'_> {
    fn fill(&mut self, text: &str) -> Result<Filled, Vec<Problem>> {
        let mut filled = Filled { text: String::with_capacity(text.len()), literal: true };
        let mut problems = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find("${") {
            let (before, from) = rest.split_at(dollar);
            if let Some(before) = before.strip_suffix('$') {
                filled.text.push_str(before);
                filled.text.push_str("${");
                rest = &from[2..];
                continue;
            }
            filled.text.push_str(before);
            filled.literal = false;
            let Some(end) = from.find('}') else {
                problems.push(Problem::new("`${` without its `}`", "close it, or write `$${` for a literal `${`"));
                return Err(problems);
            };
            match self.value(&from[2..end]) {
                Ok(value) => filled.text.push_str(&value),
                Err(problem) => problems.push(problem),
            }
            if filled.text.len() > MAX_TEXT_BYTES {
                let text = format!("the text is longer than {MAX_TEXT_BYTES} bytes once it is filled in");
                problems.push(Problem::new(text, "fill in less"));
                return Err(problems);
            }
            rest = &from[end + 1..];
        }
        filled.text.push_str(rest);
        if problems.is_empty() { Ok(filled) } else { Err(problems) }
    }

    fn value(&mut self, inside: &str) -> Result<String, Problem> {
        if let Some(path) = inside.strip_prefix("file:") {
            return self.file(path);
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(Problem::new(
                format!("`${{{inside}}}` names no environment variable"),
                "write `${NAME}`, `${NAME:-default}` or `${file:/path}`; write `$${` for a literal `${`",
            ));
        }
        // As in a shell, `:-` also stands in for a variable that is set to nothing.
        match (self.surroundings.variable(name), default) {
            (Ok(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
            (Ok(value), _) => Ok(value),
            (Err(VarError::NotPresent), Some(default)) => Ok(default.to_owned()),
            (Err(VarError::NotPresent), None) => Err(Problem::new(
                format!("the environment variable `{name}` is not set"),
                format!("set it, or give a default: `${{{name}:-default}}`"),
            )),
            (Err(VarError::NotUnicode(_)), _) => {
                Err(Problem::new(format!("the environment variable `{name}` is not valid UTF-8"), "set it to text"))
            }
        }
    }

    fn file(&mut self, path: &str) -> Result<String, Problem> {
        if path.is_empty() {
            return Err(Problem::new("`${file:}` names no file", "write `${file:/path}`"));
        }
        let path = self.base.join(path);
        if let Some(known) = self.files.get(&path) {
            return known.clone();
        }
        let content = read_text(&path, self.surroundings);
        self.files.insert(path, content.clone());
        content
    }
}

fn read_text(path: &Path, surroundings: &dyn Surroundings) -> Result<String, Problem> {
    let hint = "the file must exist, be readable by the gateway, be text and not exceed 64 KiB";
    let name = path.display();
    let bytes = surroundings
        .read(path, MAX_FILE_BYTES)
        .map_err(|error| Problem::new(format!("cannot read `{name}` to fill it in: {error}"), hint))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Problem::new(format!("cannot fill in `{name}`: it is not valid UTF-8"), hint))?;
    // Editors and `echo` end a file with a line break that is no part of the secret.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Surroundings for Fixed {
        fn variable(&self, name: &str) -> Result<String, VarError> {
            match name {
                "HOST" => Ok("broker".into()),
                "EMPTY" => Ok(String::new()),
                "SLY" => Ok("a: {b: ${HOST}}\n- c".into()),
                _ => Err(VarError::NotPresent),
            }
        }

        fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/etc/sluicegate/secret") => Ok(b"hunter2\n\n".to_vec()),
                Some("/run/windows") => Ok(b"hunter3\r\n".to_vec()),
                Some("/run/binary") => Ok(vec![0xff]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        }

        fn list(&self, _: &Path) -> io::Result<Option<Vec<PathBuf>>> {
            Ok(None)
        }
    }

    fn filled(text: &str) -> Result<String, String> {
        let mut filler = Filler { base: Path::new("/etc/sluicegate"), surroundings: &Fixed, files: HashMap::new() };
        filler.fill(text).map(|f| f.text).map_err(|p| p.into_iter().map(|p| p.text).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn variables_defaults_and_files_are_filled_in() {
        for (text, expected) in [
            ("amqp://${HOST}:5672", "amqp://broker:5672"),
            ("${HOST}${HOST}", "brokerbroker"),
            ("${NONE:-x:-y}", "x:-y"),
            ("${EMPTY:-x}", "x"),
            ("<${EMPTY}>", "<>"),
            ("${NONE:-}", ""),
            ("${SLY}", "a: {b: ${HOST}}\n- c"),
            ("${file:secret}", "hunter2\n"),
            ("${file:/run/windows}", "hunter3"),
            ("$${HOST} $HOST $", "${HOST} $HOST $"),
            ("$$${HOST}", "$${HOST}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        for (text, expected) in [
            (
                "${NONE}${ALSO}",
                "the environment variable `NONE` is not set; the environment variable `ALSO` is not set",
            ),
            ("${", "`${` without its `}`"),
            ("${}", "`${}` names no environment variable"),
            ("${1A}", "`${1A}` names no environment variable"),
            ("${a-b}", "`${a-b}` names no environment variable"),
            ("${file:}", "`${file:}` names no file"),
            ("${file:/run/binary}", "cannot fill in `/run/binary`: it is not valid UTF-8"),
        ] {
            assert_eq!(filled(text), Err(expected.to_owned()), "{text}");
        }
        assert!(
            filled("${file:/run/none}").expect_err("missing").starts_with("cannot read `/run/none` to fill it in: ")
        );
    }

    proptest! {
        #[test]
        fn filling_in_never_panics(text in "[$\\{\\}:\\-A-Zfile/ é]{0,60}") {
            drop(filled(&text));
        }

        #[test]
        fn text_without_an_opening_is_left_as_it_is(text in "[^{]{0,60}") {
            prop_assert_eq!(filled(&text), Ok(text));
        }
    }
}
