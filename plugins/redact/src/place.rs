//! Pointers with wildcards.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;
use sluicegate_plugin::{Message, pointer};

/// A pointer in which a name `*` stands for every element or member.
#[derive(Debug)]
pub struct Place(Vec<String>);

const EVERY: &str = "*";

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&pointer::join(&self.0))
    }
}

impl Place {
    /// # Errors
    /// Not a pointer.
    pub fn parse(text: &str) -> Result<Self, String> {
        match pointer::parse(text)? {
            names if names.is_empty() => Err("the whole body is no value within it".to_owned()),
            names => Ok(Self(names)),
        }
    }

    /// Whether a value of one can be a value of the other, or within one.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(name, other)| name == other || name == EVERY || other == EVERY)
    }

    /// Pointers, without wildcards, of the values there are.
    pub fn find(&self, message: &Message) -> Vec<String> {
        let Some(first) = self.0.iter().position(|name| name == EVERY) else {
            let pointer = self.to_string();
            return if message.json(&pointer).is_some() { vec![pointer] } else { Vec::new() };
        };
        let (before, after) = self.0.split_at(first);
        let start = pointer::join(before);
        let mut found = Vec::new();
        let value = message.json(&start).and_then(|text| serde_json::from_str::<Value>(&text).ok());
        if let Some(value) = value {
            expand(&value, start, after, &mut found);
        }
        found
    }
}

fn expand(value: &Value, at: String, names: &[String], found: &mut Vec<String>) {
    let Some((name, rest)) = names.split_first() else {
        found.push(at);
        return;
    };
    match value {
        Value::Array(elements) if name == EVERY => {
            for (nth, element) in elements.iter().enumerate() {
                expand(element, format!("{at}/{nth}"), rest, found);
            }
        }
        Value::Object(members) if name == EVERY => {
            for (member, value) in members {
                expand(value, at.clone() + &pointer::join(&[member]), rest, found);
            }
        }
        _ => {
            let step = pointer::join(&[name]);
            if let Some(value) = value.pointer(&step) {
                expand(value, at + &step, rest, found);
            }
        }
    }
}

/// Order of pointers in a document: array indices by their value.
pub fn order(one: &str, other: &str) -> Ordering {
    let key = |name: &str| name.parse::<usize>().map_err(|_| name.to_owned());
    one.split('/').map(key).cmp(other.split('/').map(key))
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use serde_json::json;
    use sluicegate_plugin::MessageBuilder;

    use super::{Place, order};

    fn place(text: &str) -> Place {
        Place::parse(text).expect(text)
    }

    #[test]
    fn finds_every_element_and_member() {
        let message = MessageBuilder::new()
            .json(&json!({ "a": [{ "b": 1, "c/d": 2 }, { "b": null }, 3], "*": { "x": 1 } }))
            .build();
        assert_eq!(place("/a/*/b").find(&message), ["/a/0/b", "/a/1/b"]);
        assert_eq!(place("/a/0/*").find(&message), ["/a/0/b", "/a/0/c~1d"]);
        assert_eq!(place("/*/x").find(&message), ["/*/x"]);
        assert_eq!(place("/a/1").find(&message), ["/a/1"]);
        assert!(place("/a/9").find(&message).is_empty() && place("/none/*").find(&message).is_empty());
    }

    #[test]
    fn overlaps_are_seen_through_wildcards() {
        assert!(place("/a/*").overlaps(&place("/a/0/b")) && place("/a/0/b").overlaps(&place("/*/0")));
        assert!(!place("/a/*/b").overlaps(&place("/a/*/c")) && !place("/a").overlaps(&place("/b")));
    }

    #[test]
    fn indices_are_ordered_by_value() {
        assert_eq!(order("/a/10", "/a/9"), Ordering::Greater);
        assert_eq!(order("/a/9/b", "/a/9/c"), Ordering::Less);
        assert_eq!(order("/a", "/a"), Ordering::Equal);
    }
}
