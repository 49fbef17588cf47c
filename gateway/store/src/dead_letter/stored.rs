//! The stored form of a dead letter. Nothing is lost: attributes and headers are kept as JSON, their bytes as text where
//! they are UTF-8 and as base64 where not; bodies are blobs, as they came.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter};
use sluicegate_engine::failure::{FailureClass, SchemaError};
use sluicegate_engine::message::{Body, Headers, Message};

use crate::database::{Connection, Row};
use crate::error::StoreError;

/// A dead letter ready to be written. Bodies are still shared with the message.
#[derive(Debug)]
pub(crate) struct StoredLetter {
    letter: Arc<DeadLetter>,
    evidence: String,
    original_head: String,
    failing_head: Option<String>,
    failing_body: Option<Bytes>,
}

const INSERT: &str = "INSERT INTO dead_letters (id, failed_at_ms, pipeline, config_version, step, target, class, plugin, \
    plugin_digest, trace_id, redrive_count, attempt_count, message_id, message_kind, body_bytes, error, evidence, \
    original_head, failing_head, original_body, failing_body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) \
    ON CONFLICT (id) DO NOTHING";

impl StoredLetter {
    /// Converts all but the bodies.
    ///
    /// # Errors
    /// None that is known: every value has a JSON form.
    pub fn new(letter: &Arc<DeadLetter>) -> Result<Self, serde_json::Error> {
        let (original, failing) = (&letter.original, &letter.at_failure);
        let original_head = serde_json::to_string(&Head::from(&**original))?;
        let failing_head = serde_json::to_string(&Head::from(&**failing))?;
        Ok(Self {
            evidence: serde_json::to_string(&Evidence::from(&**letter))?,
            failing_head: (failing_head != original_head).then_some(failing_head),
            failing_body: (failing.body != original.body).then(|| failing.body.bytes().clone()),
            original_head,
            letter: Arc::clone(letter),
        })
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        let heads = self.original_head.len() + self.failing_head.as_ref().map_or(0, String::len);
        let bodies = self.letter.original.body.len() + self.failing_body.as_ref().map_or(0, Bytes::len);
        heads + bodies + self.evidence.len() + self.letter.error.len()
    }

    /// Writes it, unless one of the same id is there already.
    pub async fn insert(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let letter = &self.letter;
        let arguments = [
            letter.id.as_str().into(),
            letter.failed_at_ms.cast_signed().into(),
            Arc::clone(&letter.pipeline).into(),
            Arc::clone(&letter.config_version).into(),
            letter.step.clone().into(),
            letter.target.clone().into(),
            letter.class.name().into(),
            letter.plugin.as_deref().into(),
            letter.plugin_digest.as_deref().into(),
            letter.trace_id.as_deref().into(),
            letter.redrive_count.into(),
            u32::try_from(letter.attempts.len()).unwrap_or(u32::MAX).into(),
            letter.original.id.as_str().into(),
            letter.original.kind.as_str().into(),
            (letter.original.body.len() as u64).into(),
            letter.error.as_str().into(),
            self.evidence.as_str().into(),
            self.original_head.as_str().into(),
            self.failing_head.as_deref().into(),
            letter.original.body.bytes().clone().into(),
            self.failing_body.clone().into(),
        ];
        connection.execute(INSERT, &arguments).await.map(drop)
    }
}

/// All columns [`decode`] reads.
pub(super) const ALL_COLUMNS: &str = "id, failed_at_ms, pipeline, config_version, step, target, class, error, plugin, \
    plugin_digest, trace_id, redrive_count, evidence, original_head, failing_head, original_body, failing_body";

/// The dead letter of a row of [`ALL_COLUMNS`].
pub(super) fn decode(row: &Row) -> Result<DeadLetter, StoreError> {
    let evidence: Evidence = from_json(row, 12, "evidence")?;
    let original_head: Head = from_json(row, 13, "original_head")?;
    let failing_head: Option<Head> = row.optional_text(14)?.map(|_| from_json(row, 14, "failing_head")).transpose()?;
    let original_body = Body::from(row.bytes(15)?);
    let failing_body = row.optional_bytes(16)?.map(Body::from);

    let original = Arc::new(original_head.into_message(original_body, row)?);
    let at_failure = match (failing_head, failing_body) {
        (None, None) => Arc::clone(&original),
        (None, Some(body)) => Arc::new(Message { body, ..(*original).clone() }),
        (Some(head), body) => Arc::new(head.into_message(body.unwrap_or_else(|| original.body.clone()), row)?),
    };
    Ok(DeadLetter {
        id: row.text(0)?,
        failed_at_ms: row.integer(1)?.cast_unsigned(),
        pipeline: row.text(2)?.into(),
        config_version: row.text(3)?.into(),
        original,
        at_failure,
        step: row.optional_text(4)?.map(Arc::from),
        target: row.optional_text(5)?.map(Arc::from),
        class: class(row, 6)?,
        error: row.text(7)?,
        schema_errors: evidence.schema_errors.into_iter().map(SchemaError::from).collect(),
        plugin: row.optional_text(8)?,
        plugin_digest: row.optional_text(9)?,
        backtrace: evidence.backtrace,
        attempts: evidence.attempts.into_iter().map(Attempt::from).collect(),
        trace_id: row.optional_text(10)?,
        redrive_count: small(row, 11)?,
    })
}

pub(super) fn class(row: &Row, column: usize) -> Result<FailureClass, StoreError> {
    let name = row.text(column)?;
    FailureClass::from_name(&name).ok_or_else(|| row.damaged(format!("`{name}` is not a class of failures")))
}

pub(super) fn small(row: &Row, column: usize) -> Result<u32, StoreError> {
    let number = row.integer(column)?;
    u32::try_from(number).map_err(|_| row.damaged(format!("column {column} is {number}, not within 32 bits")))
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row, column: usize, name: &str) -> Result<T, StoreError> {
    serde_json::from_str(&row.text(column)?).map_err(|error| row.damaged(format!("column {name}: {error}")))
}

/// A message without its body.
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
    fn into_message(self, body: Body, row: &Row) -> Result<Message, StoreError> {
        let bytes = |octets: Octets| octets.into_bytes().map_err(|cause| row.damaged(cause));
        let mut headers = Headers::default();
        for (name, value) in self.headers {
            headers.append(name, bytes(value)?);
        }
        Ok(Message {
            id: self.id,
            source: self.source,
            kind: self.kind,
            subject: self.subject,
            time_ms: self.time_ms,
            content_type: self.content_type,
            key: self.key.map(bytes).transpose()?,
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

/// The parts of the record that are lists.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evidence {
    schema_errors: Vec<StoredSchemaError>,
    backtrace: Vec<String>,
    attempts: Vec<StoredAttempt>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSchemaError {
    pointer: String,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAttempt {
    number: u32,
    at_ms: u64,
    error: String,
}

impl From<&DeadLetter> for Evidence {
    fn from(letter: &DeadLetter) -> Self {
        let schema_error =
            |error: &SchemaError| StoredSchemaError { pointer: error.pointer.clone(), text: error.text.clone() };
        let attempt = |attempt: &Attempt| StoredAttempt {
            number: attempt.number,
            at_ms: attempt.at_ms,
            error: attempt.error.clone(),
        };
        Self {
            schema_errors: letter.schema_errors.iter().map(schema_error).collect(),
            backtrace: letter.backtrace.clone(),
            attempts: letter.attempts.iter().map(attempt).collect(),
        }
    }
}

impl From<StoredSchemaError> for SchemaError {
    fn from(stored: StoredSchemaError) -> Self {
        Self { pointer: stored.pointer, text: stored.text }
    }
}

impl From<StoredAttempt> for Attempt {
    fn from(stored: StoredAttempt) -> Self {
        Self { number: stored.number, at_ms: stored.at_ms, error: stored.error }
    }
}
