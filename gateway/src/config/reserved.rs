//! What belongs to later versions: accepted by nobody, refused in words that say so rather than as an unknown key.

use super::diagnostic::Diagnostic;
use super::tree::{Node, join, split_last};

/// The places of a tree that hold something of a later version.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    pointers: Vec<String>,
}

impl Reserved {
    /// Finds them all, each with its diagnostic.
    pub(crate) fn find(root: &Node) -> (Self, Vec<(String, Diagnostic)>) {
        let mut found = Finder { root, wrong: Vec::new() };
        found.plugins();
        let pointers = found.wrong.iter().map(|(pointer, _)| pointer.clone()).collect();
        (Self { pointers }, found.wrong)
    }

    /// Whether enough was said about what is at or below `pointer`.
    pub(crate) fn covers(&self, pointer: &str) -> bool {
        self.pointers
            .iter()
            .any(|p| pointer.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Whether enough was said about a child of `pointer`, so that its number of children says nothing more.
    pub(crate) fn is_within(&self, pointer: &str) -> bool {
        self.pointers.iter().any(|p| split_last(p).0 == pointer)
    }
}

struct Finder<'t> {
    root: &'t Node,
    wrong: Vec<(String, Diagnostic)>,
}

impl Finder<'_> {
    fn refuse(&mut self, pointer: String, what: &str, hint: &str) {
        let text = format!("{what} belongs to a later version of Sluicegate");
        let diagnostic = Diagnostic::new(self.root.key_place(&pointer), self.root.path(&pointer), text).hint(hint);
        self.wrong.push((pointer, diagnostic));
    }

    fn plugins(&mut self) {
        for entry in self.root.get("plugins").map(Node::entries).unwrap_or_default() {
            let pointer = join("/plugins", &entry.key);
            if entry.value.get("upload").is_some() {
                self.refuse(join(&pointer, "upload"), "an uploaded plugin", "name a component by `file`");
            }
        }
    }
}
