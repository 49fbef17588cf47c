//! A message being made from another, copy on write.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sluicegate_engine::message::{Body, Headers, Message, parse_json};

use crate::pointer;

/// What a draft changes; everything else is the original's.
pub struct Draft {
    original: Arc<Message>,
    /// The call that made it.
    call: u64,
    kind: Option<String>,
    subject: Option<Option<String>>,
    key: Option<Option<Bytes>>,
    content_type: Option<Option<String>>,
    headers: Option<Headers>,
    body: DraftBody,
}

enum DraftBody {
    /// The original's.
    Shared,
    Bytes(Bytes),
    /// Being edited; becomes bytes once, when the draft becomes a message.
    Json(Value),
}

impl Draft {
    pub(crate) fn new(original: Arc<Message>, call: u64) -> Self {
        Self {
            original,
            call,
            kind: None,
            subject: None,
            key: None,
            content_type: None,
            headers: None,
            body: DraftBody::Shared,
        }
    }

    pub(crate) fn call(&self) -> u64 {
        self.call
    }

    pub(crate) fn set_kind(&mut self, kind: String) {
        self.kind = Some(kind);
    }

    pub(crate) fn set_subject(&mut self, subject: Option<String>) {
        self.subject = Some(subject);
    }

    pub(crate) fn set_key(&mut self, key: Option<Vec<u8>>) {
        self.key = Some(key.map(Bytes::from));
    }

    pub(crate) fn set_content_type(&mut self, content_type: Option<String>) {
        self.content_type = Some(content_type);
    }

    /// Replaces every value of the header at the place of the first, or adds it at the end. Says how many there are now.
    pub(crate) fn set_header(&mut self, name: &str, value: Vec<u8>) -> usize {
        let headers = self.headers.get_or_insert_with(|| self.original.headers.clone());
        let mut value = Some(Bytes::from(value));
        if headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            let changed = headers.iter().filter_map(|(known, old)| {
                if !known.eq_ignore_ascii_case(name) {
                    return Some((known, old.clone()));
                }
                value.take().map(|new| (known, new))
            });
            *headers = changed.collect();
        } else if let Some(value) = value {
            headers.append(name, value);
        }
        headers.len()
    }

    pub(crate) fn remove_header(&mut self, name: &str) {
        let current = self.headers.as_ref().unwrap_or(&self.original.headers);
        if current.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            let kept = current.iter().filter(|(known, _)| !known.eq_ignore_ascii_case(name));
            self.headers = Some(kept.map(|(known, value)| (known, value.clone())).collect());
        }
    }

    pub(crate) fn set_body(&mut self, body: Vec<u8>) {
        self.body = DraftBody::Bytes(Bytes::from(body));
    }

    /// Length of the body that a first edit as JSON will copy; none if it is being edited already.
    pub(crate) fn body_to_copy(&self) -> Option<usize> {
        match &self.body {
            DraftBody::Shared => Some(self.original.body.len()),
            DraftBody::Bytes(bytes) => Some(bytes.len()),
            DraftBody::Json(_) => None,
        }
    }

    pub(crate) fn set_json(&mut self, pointer: &str, value: &str) -> Result<(), String> {
        let value =
            parse_json(value.as_bytes()).map_err(|error| format!("the value does not fit: {}", in_value(&error)))?;
        self.edit(|body| pointer::set(body, pointer, value))
    }

    pub(crate) fn remove_json(&mut self, pointer: &str) -> Result<(), String> {
        self.edit(|body| pointer::remove(body, pointer))
    }

    /// Edits the body as JSON; `change` changes nothing when it fails.
    fn edit(&mut self, change: impl FnOnce(&mut Value) -> Result<(), String>) -> Result<(), String> {
        if let DraftBody::Json(body) = &mut self.body {
            return change(body);
        }
        let mut body = match &self.body {
            DraftBody::Bytes(bytes) => parse_json(bytes).map_err(|error| error.to_string())?,
            DraftBody::Shared | DraftBody::Json(_) => {
                let shared = self.original.body.json().map_err(ToString::to_string)?;
                Value::clone(shared)
            }
        };
        change(&mut body)?;
        self.body = DraftBody::Json(body);
        Ok(())
    }

    /// The message. Its id is `id` if given, else the original's; source, time and attempt are the original's.
    pub(crate) fn into_message(self, id: Option<String>) -> Message {
        // The last draft of a message that nobody else holds takes the original's fields, the others copy them.
        let mut message = Arc::unwrap_or_clone(self.original);
        if let Some(id) = id {
            message.id = id;
        }
        if let Some(kind) = self.kind {
            message.kind = kind;
        }
        if let Some(subject) = self.subject {
            message.subject = subject;
        }
        if let Some(key) = self.key {
            message.key = key;
        }
        if let Some(content_type) = self.content_type {
            message.content_type = content_type;
        }
        if let Some(headers) = self.headers {
            message.headers = headers;
        }
        match self.body {
            DraftBody::Shared => {}
            DraftBody::Bytes(bytes) => message.body = Body::from(bytes),
            DraftBody::Json(value) => {
                message.body = Body::with_json(Bytes::from(value.to_string()), Arc::new(value));
            }
        }
        message
    }
}

/// The engine's words are about bodies.
fn in_value(error: &sluicegate_engine::message::JsonError) -> String {
    error.to_string().replace("the body", "it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Arc<Message> {
        let mut message = Message::new("test", "old", r#"{"a":1,"b":2}"#);
        message.headers = [("A", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        Arc::new(message)
    }

    #[test]
    fn an_untouched_draft_is_the_original_and_shares_its_body() {
        let original = original();
        let message = Draft::new(Arc::clone(&original), 1).into_message(None);
        assert_eq!(message, *original);
        assert_eq!(message.body.bytes().as_ptr(), original.body.bytes().as_ptr());
    }

    #[test]
    fn headers_compare_without_case_and_keep_their_place() {
        let mut draft = Draft::new(original(), 1);
        assert_eq!(draft.set_header("a", b"9".to_vec()), 2);
        assert_eq!(draft.set_header("c", b"5".to_vec()), 3);
        draft.remove_header("B");
        draft.remove_header("none");
        assert_eq!(draft.into_message(None).headers, [("A", "9"), ("c", "5")].into_iter().collect());
    }

    #[test]
    fn the_edited_body_knows_its_value_and_leaves_the_original_alone() {
        let original = original();
        let mut draft = Draft::new(Arc::clone(&original), 1);
        assert_eq!(draft.body_to_copy(), Some(13));
        draft.set_json("/c", "[true]").expect("an object takes a member");
        draft.remove_json("/a").expect("it is there");
        assert_eq!(draft.body_to_copy(), None);
        let message = draft.into_message(Some("x#1".to_owned()));
        assert_eq!((message.id.as_str(), message.body.bytes().as_ref()), ("x#1", br#"{"b":2,"c":[true]}"#.as_slice()));
        assert_eq!(original.body.bytes().as_ref(), br#"{"a":1,"b":2}"#);
        assert_eq!(message.body.json().expect("JSON")["c"][0], true);
    }

    #[test]
    fn a_failed_edit_changes_nothing() {
        let mut draft = Draft::new(original(), 1);
        draft.set_body(b"no json".to_vec());
        assert!(draft.set_json("/a", "1").is_err());
        assert!(draft.remove_json("/a").is_err());
        assert_eq!(draft.set_json("/a", "{").expect_err("no JSON").split(':').next(), Some("the value does not fit"));
        assert_eq!(draft.into_message(None).body.bytes().as_ref(), b"no json");
    }

    #[test]
    fn a_body_set_as_bytes_can_be_edited() {
        let mut draft = Draft::new(original(), 1);
        draft.set_body(b"{}".to_vec());
        draft.set_json("/x", "1").expect("an object");
        draft.set_json("", "2").expect("the whole body");
        assert_eq!(draft.into_message(None).body.bytes().as_ref(), b"2");
    }
}
