//! A message that holds its values itself.

use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

/// The message a plugin is called with. In a component it is held by the gateway, and each function is a call to it;
/// natively it is made by a [`MessageBuilder`].
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) envelope: Rc<Envelope>,
    parsed: Option<Value>,
}

#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub subject: Option<String>,
    pub time_ms: u64,
    pub key: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub attempt: u32,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Envelope {
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        String::from_utf8(value.clone()).ok()
    }
}

impl Message {
    /// Identity; with [`source`](Self::source) it names the message. Never empty.
    #[must_use]
    pub fn id(&self) -> String {
        self.envelope.id.clone()
    }

    /// Where the message was made: the CloudEvents `source`.
    #[must_use]
    pub fn source(&self) -> String {
        self.envelope.source.clone()
    }

    /// What happened: the CloudEvents `type`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.envelope.kind.clone()
    }

    /// What it happened to: the CloudEvents `subject`.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        self.envelope.subject.clone()
    }

    /// When it happened, in milliseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.envelope.time_ms
    }

    /// Ordering and partition key.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        self.envelope.key.clone()
    }

    /// Media type of the body.
    #[must_use]
    pub fn content_type(&self) -> Option<String> {
        self.envelope.content_type.clone()
    }

    /// Which try this is: 1 on the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.envelope.attempt
    }

    /// First value of the header, if there is one and it is UTF-8. Names are compared without regard to ASCII case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.envelope.header(name)
    }

    /// All headers in their order, repeats kept.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.envelope.headers.clone()
    }

    /// Length of the body in bytes, without reading it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.envelope.body.len() as u64
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.envelope.body.clone()
    }

    /// The value at an RFC 6901 pointer as JSON text; `""` is the whole body. None if the body is not JSON or has no
    /// such value. Parsed once per message, by the gateway.
    #[must_use]
    pub fn json(&self, pointer: &str) -> Option<String> {
        self.parsed.as_ref()?.pointer(pointer).map(Value::to_string)
    }
}

/// Makes a [`Message`] for a test. Not in components: there, messages come from the gateway.
///
/// ```
/// use sluicegate_plugin::MessageBuilder;
///
/// let message = MessageBuilder::new()
///     .kind("order.placed")
///     .header("region", "eu")
///     .json(&serde_json::json!({ "total": 12 }))
///     .build();
/// assert_eq!(message.json("/total").as_deref(), Some("12"));
/// ```
#[derive(Debug, Clone)]
pub struct MessageBuilder {
    envelope: Envelope,
}

impl Default for MessageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MessageBuilder {
    /// Id `m-1`, source `/test`, kind `test`, time 0, first attempt, nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self {
            envelope: Envelope {
                id: "m-1".to_owned(),
                source: "/test".to_owned(),
                kind: "test".to_owned(),
                subject: None,
                time_ms: 0,
                key: None,
                content_type: None,
                attempt: 1,
                headers: Vec::new(),
                body: Vec::new(),
            },
        }
    }

    /// See [`Message::id`].
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.envelope.id = id.into();
        self
    }

    /// See [`Message::source`].
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.envelope.source = source.into();
        self
    }

    /// See [`Message::kind`].
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.envelope.kind = kind.into();
        self
    }

    /// See [`Message::subject`].
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.envelope.subject = Some(subject.into());
        self
    }

    /// In milliseconds since the Unix epoch; see [`Message::time`].
    #[must_use]
    pub fn time_ms(mut self, time_ms: u64) -> Self {
        self.envelope.time_ms = time_ms;
        self
    }

    /// See [`Message::key`].
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.envelope.key = Some(key.into());
        self
    }

    /// See [`Message::content_type`].
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.envelope.content_type = Some(content_type.into());
        self
    }

    /// See [`Message::attempt`].
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.envelope.attempt = attempt;
        self
    }

    /// Adds a header after those there are.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.envelope.headers.push((name.into(), value.into()));
        self
    }

    /// The body as bytes; the content type stays.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.envelope.body = body.into();
        self
    }

    /// The body as a value's JSON text, with content type `application/json`.
    ///
    /// # Panics
    /// If the value has no JSON form.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let body = serde_json::to_vec(value).expect("a test's body has a JSON form");
        self.body(body).content_type("application/json")
    }

    /// The message.
    #[must_use]
    pub fn build(self) -> Message {
        let parsed = serde_json::from_slice(&self.envelope.body).ok();
        Message { envelope: Rc::new(self.envelope), parsed }
    }
}

#[cfg(test)]
mod tests {
    use super::MessageBuilder;

    #[test]
    fn headers_are_found_whatever_their_case_and_only_as_text() {
        let message = MessageBuilder::new().header("Region", "eu").header("region", "us").header("raw", [0xff]).build();
        assert_eq!(message.header("REGION").as_deref(), Some("eu"));
        assert_eq!(message.header("raw"), None);
        assert_eq!(message.headers().len(), 3);
    }

    #[test]
    fn pointers_reach_into_json_bodies_only() {
        let message = MessageBuilder::new().body(r#"{ "a": [1, {"b/c": null}] }"#).build();
        assert_eq!(message.json("").as_deref(), Some(r#"{"a":[1,{"b/c":null}]}"#));
        assert_eq!(message.json("/a/1/b~1c").as_deref(), Some("null"));
        assert_eq!(message.json("/a/2"), None);
        assert_eq!(MessageBuilder::new().body("no").build().json(""), None);
    }

    #[test]
    fn values_are_typed() {
        let message = MessageBuilder::new().json(&serde_json::json!({ "total": 12 })).build();
        assert_eq!(message.value::<u8>("/total"), Ok(Some(12)));
        assert_eq!(message.value::<u8>("/none"), Ok(None));
        let failure = message.value::<String>("/total").expect_err("a number is no string");
        assert_eq!(failure.reason().code, "invalid_value");
        assert!(message.body_as::<Vec<u8>>().is_err());
    }
}
