//! A draft that holds its values itself and can be looked into.

use std::cell::RefCell;
use std::rc::Rc;

use serde_json::Value;

use super::document;
use super::message::{Envelope, Message};

/// A message being made from another: copy on write, the body is shared until it is set. Id, source, time and attempt
/// are the gateway's to give. What all drafts of a call add counts against the output limit (1 MiB by default).
///
/// Natively its values can be read back, for tests; in a component only the `set` and `remove` functions exist.
#[derive(Debug)]
pub struct Draft {
    envelope: RefCell<Rc<Envelope>>,
}

impl Draft {
    /// A copy of the message; costs nothing until something is set.
    #[must_use]
    pub fn new(original: &Message) -> Self {
        Self { envelope: RefCell::new(Rc::clone(&original.envelope)) }
    }

    /// Sets the CloudEvents `type`.
    pub fn set_kind(&self, kind: &str) {
        self.edit(|envelope| envelope.kind = kind.to_owned());
    }

    /// Sets or clears the CloudEvents `subject`.
    pub fn set_subject(&self, subject: Option<&str>) {
        self.edit(|envelope| envelope.subject = subject.map(str::to_owned));
    }

    /// Sets or clears the ordering and partition key.
    pub fn set_key(&self, key: Option<&[u8]>) {
        self.edit(|envelope| envelope.key = key.map(<[u8]>::to_vec));
    }

    /// Sets or clears the media type of the body.
    pub fn set_content_type(&self, content_type: Option<&str>) {
        self.edit(|envelope| envelope.content_type = content_type.map(str::to_owned));
    }

    /// Replaces every value of the header, or adds it at the end.
    pub fn set_header(&self, name: &str, value: &[u8]) {
        self.edit(|envelope| {
            let known = envelope.headers.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
            let mut kept = 0..;
            envelope.headers.retain(|(other, _)| {
                let at = kept.next();
                !other.eq_ignore_ascii_case(name) || at == known
            });
            match known {
                Some(at) => envelope.headers[at].1 = value.to_vec(),
                None => envelope.headers.push((name.to_owned(), value.to_vec())),
            }
        });
    }

    /// Removes every value of the header; nothing happens if there is none.
    pub fn remove_header(&self, name: &str) {
        self.edit(|envelope| envelope.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name)));
    }

    /// Replaces the whole body; the content type stays.
    pub fn set_body(&self, body: &[u8]) {
        self.edit(|envelope| envelope.body = body.to_vec());
    }

    /// Sets the value at an RFC 6901 pointer to a JSON text: replaces it, adds it to an object whose member it names, or
    /// to an array at its end (`-` or its length).
    ///
    /// # Errors
    /// Changes nothing if the body or the value is not JSON, or the pointer's parent does not exist.
    pub fn set_json(&self, pointer: &str, value: &str) -> Result<(), String> {
        let value = serde_json::from_str(value).map_err(|error| format!("the value is not JSON: {error}"))?;
        self.edit_json(|body| document::set(body, pointer, value))
    }

    /// Removes the value at an RFC 6901 pointer.
    ///
    /// # Errors
    /// Changes nothing if the body is not JSON or has no such value.
    pub fn remove_json(&self, pointer: &str) -> Result<(), String> {
        self.edit_json(|body| document::remove(body, pointer))
    }

    fn edit(&self, change: impl FnOnce(&mut Envelope)) {
        change(Rc::make_mut(&mut self.envelope.borrow_mut()));
    }

    fn edit_json(&self, change: impl FnOnce(&mut Value) -> Result<(), String>) -> Result<(), String> {
        let mut body = serde_json::from_slice(&self.envelope.borrow().body)
            .map_err(|error| format!("the body is not JSON: {error}"))?;
        change(&mut body)?;
        self.edit(|envelope| envelope.body = body.to_string().into_bytes());
        Ok(())
    }
}

/// For tests: what the draft has become.
impl Draft {
    /// See [`Message::kind`].
    #[must_use]
    pub fn kind(&self) -> String {
        self.envelope.borrow().kind.clone()
    }

    /// See [`Message::subject`].
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        self.envelope.borrow().subject.clone()
    }

    /// See [`Message::key`].
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        self.envelope.borrow().key.clone()
    }

    /// See [`Message::content_type`].
    #[must_use]
    pub fn content_type(&self) -> Option<String> {
        self.envelope.borrow().content_type.clone()
    }

    /// See [`Message::header`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.envelope.borrow().header(name)
    }

    /// See [`Message::headers`].
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.envelope.borrow().headers.clone()
    }

    /// See [`Message::body`].
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.envelope.borrow().body.clone()
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body()).expect("the draft's body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn body_json(&self) -> Value {
        serde_json::from_slice(&self.envelope.borrow().body).expect("the draft's body is JSON")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::MessageBuilder;

    #[test]
    fn an_untouched_draft_is_the_message() {
        let message = MessageBuilder::new().subject("s").key("k").header("a", "1").body("b").build();
        let draft = message.draft();
        assert_eq!(draft.subject(), message.subject());
        assert_eq!(draft.key(), message.key());
        assert_eq!(draft.headers(), message.headers());
        assert_eq!(draft.body(), message.body());
    }

    #[test]
    fn changes_stay_in_the_draft() {
        let message = MessageBuilder::new().kind("old").json(&json!({ "a": 1 })).build();
        let draft = message.draft();
        draft.set_kind("new");
        draft.set_value("/b", &[true]).expect("an object takes a member");
        draft.remove_json("/a").expect("it is there");
        assert_eq!((draft.kind().as_str(), draft.text().as_str()), ("new", r#"{"b":[true]}"#));
        assert_eq!((message.kind().as_str(), message.body().as_slice()), ("old", br#"{"a":1}"#.as_slice()));
    }

    #[test]
    fn setting_a_header_replaces_all_its_values_in_place() {
        let draft =
            MessageBuilder::new().header("a", "1").header("B", "2").header("c", "3").header("b", "4").build().draft();
        draft.set_header("b", b"9");
        draft.set_header("d", b"5");
        draft.remove_header("C");
        let headers = draft.headers();
        let names: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        assert_eq!(names, [("a", b"1".as_slice()), ("B", b"9"), ("d", b"5")]);
    }

    #[test]
    fn a_failed_change_changes_nothing() {
        let draft = MessageBuilder::new().body("no json").build().draft();
        assert!(draft.set_json("/a", "1").is_err());
        assert!(draft.remove_json("/a").is_err());
        assert_eq!(draft.text(), "no json");
    }
}
