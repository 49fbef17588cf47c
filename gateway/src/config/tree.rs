//! The configuration as written: a tree of values, each with its place. What YAML adds (anchors, styles, tags) is gone.

use serde_json::{Map, Number, Value};

use super::location::Location;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value's place; for a mapping or list its beginning.
    pub at: Location,
    /// The value.
    pub value: NodeValue,
    /// What became of `${…}` in it.
    pub filling: Filling,
}

/// See [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub enum NodeValue {
    /// Nothing was written.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written, each key once.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's place.
    pub key_at: Location,
    /// Its value.
    pub value: Node,
}

/// What became of `${…}` in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filling {
    /// There was none.
    #[default]
    None,
    /// It was filled in. The text may be secret, and may stand for a number or a boolean.
    Filled,
    /// It could not be filled in, which has been said; nothing more is to be said about this value.
    Failed,
}

impl Node {
    /// A value without `${…}`.
    pub fn new(at: Location, value: NodeValue) -> Self {
        Self { at, value, filling: Filling::None }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            NodeValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            NodeValue::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entry of a key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Whether it came from `${…}`, so that it may be secret.
    pub fn was_filled(&self) -> bool {
        self.filling != Filling::None
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value at a JSON pointer (RFC 6901).
    pub fn find(&self, pointer: &str) -> Option<&Self> {
        let mut node = self;
        for token in tokens(pointer) {
            node = match &node.value {
                NodeValue::List(items) => items.get(token.parse::<usize>().ok()?)?,
                _ => node.get(&token)?,
            };
        }
        Some(node)
    }

    /// As [`find`](Self::find), to change it.
    pub fn find_mut(&mut self, pointer: &str) -> Option<&mut Self> {
        let mut node = self;
        for token in tokens(pointer) {
            node = match &mut node.value {
                NodeValue::List(items) => items.get_mut(token.parse::<usize>().ok()?)?,
                NodeValue::Map(entries) => &mut entries.iter_mut().find(|entry| entry.key == token)?.value,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Where to point for what is at `pointer`: at a scalar itself, at the key of anything larger; at the nearest
    /// thing around it if there is nothing at the pointer.
    pub fn place(&self, pointer: &str) -> Location {
        let (mut node, mut place) = (self, self.at);
        for token in tokens(pointer) {
            let next = match &node.value {
                NodeValue::List(items) => token.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n, n.at)),
                _ => node.entry(&token).map(|entry| (&entry.value, entry.place())),
            };
            let Some((found, at)) = next else { return place };
            (node, place) = (found, at);
        }
        place
    }

    /// Where the key at `pointer` stands, or else as [`place`](Self::place).
    pub fn key_place(&self, pointer: &str) -> Location {
        let (parent, key) = split_last(pointer);
        self.find(parent).and_then(|node| node.entry(&key)).map_or_else(|| self.place(pointer), |entry| entry.key_at)
    }

    /// The way to `pointer` as people write it: `pipelines.orders.steps[2].filter`.
    pub fn path(&self, pointer: &str) -> String {
        let (mut node, mut path) = (Some(self), String::new());
        for token in tokens(pointer) {
            let list = node.is_some_and(|node| matches!(node.value, NodeValue::List(_)));
            if list {
                path.push_str(&format!("[{token}]"));
            } else {
                if !path.is_empty() {
                    path.push('.');
                }
                let plain = !token.is_empty() && token.chars().all(|c| c.is_alphanumeric() || "-_".contains(c));
                if plain { path.push_str(&token) } else { path.push_str(&format!("{token:?}")) }
            }
            node = node.and_then(|node| node.find(&join("", &token)));
        }
        path
    }

    /// The same as JSON, without places.
    pub fn to_json(&self) -> Value {
        match &self.value {
            NodeValue::Null => Value::Null,
            NodeValue::Bool(value) => Value::Bool(*value),
            NodeValue::Number(number) => Value::Number(number.clone()),
            NodeValue::Text(text) => Value::String(text.clone()),
            NodeValue::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            NodeValue::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// Calls `visit` for this and every value below, with its pointer.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&str, &'a Self)) {
        fn below<'a>(node: &'a Node, pointer: &mut String, visit: &mut dyn FnMut(&str, &'a Node)) {
            visit(pointer, node);
            let length = pointer.len();
            for (index, item) in node.items().iter().enumerate() {
                push(pointer, &index.to_string());
                below(item, pointer, visit);
                pointer.truncate(length);
            }
            for entry in node.entries() {
                push(pointer, &entry.key);
                below(&entry.value, pointer, visit);
                pointer.truncate(length);
            }
        }
        below(self, &mut String::new(), visit);
    }
}

impl Entry {
    /// Where to point for it: a short value itself, else its key.
    fn place(&self) -> Location {
        match self.value.value {
            NodeValue::Map(_) | NodeValue::List(_) | NodeValue::Null => self.key_at,
            NodeValue::Bool(_) | NodeValue::Number(_) | NodeValue::Text(_) => self.value.at,
        }
    }
}

/// The reference tokens of a JSON pointer, unescaped.
pub(crate) fn tokens(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// `pointer` with one more token.
pub(crate) fn join(pointer: &str, token: &str) -> String {
    let mut joined = pointer.to_owned();
    push(&mut joined, token);
    joined
}

fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
}

/// A pointer's parent and last token.
pub(crate) fn split_last(pointer: &str) -> (&str, String) {
    match pointer.rfind('/') {
        Some(slash) => (&pointer[..slash], tokens(&pointer[slash..]).next().unwrap_or_default()),
        None => ("", String::new()),
    }
}
