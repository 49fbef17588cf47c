//! The message: CloudEvents 1.0 in meaning, cheap to pass on, its body never copied on the way.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;

/// Deepest nesting of JSON that is parsed; deeper bodies are refused before the parser sees them.
pub const MAX_JSON_DEPTH: usize = 64;

/// One message: the attributes of a CloudEvent, its headers and its body.
///
/// Connectors map it from and to their system; each mapping is documented in the connector's folder. Times are
/// milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// CloudEvents `id`: unique within `source`.
    pub id: String,
    /// CloudEvents `source`: who made the message.
    pub source: String,
    /// CloudEvents `type`, for example `order.created`.
    pub kind: String,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// CloudEvents `time`, when the message was made.
    pub time_ms: u64,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Ordering and partition key.
    pub key: Option<Bytes>,
    /// Everything else that came along, in order, repeats kept.
    pub headers: Headers,
    /// The payload.
    pub body: Body,
    /// 1 on the first try, counted over redeliveries where the source keeps count.
    pub attempt: u32,
    /// When the message is worth nothing any more.
    pub expires_at_ms: Option<u64>,
    /// Not to be delivered before this time.
    pub deliver_at_ms: Option<u64>,
    /// W3C `traceparent`.
    pub trace_parent: Option<String>,
    /// W3C `tracestate`.
    pub trace_state: Option<String>,
    /// What this message answers or belongs to.
    pub correlation_id: Option<String>,
}

impl Message {
    /// A message made now, with a new time-ordered id (UUID version 7, RFC 9562) and no headers.
    pub fn new(source: impl Into<String>, kind: impl Into<String>, body: impl Into<Body>) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            source: source.into(),
            kind: kind.into(),
            subject: None,
            time_ms: now_ms(),
            content_type: None,
            key: None,
            headers: Headers::default(),
            body: body.into(),
            attempt: 1,
            expires_at_ms: None,
            deliver_at_ms: None,
            trace_parent: None,
            trace_state: None,
            correlation_id: None,
        }
    }

    /// The W3C trace id of its `traceparent` (version-traceid-parentid-flags), if it has one.
    pub fn trace_id(&self) -> Option<&str> {
        let id = self.trace_parent.as_deref()?.split('-').nth(1)?;
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
    }

    /// How long until the message expires: zero once it has, `None` when it never does.
    pub fn time_to_live(&self) -> Option<Duration> {
        self.expires_at_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms())))
    }
}

/// The wall clock in milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Headers in order, repeats kept, values as bytes. Names compare exactly as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Bytes)>);

impl Headers {
    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The first value of `name`, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Adds a value after those that are there.
    pub fn append(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    /// Replaces all values of `name` by one, at the place of the first.
    pub fn set(&mut self, name: &str, value: impl Into<Bytes>) {
        let value = value.into();
        match self.0.iter().position(|(n, _)| n == name) {
            Some(first) => {
                self.0[first].1 = value;
                let mut index = 0;
                self.0.retain(|(n, _)| {
                    index += 1;
                    index - 1 <= first || n != name
                });
            }
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes all values of `name`; says whether there were any.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| n != name);
        self.0.len() < before
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many values there are, repeats counted.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, V: Into<Bytes>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A body: shared bytes, and their JSON value parsed at most once however many steps ask for it.
#[derive(Clone)]
pub struct Body(Arc<Payload>);

struct Payload {
    bytes: Bytes,
    json: OnceLock<Result<Arc<Value>, JsonError>>,
}

impl Body {
    /// A body whose JSON value is known already; `bytes` must be its text.
    pub fn with_json(bytes: Bytes, value: Arc<Value>) -> Self {
        Self(Arc::new(Payload { bytes, json: OnceLock::from(Ok(value)) }))
    }

    /// The bytes as they came. Cloning them shares them.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// The body as JSON (RFC 8259), parsed on the first call.
    ///
    /// # Errors
    /// What is wrong and where, when the body is not JSON or is nested deeper than [`MAX_JSON_DEPTH`].
    pub fn json(&self) -> Result<&Arc<Value>, &JsonError> {
        self.0.json.get_or_init(|| parse_json(&self.0.bytes).map(Arc::new)).as_ref()
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self(Arc::new(Payload { bytes: bytes.into(), json: OnceLock::new() }))
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.len())
    }
}

/// Why a body is not JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The parser's words, with line and column.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the body is JSON nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
}

/// Parses JSON text that came from outside, within [`MAX_JSON_DEPTH`].
///
/// # Errors
/// As [`Body::json`].
pub fn parse_json(bytes: &[u8]) -> Result<Value, JsonError> {
    if nested_deeper_than(bytes, MAX_JSON_DEPTH) {
        return Err(JsonError::TooDeep);
    }
    serde_json::from_slice(bytes).map_err(|error| JsonError::Syntax(error.to_string()))
}

/// Whether brackets nest deeper than `limit`, without building anything: a hostile body costs one pass.
fn nested_deeper_than(bytes: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_header_takes_the_first_place_and_drops_the_repeats() {
        let mut headers: Headers = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        headers.set("a", "9");
        assert_eq!(headers, [("a", "9"), ("b", "2")].into_iter().collect());
        assert!(headers.remove("a"));
        assert!(!headers.remove("a"));
    }

    #[test]
    fn a_body_is_parsed_once_for_all_its_clones() {
        let body = Body::from(r#"{"a":[1,2]}"#);
        let first = Arc::as_ptr(body.json().expect("JSON"));
        assert_eq!(first, Arc::as_ptr(body.clone().json().expect("JSON")));
    }

    #[test]
    fn nesting_is_limited_outside_strings_only() {
        let deep = format!("{}{}", "[".repeat(MAX_JSON_DEPTH + 1), "]".repeat(MAX_JSON_DEPTH + 1));
        assert_eq!(parse_json(deep.as_bytes()), Err(JsonError::TooDeep));
        let allowed = format!("{}{}", "[".repeat(MAX_JSON_DEPTH), "]".repeat(MAX_JSON_DEPTH));
        assert!(parse_json(allowed.as_bytes()).is_ok());
        let quoted = format!(r#""\"{}""#, "[".repeat(500));
        assert!(parse_json(quoted.as_bytes()).is_ok());
    }
}
