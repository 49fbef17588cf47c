//! The stored form of a dead letter. Nothing is lost: messages are kept as [`stored_message`] has them,
//! bodies as the vault seals them, compressed, each for its place in its letter.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluicegate_engine::dead_letter::{Attempt, DeadLetter};
use sluicegate_engine::failure::{FailureClass, SchemaError};
use sluicegate_engine::message::{Body, Message};

use super::{Edit, KeptEdit, KeptLetter, MAX_ATTEMPTS, cause};
use crate::database::{Backend, Connection, Row};
use crate::error::StoreError;
use crate::stored_message::{self, NotStored, StoredAttempt};
use crate::vault::{DEFAULT_TENANT, Vault};

/// A dead letter ready to be written. All that costs time is done when it is made, before it comes to the one writer.
#[derive(Debug)]
pub(crate) struct StoredLetter {
    letter: Arc<DeadLetter>,
    /// Its own, or that of a part of it.
    id: String,
    evidence: String,
    original_head: String,
    failing_head: Option<String>,
    original_body: Bytes,
    failing_body: Option<Bytes>,
    /// Of a letter that was redriven, for a record that has another message as received.
    failing_body_alone: Option<Bytes>,
    cause: String,
}

/// In `body_format`: bodies are sealed by the vault. Rows of before have NULL there, and bodies as they came.
const SEALED: i64 = 1;
/// A row of before that was replaced: the body as received is as it came, the failing one is sealed.
const FAILING_SEALED: i64 = 2;

/// Which body of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Original,
    Failing,
    Edited,
}

/// A dead letter's body as it is stored; only in its place can it be opened again.
pub(super) fn seal(vault: &Vault, id: &str, part: Part, body: &[u8]) -> Result<Bytes, StoreError> {
    vault.seal(DEFAULT_TENANT, body, true, &[&identity(id, part)])
}

fn identity(id: &str, part: Part) -> Vec<u8> {
    let part = match part {
        Part::Original => "original",
        Part::Failing => "failing",
        Part::Edited => "edited",
    };
    format!("dead letter {id} {part}").into_bytes()
}

/// What recording a letter came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it may have to be recorded as a part"]
pub(crate) enum Recorded {
    /// It is in the store.
    Done,
    /// It is not: there is another part of the same message under its id, see [`StoredLetter::part`].
    IsPart,
}

const INSERT: &str = "INSERT INTO dead_letters (id, failed_at_ms, pipeline, config_version, step, target, class, plugin, \
    plugin_digest, trace_id, redrive_count, attempt_count, message_id, message_kind, body_bytes, error, evidence, \
    original_head, failing_head, original_body, failing_body, cause, body_format) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) \
    ON CONFLICT (id) DO NOTHING";

impl StoredLetter {
    /// # Errors
    /// A body that cannot be sealed. The heads are no reason that is known: every value has a JSON form.
    pub fn new(letter: &Arc<DeadLetter>, vault: &Vault) -> Result<Self, NotStored> {
        Self::under(letter.id.clone(), letter, vault)
    }

    /// The same, for what failed in the same redrive at another place (a message that was fanned out): its id is the
    /// same whenever this part is recorded.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn part(letter: &Arc<DeadLetter>, vault: &Vault) -> Result<Self, NotStored> {
        Self::under(part_id(letter), letter, vault)
    }

    fn under(id: String, letter: &Arc<DeadLetter>, vault: &Vault) -> Result<Self, NotStored> {
        let (original, failing) = (&letter.original, &letter.at_failure);
        let original_head = stored_message::head(original)?;
        let failing_head = stored_message::head(failing)?;
        let is_changed = failing.body != original.body;
        let sealed_failing = || seal(vault, &id, Part::Failing, failing.body.bytes());
        Ok(Self {
            evidence: serde_json::to_string(&Evidence::from(&**letter))?,
            failing_head: (failing_head != original_head).then_some(failing_head),
            original_body: seal(vault, &id, Part::Original, original.body.bytes())?,
            failing_body: is_changed.then(&sealed_failing).transpose()?,
            failing_body_alone: (!is_changed && letter.redrive_count > 0).then(sealed_failing).transpose()?,
            id,
            original_head,
            cause: cause::fingerprint(letter),
            letter: Arc::clone(letter),
        })
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        let heads = self.original_head.len() + self.failing_head.as_ref().map_or(0, String::len);
        let failing = self.failing_body.as_ref().or(self.failing_body_alone.as_ref());
        let bodies = self.original_body.len() + failing.map_or(0, Bytes::len);
        heads + bodies + self.evidence.len() + self.letter.error.len()
    }

    /// Writes it. A record of the same id is replaced if this one comes from a later redrive: its message as received and
    /// its edit stay, and so do its attempts, before the new ones. What failed in the same redrive at another place is to
    /// be kept under an id of its own, and so its bodies are to be sealed anew, which is not for the one writer. Otherwise
    /// nothing is written: it is the same record.
    pub async fn record(&self, connection: &mut Connection) -> Result<Recorded, StoreError> {
        if self.insert(connection).await? {
            return Ok(Recorded::Done);
        }
        let lock = match connection.backend() {
            Backend::Sqlite => "",
            Backend::Postgres => " FOR UPDATE",
        };
        let sql = format!("SELECT {ALL_COLUMNS} FROM dead_letters WHERE id = $1{lock}");
        let Some(row) = connection.query_first(&sql, &[self.id.as_str().into()]).await? else {
            // It was deleted in between.
            return self.insert(connection).await.map(|_| Recorded::Done);
        };
        // Without its bodies: all other changes would wait for them to be decrypted.
        let before = decode_head(&row)?.letter;
        let letter = &self.letter;
        if letter.redrive_count > before.redrive_count {
            return self.replace(connection, before).await.map(|()| Recorded::Done);
        }
        if letter.redrive_count < before.redrive_count || letter.redrive_count == 0 {
            return Ok(Recorded::Done);
        }
        // A second record of the same redrive is rare.
        let mut kept = decode(&row);
        if let Err(StoreError::UnknownKey { .. }) = kept {
            row.renew_keys(connection).await?;
            kept = decode(&row);
        }
        match kept {
            Ok(kept) if is_same(letter, &kept.letter) => Ok(Recorded::Done),
            Ok(_) => Ok(Recorded::IsPart),
            // Nobody can tell any more: twice is better than never.
            Err(error) if error.is_of_one_record() => Ok(Recorded::IsPart),
            Err(error) => Err(error),
        }
    }

    async fn replace(&self, connection: &mut Connection, before: DeadLetter) -> Result<(), StoreError> {
        const REPLACE: &str = "UPDATE dead_letters SET failed_at_ms = $2, config_version = $3, step = $4, target = $5, \
            class = $6, plugin = $7, plugin_digest = $8, trace_id = $9, redrive_count = $10, attempt_count = $11, \
            error = $12, evidence = $13, failing_head = $14, failing_body = $15, cause = $16, pipeline = $17, \
            body_format = COALESCE(body_format, $18) WHERE id = $1";
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
        // Also where it is the same as received: to find that out, that would have to be decrypted here.
        let failing_body = self.failing_body.as_ref().or(self.failing_body_alone.as_ref());
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
            failing_body.cloned().into(),
            self.cause.as_str().into(),
            Arc::clone(&letter.pipeline).into(),
            FAILING_SEALED.into(),
        ];
        connection.execute(REPLACE, &arguments).await.map(drop)
    }

    /// Whether it was written: there was none of this id.
    pub async fn insert(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        let letter = &self.letter;
        let arguments = [
            self.id.as_str().into(),
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
            self.cause.as_str().into(),
            SEALED.into(),
        ];
        Ok(connection.execute(INSERT, &arguments).await? > 0)
    }
}

/// The id of a part of a message, see [`StoredLetter::part`].
fn part_id(letter: &DeadLetter) -> String {
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

/// Whether both are of the same part of a message, failed at the same place.
fn is_same(one: &DeadLetter, other: &DeadLetter) -> bool {
    let at = |letter: &DeadLetter| (letter.step.clone(), letter.target.clone(), letter.at_failure.id.clone());
    at(one) == at(other) && one.at_failure.body == other.at_failure.body
}

/// All columns [`decode`] reads.
pub(super) const ALL_COLUMNS: &str = "id, failed_at_ms, pipeline, config_version, step, target, class, error, plugin, \
    plugin_digest, trace_id, redrive_count, evidence, original_head, failing_head, original_body, failing_body, \
    cause, edited_at_ms, edited_by, edited_head, edited_body, \
    (SELECT count(*) FROM inbox WHERE redrive_letter = dead_letters.id), body_format, body_bytes";

/// The dead letter of a row of [`ALL_COLUMNS`].
pub(super) fn decode(row: &Row) -> Result<KeptLetter, StoreError> {
    decode_with(row, Bodies::Opened)
}

/// The same with bodies left empty, for who cannot open them.
pub(super) fn decode_head(row: &Row) -> Result<KeptLetter, StoreError> {
    decode_with(row, Bodies::LeftOut)
}

/// Length of the body as received, of a row of [`ALL_COLUMNS`].
pub(super) fn body_bytes(row: &Row) -> Result<u64, StoreError> {
    row.unsigned(24)
}

#[derive(Clone, Copy)]
enum Bodies {
    Opened,
    LeftOut,
}

impl Bodies {
    fn open(self, row: &Row, column: usize, id: &str, part: Part) -> Result<Bytes, StoreError> {
        let is_sealed = match (part, row.optional_integer(23)?) {
            (Part::Edited, _) | (Part::Original | Part::Failing, Some(SEALED)) => true,
            (Part::Failing, Some(FAILING_SEALED)) => true,
            (Part::Original, Some(FAILING_SEALED)) | (Part::Original | Part::Failing, None) => false,
            (Part::Original | Part::Failing, Some(other)) => {
                return Err(row.damaged(format!("{other} is not a format of bodies")));
            }
        };
        match self {
            Self::LeftOut => Ok(Bytes::new()),
            Self::Opened if is_sealed => row.body_of(column, &[&identity(id, part)]),
            Self::Opened => row.bytes(column),
        }
    }
}

fn decode_with(row: &Row, bodies: Bodies) -> Result<KeptLetter, StoreError> {
    let id = row.text(0)?;
    let evidence: Evidence = from_json(row, 12, "evidence")?;
    let (original_head, failing_head) = (row.text(13)?, row.optional_text(14)?);
    let message = |head: &str, body| stored_message::message(head, body).map_err(|cause| row.damaged(cause));
    let original_body = Body::from(bodies.open(row, 15, &id, Part::Original)?);
    let failing_body = row.optional_bytes(16)?.map(|_| bodies.open(row, 16, &id, Part::Failing)).transpose()?;
    let failing_body = failing_body.map(Body::from);
    let edit = edit(row, bodies, &id)?;

    let original = Arc::new(message(&original_head, original_body)?);
    let at_failure = match (failing_head, failing_body) {
        (None, None) => Arc::clone(&original),
        (None, Some(body)) => Arc::new(Message { body, ..(*original).clone() }),
        (Some(head), body) => Arc::new(message(&head, body.unwrap_or_else(|| original.body.clone()))?),
    };
    let letter = DeadLetter {
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
    };
    Ok(KeptLetter { letter, cause: row.text(17)?, edit, is_being_redriven: row.integer(22)? > 0 })
}

fn edit(row: &Row, bodies: Bodies, id: &str) -> Result<Option<KeptEdit>, StoreError> {
    let Some(at_ms) = row.optional_unsigned(18)? else { return Ok(None) };
    let headers = row.optional_text(20)?.map(|head| stored_message::message(&head, Body::from(Bytes::new())));
    let headers = headers.transpose().map_err(|cause| row.damaged(cause))?.map(|message| message.headers);
    let body = row.optional_bytes(21)?.map(|_| bodies.open(row, 21, id, Part::Edited)).transpose()?;
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
