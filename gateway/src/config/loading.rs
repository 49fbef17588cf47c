//! Loading: from paths to a configuration, or to every mistake in it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::attachments;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::interpolation;
use super::location::{FileId, Location, Sources};
use super::reserved::Reserved;
use super::resolve::{self, Whose};
use super::resolved::Config;
use super::shape;
use super::surroundings::Surroundings;
use super::tree::{Entry, Filling, Node, NodeValue, join, split_last, tokens};
use super::written::{ConfigFile, Written};
use super::yaml;

/// Largest configuration file.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Most files of a configuration.
pub const MAX_FILES: usize = 1_000;

/// Sections of which several files may each have a part.
const MERGED: [&str; 5] = ["schemas", "plugins", "queues", "pipelines", "tests"];

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What to build from.
    pub config: Config,
    /// The files it came from, to show places in them.
    pub sources: Sources,
    root: Node,
}

impl Loaded {
    /// The configuration as written, after merging and filling in: for places and for what only people need.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// A mistake at a JSON pointer of the merged configuration, such as `/pipelines/orders/steps/0`.
    pub fn mistake(&self, pointer: &str, text: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.root.place(pointer), self.root.path(pointer), text)
    }

    /// Mistakes found after loading, to be shown with their lines.
    pub fn diagnostics(&self, list: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(list, self.sources.clone())
    }
}

/// Reads `paths` (files, and folders of `.yaml` and `.yml` files) as one configuration.
///
/// Reads files; blocking. At most 1,000 files of 4 MiB; named schemas of 1 MiB, components of 10 MiB.
///
/// # Errors
/// Every mistake that can be found without connecting to anything.
pub fn load(paths: &[PathBuf], surroundings: &dyn Surroundings) -> Result<Loaded, Diagnostics> {
    let mut loading = Loading::new(surroundings);
    let outcome = loading.all(paths);
    loading.finish(outcome)
}

pub(super) struct Loading<'s> {
    surroundings: &'s dyn Surroundings,
    pub(super) sources: Sources,
    /// The folder of each file: where its relative paths start.
    pub(super) bases: HashMap<FileId, PathBuf>,
    pub(super) wrong: Vec<Diagnostic>,
}

impl<'s> Loading<'s> {
    pub(super) fn new(surroundings: &'s dyn Surroundings) -> Self {
        Self { surroundings, sources: Sources::default(), bases: HashMap::new(), wrong: Vec::new() }
    }

    pub(super) fn finish(self, outcome: Option<(Config, Node)>) -> Result<Loaded, Diagnostics> {
        match outcome {
            Some((config, root)) if self.wrong.is_empty() => Ok(Loaded { config, sources: self.sources, root }),
            _ => Err(Diagnostics::new(self.wrong, self.sources)),
        }
    }
}

impl Loading<'_> {
    fn all(&mut self, paths: &[PathBuf]) -> Option<(Config, Node)> {
        let files = self.files(paths);
        let parts: Vec<Node> = files.iter().filter_map(|path| self.part(path)).collect();
        let unreadable = !self.wrong.is_empty() && parts.len() < files.len().max(1);
        let root = self.merge(parts)?;
        self.settle(root, !unreadable, Whose::Operator)
    }

    /// From a whole tree to a configuration. `is_whole`: whatever it names and does not define is not defined anywhere.
    pub(super) fn settle(&mut self, mut root: Node, is_whole: bool, whose: Whose) -> Option<(Config, Node)> {
        shape::conceal_secrets(&root, &mut self.sources);
        let (reserved, mut wrong) = Reserved::find(&root);
        wrong.extend(shape::check(&mut root, &reserved));
        let written = self.deserialise(&root, &mut wrong);
        let config = match written {
            Some(written) => {
                let (config, mistakes) = self.resolve(&written, &root, whose);
                // Names may be defined in the file that could not be read.
                if is_whole {
                    wrong.extend(mistakes);
                }
                Some(config)
            }
            None => None,
        };
        self.wrong.extend(wrong.into_iter().filter_map(|(pointer, diagnostic)| discreet(&root, &pointer, diagnostic)));
        config.map(|config| (config, root))
    }

    fn resolve(&mut self, written: &Written, root: &Node, whose: Whose) -> (Config, Vec<(String, Diagnostic)>) {
        let bases = &self.bases;
        let base_of = |place: Location| bases.get(&place.file).cloned().unwrap_or_default();
        let (attachments, mut wrong) =
            attachments::read(&written.file, root, &base_of, self.surroundings, &mut self.sources);
        let (config, mistakes) = resolve::resolve(written, root, &attachments, &base_of, whose);
        wrong.extend(mistakes);
        (config, wrong)
    }

    /// The files that `paths` stand for.
    fn files(&mut self, paths: &[PathBuf]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in paths {
            match self.surroundings.list(path) {
                Ok(None) => files.push(path.clone()),
                Ok(Some(mut found)) => {
                    found.retain(|file| is_config(file));
                    found.sort();
                    if found.is_empty() {
                        self.outside(path, "the folder has no `.yaml` or `.yml` file");
                    }
                    files.append(&mut found);
                }
                Err(error) => self.unreadable(path, &error),
            }
        }
        if paths.is_empty() {
            self.wrong
                .push(Diagnostic::new(None, "", "no configuration file is named").hint("name a file or a folder"));
        }
        if files.len() > MAX_FILES {
            let text = format!("{} configuration files, more than {MAX_FILES}", files.len());
            self.wrong.push(Diagnostic::new(None, "", text));
            files.truncate(MAX_FILES);
        }
        files
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "check the path; relative paths start in the current folder",
            io::ErrorKind::PermissionDenied => "let the gateway's user read it",
            _ => "a configuration file is a text file of at most 4 MiB",
        };
        let text = format!("cannot read the configuration `{}`: {error}", path.display());
        self.wrong.push(Diagnostic::new(None, "", text).hint(hint));
    }

    fn outside(&mut self, path: &Path, text: &str) {
        self.wrong.push(Diagnostic::new(None, "", format!("`{}`: {text}", path.display())));
    }

    /// One file: read, parsed, filled in.
    fn part(&mut self, path: &Path) -> Option<Node> {
        let bytes = match self.surroundings.read(path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unreadable(path, &error);
                return None;
            }
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
                self.outside(path, &format!("not valid UTF-8 in line {line}; save it as UTF-8"));
                return None;
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let file = self.sources.add(path, text);
        let base = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        let base = base.unwrap_or_default();
        let mut node = match yaml::parse(file, text) {
            Ok(node) => node,
            Err(wrong) => {
                self.wrong.extend(wrong);
                return None;
            }
        };
        self.wrong.extend(interpolation::fill(&mut node, &base, self.surroundings));
        self.bases.insert(file, base);
        Some(node)
    }

    /// Several files as one. Keys that begin with `x-` are the author's own, a place for anchors.
    fn merge(&mut self, parts: Vec<Node>) -> Option<Node> {
        let mut parts = parts.into_iter();
        let mut root = parts.next()?;
        for part in parts {
            match (&mut root.value, part.value) {
                (NodeValue::Map(entries), NodeValue::Map(more)) => {
                    for entry in more {
                        self.merge_entry(entries, entry);
                    }
                }
                // The shape check says that this is no mapping.
                (NodeValue::Map(_), _) => {
                    let text = "expected a mapping with `pipelines:` and other sections";
                    self.wrong.push(Diagnostic::new(part.at, "", text));
                }
                (_, _) => {}
            }
        }
        if let NodeValue::Map(entries) = &mut root.value {
            entries.retain(|entry| !entry.key.starts_with("x-"));
        }
        Some(root)
    }

    fn merge_entry(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        let Some(first) = entries.iter_mut().find(|first| first.key == entry.key) else {
            entries.push(entry);
            return;
        };
        let merged = MERGED.contains(&entry.key.as_str());
        match (&mut first.value.value, entry.value.value) {
            _ if entry.key.starts_with("x-") => {}
            (_, NodeValue::Null) => {}
            (value @ NodeValue::Null, other) => *value = other,
            (NodeValue::List(items), NodeValue::List(more)) if merged => items.extend(more),
            (NodeValue::Map(known), NodeValue::Map(more)) if merged => {
                for item in more {
                    match known.iter().find(|other| other.key == item.key) {
                        None => known.push(item),
                        Some(other) => self.wrong.push(
                            Diagnostic::new(
                                item.key_at,
                                format!("{}.{}", entry.key, item.key),
                                format!("`{}` is defined twice under `{}`", item.key, entry.key),
                            )
                            .related(other.key_at, "the first one")
                            .hint("rename or remove one of them"),
                        ),
                    }
                }
            }
            (_, _) => self.wrong.push(
                Diagnostic::new(entry.key_at, entry.key.clone(), format!("`{}` stands in two files", entry.key))
                    .related(first.key_at, "the first one")
                    .hint("keep it in one file"),
            ),
        }
    }

    /// Deserialises all entries of the right shape, so that they can be checked further whatever is wrong with others.
    /// With them come the places of the tests among all that are written.
    fn deserialise(&mut self, root: &Node, wrong: &mut Vec<(String, Diagnostic)>) -> Option<Written> {
        let value = root.to_json();
        value.as_object()?;
        let mut broken: HashSet<String> = wrong.iter().map(|(pointer, _)| entry_of(pointer)).collect();
        // Each round takes out an entry that could not be read; there are no more rounds than entries.
        loop {
            let mut whole = value.clone();
            let tests = without(&mut whole, &broken);
            let error = match serde_path_to_error::deserialize::<_, ConfigFile>(whole) {
                Ok(file) => return Some(Written { file, tests }),
                Err(error) => error,
            };
            let pointer = pointer_of(error.path(), &tests);
            let text = format!("this cannot be understood: {}", error.inner());
            wrong.push((pointer.clone(), Diagnostic::new(root.place(&pointer), root.path(&pointer), text)));
            let entry = entry_of(&pointer);
            if entry.is_empty() || !broken.insert(entry) {
                return None;
            }
        }
    }
}

/// Shorter texts are too common to be taken for what `${…}` stood for, and too short to be a secret.
const MIN_SECRET_CHARS: usize = 4;

/// Takes out of a diagnostic what `${…}` stood for, which may be a secret; drops it if that is missing, which has been
/// said.
fn discreet(root: &Node, pointer: &str, mut diagnostic: Diagnostic) -> Option<Diagnostic> {
    let Some(node) = root.find(pointer) else { return Some(diagnostic) };
    match (node.filling, node.text()) {
        (Filling::Failed, _) => None,
        (Filling::Filled, Some(value)) if value.chars().count() >= MIN_SECRET_CHARS => {
            diagnostic.text = diagnostic.text.replace(value, "${…}");
            diagnostic.hint = diagnostic.hint.map(|hint| hint.replace(value, "${…}"));
            Some(diagnostic)
        }
        _ => Some(diagnostic),
    }
}

fn is_config(file: &Path) -> bool {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let hidden = file.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
    matches!(extension, Some("yaml" | "yml")) && !hidden
}

/// What is left out for a mistake at `pointer`, so that all the rest can be checked: as little as leaves the rest
/// meaningful. A pipeline stays without its steps, but not without its source.
fn entry_of(pointer: &str) -> String {
    let path: Vec<String> = tokens(pointer).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let depth = match path.as_slice() {
        ["pipelines", _, "source", ..] => 2,
        ["pipelines", _, "targets", _, ..] => 4,
        ["plugins", _, "file" | "builtin" | "upload", ..] => 2,
        ["pipelines" | "plugins", _, _, ..] => 3,
        ["pipelines" | "plugins" | "schemas" | "tests", _, ..] => 2,
        _ => 1,
    };
    pointer.split('/').take(depth + 1).collect::<Vec<_>>().join("/")
}

/// Removes entries; returns the places that the remaining tests had.
fn without(value: &mut Value, entries: &HashSet<String>) -> Vec<usize> {
    for entry in entries.iter().filter(|entry| !entry.starts_with("/tests/")) {
        let (parent, key) = split_last(entry);
        if let Some(Value::Object(parent)) = value.pointer_mut(parent) {
            parent.shift_remove(&key);
        }
    }
    let mut kept = Vec::new();
    if let Some(Value::Array(tests)) = value.get_mut("tests") {
        let mut index = 0;
        tests.retain(|_| {
            let keep = !entries.contains(&format!("/tests/{index}"));
            if keep {
                kept.push(index);
            }
            index += 1;
            keep
        });
    }
    kept
}

/// `tests` are the places of the remaining tests among all.
fn pointer_of(path: &serde_path_to_error::Path, tests: &[usize]) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        let token = match segment {
            Segment::Seq { index } if pointer == "/tests" => tests.get(*index).unwrap_or(index).to_string(),
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.clone(),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        pointer = join(&pointer, &token);
    }
    pointer
}
