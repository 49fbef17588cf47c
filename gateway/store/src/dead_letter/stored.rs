//! The stored form of a dead letter. Nothing is lost: messages are kept as [`stored_message`] has them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter};
use sluicegate_engine::failure::{FailureClass, SchemaError};
use sluicegate_engine::message::{Body, Message};

use crate::database::{Connection, Row};
use crate::error::StoreError;
use crate::stored_message::{self, StoredAttempt};

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
        let original_head = stored_message::head(original)?;
        let failing_head = stored_message::head(failing)?;
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
    let (original_head, failing_head) = (row.text(13)?, row.optional_text(14)?);
    let message = |head: &str, body| stored_message::message(head, body).map_err(|cause| row.damaged(cause));
    let original_body = Body::from(row.bytes(15)?);
    let failing_body = row.optional_bytes(16)?.map(Body::from);

    let original = Arc::new(message(&original_head, original_body)?);
    let at_failure = match (failing_head, failing_body) {
        (None, None) => Arc::clone(&original),
        (None, Some(body)) => Arc::new(Message { body, ..(*original).clone() }),
        (Some(head), body) => Arc::new(message(&head, body.unwrap_or_else(|| original.body.clone()))?),
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

impl From<&DeadLetter> for Evidence {
    fn from(letter: &DeadLetter) -> Self {
        let schema_error =
            |error: &SchemaError| StoredSchemaError { pointer: error.pointer.clone(), text: error.text.clone() };
        Self {
            schema_errors: letter.schema_errors.iter().map(schema_error).collect(),
            backtrace: letter.backtrace.clone(),
            attempts: letter.attempts.iter().map(StoredAttempt::from).collect(),
        }
    }
}

impl From<StoredSchemaError> for SchemaError {
    fn from(stored: StoredSchemaError) -> Self {
        Self { pointer: stored.pointer, text: stored.text }
    }
}
