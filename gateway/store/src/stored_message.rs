//! The stored form of a message. Nothing is lost: attributes and headers are kept as JSON (the head), their bytes as text
//! where they are UTF-8 and as base64 where not; the body apart, see [`vault`](crate::vault).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicegate_engine::dead_letter::Attempt;
use sluicegate_engine::message::{Body, Headers, Message};

use crate::error::StoreError;

/// Why something cannot be brought to its stored form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    #[error("{0}")]
    Head(#[from] serde_json::Error),
    /// It cannot be sealed.
    #[error(transparent)]
    Body(#[from] StoreError),
}

impl From<NotStored> for StoreError {
    fn from(error: NotStored) -> Self {
        match error {
            NotStored::Head(error) => Self::Unwritable { cause: error.to_string() },
            NotStored::Body(error) => error,
        }
    }
}

/// The head of a message: all but its body.
pub(crate) fn head(message: &Message) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Head::from(message))
}

/// A message from its stored head and its body.
///
/// # Errors
/// What is wrong with the head.
pub(crate) fn message(head: &str, body: Body) -> Result<Message, String> {
    let head: Head = serde_json::from_str(head).map_err(|error| format!("a message's head: {error}"))?;
    head.into_message(body)
}

/// The key of a message from its stored head.
///
/// # Errors
/// What is wrong with the head.
pub(crate) fn key(head: &str) -> Result<Option<Bytes>, String> {
    #[derive(Deserialize)]
    struct Keyed {
        key: Option<Octets>,
    }
    let keyed: Keyed = serde_json::from_str(head).map_err(|error| format!("a message's head: {error}"))?;
    keyed.key.map(Octets::into_bytes).transpose()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    id: String,
    source: String,
    kind: String,
    subject: Option<String>,
    time_ms: u64,
    content_type: Option<String>,
    key: Option<Octets>,
    headers: Vec<(String, Octets)>,
    attempt: u32,
    expires_at_ms: Option<u64>,
    deliver_at_ms: Option<u64>,
    trace_parent: Option<String>,
    trace_state: Option<String>,
    correlation_id: Option<String>,
}

impl From<&Message> for Head {
    fn from(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            source: message.source.clone(),
            kind: message.kind.clone(),
            subject: message.subject.clone(),
            time_ms: message.time_ms,
            content_type: message.content_type.clone(),
            key: message.key.as_deref().map(Octets::from),
            headers: message.headers.iter().map(|(name, value)| (name.to_owned(), Octets::from(&value[..]))).collect(),
            attempt: message.attempt,
            expires_at_ms: message.expires_at_ms,
            deliver_at_ms: message.deliver_at_ms,
            trace_parent: message.trace_parent.clone(),
            trace_state: message.trace_state.clone(),
            correlation_id: message.correlation_id.clone(),
        }
    }
}

impl Head {
    fn into_message(self, body: Body) -> Result<Message, String> {
        let mut headers = Headers::default();
        for (name, value) in self.headers {
            headers.append(name, value.into_bytes()?);
        }
        Ok(Message {
            id: self.id,
            source: self.source,
            kind: self.kind,
            subject: self.subject,
            time_ms: self.time_ms,
            content_type: self.content_type,
            key: self.key.map(Octets::into_bytes).transpose()?,
            headers,
            body,
            attempt: self.attempt,
            expires_at_ms: self.expires_at_ms,
            deliver_at_ms: self.deliver_at_ms,
            trace_parent: self.trace_parent,
            trace_state: self.trace_state,
            correlation_id: self.correlation_id,
        })
    }
}

/// Bytes, readable where they can be.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Octets {
    Text(String),
    Base64(String),
}

impl From<&[u8]> for Octets {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(BASE64.encode(bytes)),
        }
    }
}

impl Octets {
    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => {
                BASE64.decode(text).map(Bytes::from).map_err(|error| format!("a header's base64: {error}"))
            }
        }
    }
}

/// An attempt, in lists that are kept as JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredAttempt {
    number: u32,
    at_ms: u64,
    error: String,
}

impl From<&Attempt> for StoredAttempt {
    fn from(attempt: &Attempt) -> Self {
        Self { number: attempt.number, at_ms: attempt.at_ms, error: attempt.error.clone() }
    }
}

impl From<StoredAttempt> for Attempt {
    fn from(stored: StoredAttempt) -> Self {
        Self { number: stored.number, at_ms: stored.at_ms, error: stored.error }
    }
}
