//! The stored form of a dead letter. Nothing is lost: messages are kept as [`stored_message`] has them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter};
use sluicegate_engine::failure::{FailureClass, SchemaError};
use sluicegate_engine::message::{Body, Message};

use super::{Edit, KeptEdit, KeptLetter, MAX_ATTEMPTS, cause};
use crate::body;
use crate::database::{Backend, Connection, Row};
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
    cause: String,
}

const INSERT: &str = "INSERT INTO dead_letters (id, failed_at_ms, pipeline, config_version, step, target, class, plugin, \
    plugin_digest, trace_id, redrive_count, attempt_count, message_id, message_kind, body_bytes, error, evidence, \
    original_head, failing_head, original_body, failing_body, cause) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
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
            cause: cause::fingerprint(letter),
            letter: Arc::clone(letter),
        })
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        let heads = self.original_head.len() + self.failing_head.as_ref().map_or(0, String::len);
        let bodies = self.letter.original.body.len() + self.failing_body.as_ref().map_or(0, Bytes::len);
        heads + bodies + self.evidence.len() + self.letter.error.len()
    }

    /// Writes it. A record of the same id is replaced if this one comes from a later redrive: its message as received and
    /// its edit stay, and so do its attempts, before the new ones. What failed in the same redrive at another place (a
    /// message that was fanned out) is kept under an id of its own. Otherwise nothing is written: it is the same record.
    pub async fn record(&self, connection: &mut Connection) -> Result<(), StoreError> {
        if self.insert(connection, &self.letter.id).await? {
            return Ok(());
        }
        let lock = match connection.backend() {
            Backend::Sqlite => "",
            Backend::Postgres => " FOR UPDATE",
        };
        let sql = format!("SELECT {ALL_COLUMNS} FROM dead_letters WHERE id = $1{lock}");
        let Some(row) = connection.query_first(&sql, &[self.letter.id.as_str().into()]).await? else {
            // It was deleted in between.
            return self.insert(connection, &self.letter.id).await.map(drop);
        };
        let before = decode(&row)?.letter;
        let letter = &self.letter;
        if letter.redrive_count > before.redrive_count {
            self.replace(connection, before).await
        } else if letter.redrive_count == before.redrive_count && letter.redrive_count > 0 && !is_same(letter, &before)
        {
            self.insert(connection, &self.part_id()).await.map(drop)
        } else {
            Ok(())
        }
    }

    /// The same whenever this part is recorded.
    fn part_id(&self) -> String {
        let letter = &self.letter;
        let mut hash = Sha256::new();
        let place = [letter.step.as_deref().unwrap_or_default(), letter.target.as_deref().unwrap_or_default()];
        for part in [&*letter.id, place[0], place[1], &letter.at_failure.id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(letter.redrive_count.to_be_bytes());
        hash.update(letter.at_failure.body.bytes());
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
    }

    async fn replace(&self, connection: &mut Connection, before: DeadLetter) -> Result<(), StoreError> {
        const REPLACE: &str = "UPDATE dead_letters SET failed_at_ms = $2, config_version = $3, step = $4, target = $5, \
            class = $6, plugin = $7, plugin_digest = $8, trace_id = $9, redrive_count = $10, attempt_count = $11, \
            error = $12, evidence = $13, failing_head = $14, failing_body = $15, cause = $16, pipeline = $17 WHERE id = $1";
        let letter = &self.letter;
        let mut attempts = before.attempts;
        attempts.extend(letter.attempts.iter().cloned());
        attempts.drain(..attempts.len().saturating_sub(MAX_ATTEMPTS));
        let evidence =
            Evidence { attempts: attempts.iter().map(StoredAttempt::from).collect(), ..Evidence::from(&**letter) };
        let unwritable = |error: serde_json::Error| connection.failed(error.to_string());
        let evidence = serde_json::to_string(&evidence).map_err(unwritable)?;
        let failing = &letter.at_failure;
        let failing_head = stored_message::head(failing).map_err(unwritable)?;
        let original_head = stored_message::head(&before.original).map_err(unwritable)?;
        let failing_body = (failing.body != before.original.body).then(|| failing.body.bytes().clone());
        let arguments = [
            letter.id.as_str().into(),
            letter.failed_at_ms.cast_signed().into(),
            Arc::clone(&letter.config_version).into(),
            letter.step.clone().into(),
            letter.target.clone().into(),
            letter.class.name().into(),
            letter.plugin.as_deref().into(),
            letter.plugin_digest.as_deref().into(),
            letter.trace_id.as_deref().into(),
            letter.redrive_count.into(),
            u32::try_from(attempts.len()).unwrap_or(u32::MAX).into(),
            letter.error.as_str().into(),
            evidence.into(),
            (failing_head != original_head).then_some(failing_head).into(),
            failing_body.into(),
            self.cause.as_str().into(),
            Arc::clone(&letter.pipeline).into(),
        ];
        connection.execute(REPLACE, &arguments).await.map(drop)
    }

    /// Whether it was written: there was none of this id.
    async fn insert(&self, connection: &mut Connection, id: &str) -> Result<bool, StoreError> {
        let letter = &self.letter;
        let arguments = [
            id.into(),
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
            self.cause.as_str().into(),
        ];
        Ok(connection.execute(INSERT, &arguments).await? > 0)
    }
}

/// Whether both are of the same part of a message, failed at the same place.
fn is_same(one: &DeadLetter, other: &DeadLetter) -> bool {
    let at = |letter: &DeadLetter| (letter.step.clone(), letter.target.clone(), letter.at_failure.id.clone());
    at(one) == at(other) && one.at_failure.body == other.at_failure.body
}

/// All columns [`decode`] reads.
pub(super) const ALL_COLUMNS: &str = "id, failed_at_ms, pipeline, config_version, step, target, class, error, plugin, \
    plugin_digest, trace_id, redrive_count, evidence, original_head, failing_head, original_body, failing_body, \
    cause, edited_at_ms, edited_by, edited_head, edited_body, \
    (SELECT count(*) FROM inbox WHERE redrive_letter = dead_letters.id)";

/// The dead letter of a row of [`ALL_COLUMNS`].
pub(super) fn decode(row: &Row) -> Result<KeptLetter, StoreError> {
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
    let letter = DeadLetter {
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
    };
    Ok(KeptLetter { letter, cause: row.text(17)?, edit: edit(row)?, is_being_redriven: row.integer(22)? > 0 })
}

fn edit(row: &Row) -> Result<Option<KeptEdit>, StoreError> {
    let Some(at_ms) = row.optional_unsigned(18)? else { return Ok(None) };
    let headers = row.optional_text(20)?.map(|head| stored_message::message(&head, Body::from(Bytes::new())));
    let headers = headers.transpose().map_err(|cause| row.damaged(cause))?.map(|message| message.headers);
    let body = row.optional_bytes(21)?.map(body::open).transpose().map_err(|cause| row.damaged(cause))?;
    Ok(Some(KeptEdit { edit: Edit { body, headers }, by: row.optional_text(19)?.unwrap_or_default(), at_ms }))
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
