//! The stored form of a dead letter. Nothing is lost: attributes and headers are kept as JSON, their bytes as text where
//! they are UTF-8 and as base64 where not; bodies are blobs, as the vault seals them, compressed.

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
use crate::vault::{DEFAULT_TENANT, Vault};

/// A dead letter ready to be written. All that costs time is done when it is made, before it comes to the one writer.
#[derive(Debug)]
pub(crate) struct StoredLetter {
    letter: Arc<DeadLetter>,
    evidence: String,
    original_head: String,
    failing_head: Option<String>,
    original_body: Bytes,
    failing_body: Option<Bytes>,
}

/// In `body_format`: bodies are sealed by the vault. Rows of before have NULL there, and bodies as they came.
pub(super) const SEALED: i64 = 1;

/// Why a dead letter cannot be brought to its stored form.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStored {
    #[error("{0}")]
    Head(#[from] serde_json::Error),
    #[error(transparent)]
    Body(#[from] StoreError),
}

/// Which body of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Original,
    Failing,
}

/// A dead letter's body as it is stored; only in its place can it be opened again.
pub(super) fn seal(vault: &Vault, id: &str, part: Part, body: &Body) -> Result<Bytes, StoreError> {
    vault.seal_for(DEFAULT_TENANT, body.bytes(), true, &identity(id, part))
}

fn identity(id: &str, part: Part) -> Vec<u8> {
    let part = match part {
        Part::Original => "original",
        Part::Failing => "failing",
    };
    format!("dead letter {id} {part}").into_bytes()
}

const INSERT: &str = "INSERT INTO dead_letters (id, failed_at_ms, pipeline, config_version, step, target, class, plugin, \
    plugin_digest, trace_id, redrive_count, attempt_count, message_id, message_kind, body_bytes, error, evidence, \
    original_head, failing_head, original_body, failing_body, body_format) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
    ON CONFLICT (id) DO NOTHING";

impl StoredLetter {
    /// # Errors
    /// A body that cannot be sealed. The heads are no reason that is known: every value has a JSON form.
    pub fn new(letter: &Arc<DeadLetter>, vault: &Vault) -> Result<Self, NotStored> {
        let (original, failing) = (&letter.original, &letter.at_failure);
        let original_head = serde_json::to_string(&Head::from(&**original))?;
        let failing_head = serde_json::to_string(&Head::from(&**failing))?;
        Ok(Self {
            evidence: serde_json::to_string(&Evidence::from(&**letter))?,
            failing_head: (failing_head != original_head).then_some(failing_head),
            original_body: seal(vault, &letter.id, Part::Original, &original.body)?,
            failing_body: (failing.body != original.body)
                .then(|| seal(vault, &letter.id, Part::Failing, &failing.body))
                .transpose()?,
            original_head,
            letter: Arc::clone(letter),
        })
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        let heads = self.original_head.len() + self.failing_head.as_ref().map_or(0, String::len);
        let bodies = self.original_body.len() + self.failing_body.as_ref().map_or(0, Bytes::len);
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
            self.original_body.clone().into(),
            self.failing_body.clone().into(),
            SEALED.into(),
        ];
        connection.execute(INSERT, &arguments).await.map(drop)
    }
}

/// All columns [`decode`] reads.
pub(super) const ALL_COLUMNS: &str = "id, failed_at_ms, pipeline, config_version, step, target, class, error, plugin, \
    plugin_digest, trace_id, redrive_count, evidence, original_head, failing_head, original_body, failing_body, \
    body_format";

/// The dead letter of a row of [`ALL_COLUMNS`].
pub(super) fn decode(row: &Row) -> Result<DeadLetter, StoreError> {
    decode_with(row, Bodies::Opened)
}

/// The same with bodies left empty, for who cannot open them.
pub(super) fn decode_head(row: &Row) -> Result<DeadLetter, StoreError> {
    decode_with(row, Bodies::LeftOut)
}

#[derive(Clone, Copy)]
enum Bodies {
    Opened,
    LeftOut,
}

impl Bodies {
    fn open(self, row: &Row, column: usize, id: &str, part: Part) -> Result<Body, StoreError> {
        match (self, row.optional_integer(17)?) {
            (Self::LeftOut, _) => Ok(Body::from(Bytes::new())),
            (Self::Opened, None) => row.bytes(column).map(Body::from),
            (Self::Opened, Some(SEALED)) => row.body_of(column, &identity(id, part)).map(Body::from),
            (Self::Opened, Some(other)) => Err(row.damaged(format!("{other} is not a format of bodies"))),
        }
    }
}

fn decode_with(row: &Row, bodies: Bodies) -> Result<DeadLetter, StoreError> {
    let evidence: Evidence = from_json(row, 12, "evidence")?;
    let original_head: Head = from_json(row, 13, "original_head")?;
    let failing_head: Option<Head> = row.optional_text(14)?.map(|_| from_json(row, 14, "failing_head")).transpose()?;
    let id = row.text(0)?;
    let original_body = bodies.open(row, 15, &id, Part::Original)?;
    let failing_body = row.optional_bytes(16)?.map(|_| bodies.open(row, 16, &id, Part::Failing)).transpose()?;

    let original = Arc::new(original_head.into_message(original_body, row)?);
    let at_failure = match (failing_head, failing_body) {
        (None, None) => Arc::clone(&original),
        (None, Some(body)) => Arc::new(Message { body, ..(*original).clone() }),
        (Some(head), body) => Arc::new(head.into_message(body.unwrap_or_else(|| original.body.clone()), row)?),
    };
    Ok(DeadLetter {
        id,
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
