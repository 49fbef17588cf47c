//! Messages as JSON: as they are published, and as they are shown.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sluicegate_connectors::cloudevents::{parse_time, print_time};
use sluicegate_connectors::json_text;
use sluicegate_engine::message::{Body, Headers, Message, now_ms};
use sluicegate_store::queue::{HIGHEST_PRIORITY, LONGEST_AGE, LONGEST_DELAY, Publication};

use super::error::{ApiCode, ApiError};
use super::queue_form::given;
use crate::queues::{KeptMessage, KeptState, Place};

/// Longest id, type, source, subject, key, correlation id and content type, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 1_024;
/// Most headers, repeats counted.
pub(super) const MAX_HEADERS: usize = 256;
/// The type of a message that brings none.
const DEFAULT_KIND: &str = "message";

/// A message to publish, and what may stand beside it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct MessageForm {
    pub queue: Option<String>,
    pub idempotency_key: Option<String>,
    pub message_type: Option<MessageType>,
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    key: Option<String>,
    correlation_id: Option<String>,
    headers: Option<Map<String, Value>>,
    /// `null` is a body, too.
    #[serde(deserialize_with = "given")]
    data: Option<Value>,
    data_base64: Option<String>,
    content_type: Option<String>,
    priority: Option<u8>,
    ttl_ms: Option<u64>,
    pub delay_ms: Option<u64>,
    pub at: Option<String>,
}

/// What the publisher of a topic relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MessageType {
    /// At once, in no order.
    Normal,
    /// In the order of its key.
    Ordered,
    /// Later.
    Delayed,
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}

impl MessageForm {
    /// The message for the queue of that name. `text` is what the form was read from.
    ///
    /// # Errors
    /// The first member that cannot be used.
    pub fn publication(self, queue: &str, text: &[u8]) -> Result<Publication, ApiError> {
        let now = now_ms();
        let deliver_at_ms = self.deliver_at(now)?;
        let priority = self.priority;
        if priority.is_some_and(|priority| priority > HIGHEST_PRIORITY) {
            return Err(invalid(format!("`priority` is out of its limits: 0 to {HIGHEST_PRIORITY}")));
        }
        let longest_ms = LONGEST_AGE.as_millis();
        if self.ttl_ms.is_some_and(|ttl| ttl == 0 || u128::from(ttl) > longest_ms) {
            return Err(invalid(format!("`ttlMs` is out of its limits: 1 to {longest_ms} (3650 days)")));
        }
        let ttl = self.ttl_ms.map(Duration::from_millis);
        let kind = checked("type", self.kind)?.unwrap_or_else(|| DEFAULT_KIND.to_owned());
        let source = checked("source", self.source)?.unwrap_or_else(|| format!("/queues/{queue}"));
        let content_type = checked("contentType", self.content_type)?;
        let (body, content_type) = body(self.data, self.data_base64, content_type, text)?;
        let mut message = Message::new(source, kind, body);
        if let Some(id) = checked("id", self.id)? {
            message.id = id;
        }
        message.subject = checked("subject", self.subject)?;
        message.key = checked("key", self.key)?.map(Bytes::from);
        message.correlation_id = checked("correlationId", self.correlation_id)?;
        message.content_type = content_type;
        message.headers = headers(self.headers.unwrap_or_default())?;
        message.deliver_at_ms = deliver_at_ms;
        Ok(Publication { message: Arc::new(message), priority, ttl })
    }

    fn deliver_at(&self, now: u64) -> Result<Option<u64>, ApiError> {
        let longest_ms = u64::try_from(LONGEST_DELAY.as_millis()).unwrap_or(u64::MAX);
        match (self.delay_ms, &self.at) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(invalid("`delayMs` and `at` exclude each other; choose one")),
            (Some(delay), None) if delay > longest_ms => {
                Err(invalid(format!("`delayMs` is out of its limits: 0 to {longest_ms} (30 days)")))
            }
            (Some(delay), None) => Ok(Some(now.saturating_add(delay))),
            (None, Some(at)) => {
                let at = parse_time(at).map_err(|problem| invalid(format!("`at`: {problem}")))?;
                if at.saturating_sub(now) > longest_ms {
                    return Err(invalid("`at` is out of its limits: at most 30 days ahead"));
                }
                Ok(Some(at))
            }
        }
    }

    /// Whether what the publisher relies on goes with the message.
    ///
    /// # Errors
    /// It does not.
    pub fn check_type(&self) -> Result<(), ApiError> {
        let timed = self.delay_ms.is_some() || self.at.is_some();
        match self.message_type {
            None => Ok(()),
            Some(MessageType::Normal) if timed => {
                Err(invalid("`messageType` is `normal`, which goes out at once: remove `delayMs` or `at`"))
            }
            Some(MessageType::Normal | MessageType::Delayed) => Ok(()),
            Some(MessageType::Ordered) if self.key.is_none() => {
                Err(invalid("`messageType` is `ordered`, by `key`, which is missing"))
            }
            Some(MessageType::Ordered) if timed => {
                Err(invalid("`messageType` is `ordered`, which has no delays: remove `delayMs` or `at`"))
            }
            Some(MessageType::Ordered) => Ok(()),
        }
    }
}

fn checked(member: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    match &text {
        Some(text) if text.is_empty() => Err(invalid(format!("`{member}` is empty; leave it out instead"))),
        Some(text) if text.len() > MAX_TEXT_BYTES => {
            Err(invalid(format!("`{member}` has {} bytes; at most {MAX_TEXT_BYTES} are allowed", text.len())))
        }
        Some(_) | None => Ok(text),
    }
}

/// The body and its content type. JSON is kept as it was written; a string of another content type is its text.
fn body(
    data: Option<Value>,
    base64: Option<String>,
    content_type: Option<String>,
    text: &[u8],
) -> Result<(Body, Option<String>), ApiError> {
    match (data, base64) {
        (None, None) => Err(invalid("the body is missing: give `data` (JSON) or `dataBase64`")),
        (Some(_), Some(_)) => Err(invalid("`data` and `dataBase64` exclude each other; choose one")),
        (None, Some(encoded)) => {
            let bytes =
                BASE64.decode(encoded).map_err(|error| invalid(format!("`dataBase64` is not base64: {error}")))?;
            Ok((Body::from(bytes), content_type))
        }
        (Some(data), None) => match (&content_type, data) {
            (Some(media), Value::String(text)) if !json_text::is_json(media) => Ok((Body::from(text), content_type)),
            (Some(media), _) if !json_text::is_json(media) => {
                Err(invalid(format!("`data` is JSON, which `{media}` is not: give a string or `dataBase64`")))
            }
            (_, data) => {
                let exact = json_text::member(text, "data").ok_or_else(|| invalid("a message is a JSON object"))?;
                let content_type = content_type.unwrap_or_else(|| "application/json".to_owned());
                Ok((Body::with_json(Bytes::copy_from_slice(exact), Arc::new(data)), Some(content_type)))
            }
        },
    }
}

fn headers(members: Map<String, Value>) -> Result<Headers, ApiError> {
    let mut headers = Headers::default();
    for (name, value) in members {
        if name.is_empty() || name.len() > MAX_TEXT_BYTES {
            return Err(invalid(format!("`headers`: a name has 1 to {MAX_TEXT_BYTES} bytes")));
        }
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        for value in values {
            let Value::String(text) = value else {
                return Err(invalid(format!("`headers.{name}` is neither a string nor a list of strings")));
            };
            headers.append(name.clone(), text);
        }
        if headers.len() > MAX_HEADERS {
            return Err(invalid(format!("`headers` has more than {MAX_HEADERS} values")));
        }
    }
    Ok(headers)
}

/// What a list shows of a message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownListed<'a> {
    pub id: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    size_bytes: u64,
}

impl<'a> From<&'a KeptMessage> for ShownListed<'a> {
    fn from(listed: &'a KeptMessage) -> Self {
        let (state, offset, published_at, deliver_at) = match listed.state {
            KeptState::Stored { place, published_at_ms } => {
                ("ready", Some(place), Some(print_time(published_at_ms)), None)
            }
            KeptState::Scheduled { deliver_at_ms } => ("scheduled", None, None, Some(print_time(deliver_at_ms))),
        };
        Self {
            id: &listed.id,
            state,
            offset,
            published_at,
            deliver_at,
            priority: listed.priority,
            key: listed.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned()),
            expires_at: listed.expires_at_ms.map(print_time),
            size_bytes: listed.size_bytes,
        }
    }
}

/// All of a message: what a list shows and what it is made of.
pub(crate) fn shown(listed: &KeptMessage, message: &Message) -> Value {
    let mut shown = json!(ShownListed::from(listed));
    put_content(&mut shown, message);
    shown
}

/// What a message is made of, alone.
pub(crate) fn shown_content(message: &Message) -> Value {
    let mut shown = json!({ "id": message.id, "key": message.key.as_deref().map(String::from_utf8_lossy) });
    put_content(&mut shown, message);
    shown
}

fn put_content(shown: &mut Value, message: &Message) {
    let Value::Object(members) = shown else { return };
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    };
    put("type", json!(message.kind));
    put("source", json!(message.source));
    put("subject", json!(message.subject));
    put("time", json!(print_time(message.time_ms)));
    put("contentType", json!(message.content_type));
    put("correlationId", json!(message.correlation_id));
    put("traceparent", json!(message.trace_parent));
    if let Some(key) = &message.key
        && std::str::from_utf8(key).is_err()
    {
        put("keyBase64", json!(BASE64.encode(key)));
    }
    if !message.headers.is_empty() {
        let is_text = |value: &Bytes| std::str::from_utf8(value).is_ok();
        let (text, binary): (Vec<_>, Vec<_>) = message.headers.iter().partition(|(_, value)| is_text(value));
        let grouped = |headers: &[(&str, &Bytes)], write: &dyn Fn(&Bytes) -> Value| {
            let mut by_name: Map<String, Value> = Map::new();
            for (name, value) in headers {
                let value = write(value);
                match by_name.get_mut(*name) {
                    None => drop(by_name.insert((*name).to_owned(), value)),
                    Some(Value::Array(values)) => values.push(value),
                    Some(single) => *single = Value::Array(vec![single.take(), value]),
                }
            }
            if by_name.is_empty() { Value::Null } else { Value::Object(by_name) }
        };
        put("headers", grouped(&text, &|value| json!(String::from_utf8_lossy(value))));
        put("headersBase64", grouped(&binary, &|value| json!(BASE64.encode(value))));
    }
    let is_json = message.content_type.as_deref().is_none_or(json_text::is_json);
    match (message.body.json(), std::str::from_utf8(message.body.bytes())) {
        (Ok(value), _) if is_json => drop(members.insert("data".to_owned(), Value::clone(value))),
        (_, Ok(text)) if !is_json => drop(members.insert("data".to_owned(), json!(text))),
        (_, _) => drop(members.insert("dataBase64".to_owned(), json!(BASE64.encode(message.body.bytes())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Publication, ApiError> {
        let form: MessageForm = serde_json::from_str(text).expect("a form");
        form.publication("q", text.as_bytes())
    }

    #[test]
    fn json_is_kept_to_the_last_digit() {
        let publication = read(r#"{"data": { "n": 123456789012345678901234567890.10 }}"#).expect("a message");
        let message = &publication.message;
        assert_eq!(&message.body.bytes()[..], br#"{ "n": 123456789012345678901234567890.10 }"#);
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert_eq!((message.kind.as_str(), message.source.as_str()), ("message", "/queues/q"));
        assert_eq!(&read(r#"{"data":null}"#).expect("a message").message.body.bytes()[..], b"null");
    }

    #[test]
    fn text_and_bytes_are_what_their_content_type_says() {
        let text = read(r#"{"data": "a\nb", "contentType": "text/plain"}"#).expect("a message");
        assert_eq!(&text.message.body.bytes()[..], b"a\nb");
        let bytes = read(r#"{"dataBase64": "AP8=", "headers": {"a": ["1", "2"], "b": "3"}}"#).expect("a message");
        assert_eq!(&bytes.message.body.bytes()[..], [0, 255]);
        assert_eq!(bytes.message.headers.len(), 3);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_name_and_limit() {
        let long = format!(r#"{{"data":1,"id":"{}"}}"#, "x".repeat(MAX_TEXT_BYTES + 1));
        for (text, expected) in [
            ("{}", "`data`"),
            (r#"{"data":1,"dataBase64":"AA=="}"#, "exclude each other"),
            (r#"{"dataBase64":"?"}"#, "not base64"),
            (r#"{"data":1,"contentType":"text/plain"}"#, "text/plain"),
            (r#"{"data":1,"priority":10}"#, "0 to 9"),
            (r#"{"data":1,"ttlMs":0}"#, "1 to 315360000000"),
            (r#"{"data":1,"delayMs":2592000001}"#, "0 to 2592000000"),
            (r#"{"data":1,"delayMs":1,"at":"2030-01-01T00:00:00Z"}"#, "exclude each other"),
            (r#"{"data":1,"at":"9999-01-01T00:00:00Z"}"#, "30 days"),
            (r#"{"data":1,"at":"tomorrow"}"#, "RFC 3339"),
            (r#"{"data":1,"headers":{"a":1}}"#, "`headers.a`"),
            (r#"{"data":1,"key":""}"#, "`key` is empty"),
            (&long, "at most 1024"),
        ] {
            let refused = read(text).expect_err(text);
            assert!(format!("{refused:?}").contains(expected), "{text}: {refused:?}");
        }
    }
}
