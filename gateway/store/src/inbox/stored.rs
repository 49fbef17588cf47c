//! The stored form of an entry.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluicegate_engine::dead_letter::Attempt;
use sluicegate_engine::delivery::{Received, Resumption, Token};
use sluicegate_engine::inbox::{Entry, Progress, Redrive, Waypoint};
use sluicegate_engine::message::{Body, Message, now_ms};

use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::stored_message::{self, NotStored, StoredAttempt};
use crate::vault::{DEFAULT_TENANT, Vault};

/// Bytes of a key's sha256 that tell ordered messages of different keys apart: any key fits an index so.
const KEY_HASH_BYTES: usize = 16;

/// An entry ready to be written. All that costs time is done when it is made, before it comes to the one writer.
#[derive(Debug, Clone)]
pub(super) struct StoredEntry {
    pub lane: Arc<str>,
    pub key_hash: Option<Bytes>,
    /// 0 for at once.
    pub not_before_ms: u64,
    /// Of its bodies.
    pub bytes: u64,
    redrive: Option<Redrive>,
    received_at_ms: u64,
    progress: String,
    head: String,
    original_head: Option<String>,
    body: Bytes,
    original_body: Option<Bytes>,
}

impl StoredEntry {
    /// # Errors
    /// A body that cannot be sealed. The heads are no reason that is known: every value has a JSON form.
    pub fn new(entry: &Entry, vault: &Vault) -> Result<Self, NotStored> {
        // It is read within milliseconds for the most part: compressing costs more than it saves.
        let seal = |message: &Message| vault.seal(DEFAULT_TENANT, message.body.bytes(), false);
        let Entry { original, message, progress, not_before_ms, ordered } = entry;
        let head = stored_message::head(message)?;
        let (mut original_head, mut original_body) = (None, None);
        if !Arc::ptr_eq(original, message) {
            original_head = Some(stored_message::head(original)?).filter(|original| *original != head);
            original_body = (original.body != message.body).then(|| seal(original)).transpose()?;
        }
        let body = seal(message)?;
        let received_at_ms = if progress.received_at_ms == 0 { now_ms() } else { progress.received_at_ms };
        Ok(Self {
            lane: progress.waypoint.lane().into(),
            key_hash: message.key.as_ref().filter(|_| *ordered).map(|key| key_hash(key)),
            not_before_ms: *not_before_ms,
            bytes: (body.len() + original_body.as_ref().map_or(0, Bytes::len)) as u64,
            redrive: progress.redrive.clone(),
            received_at_ms,
            progress: serde_json::to_string(&StoredProgress::from(progress))?,
            head,
            original_head,
            body,
            original_body,
        })
    }

    /// About how much it takes on the disk.
    pub fn size_bytes(&self) -> usize {
        let heads = self.head.len() + self.original_head.as_ref().map_or(0, String::len) + self.progress.len();
        heads + self.body.len() + self.original_body.as_ref().map_or(0, Bytes::len)
    }

    /// `$5` to `$14` of statements that write it: what [`CONTENT_COLUMNS`] names.
    pub fn content(&self) -> [Value; 10] {
        [
            self.key_hash.clone().into(),
            self.bytes.into(),
            self.redrive.as_ref().map(|redrive| &*redrive.letter).into(),
            self.redrive.as_ref().map(|redrive| redrive.count).into(),
            self.received_at_ms.into(),
            self.progress.as_str().into(),
            self.head.as_str().into(),
            self.original_head.as_deref().into(),
            self.body.clone().into(),
            self.original_body.clone().into(),
        ]
    }
}

/// What [`StoredEntry::content`] gives the values of.
pub(super) const CONTENT_COLUMNS: [&str; 10] = [
    "key_hash",
    "bytes",
    "redrive_letter",
    "redrive_count",
    "received_at_ms",
    "progress",
    "head",
    "original_head",
    "body",
    "original_body",
];

/// What tells keys apart.
pub(super) fn key_hash(key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(key)[..KEY_HASH_BYTES])
}

/// An entry as a claim reads it.
#[derive(Debug)]
pub(super) struct ClaimedEntry {
    pub seq: i64,
    pub lane: Arc<str>,
    pub timed: bool,
    pub ready_at_ms: i64,
    pub key_hash: Option<Bytes>,
    pub bytes: u64,
    pub redrive: Option<Redrive>,
    progress: Progress,
    message: Message,
    original: Option<Arc<Message>>,
}

/// All columns that [`ClaimedEntry::read`] reads.
pub(super) const CLAIM_COLUMNS: &str = "seq, lane, timed, ready_at_ms, key_hash, bytes, redrive_letter, redrive_count, \
    received_at_ms, progress, head, original_head, body, original_body";

impl ClaimedEntry {
    /// Takes up keys first that another gateway has just made, if that is what is missing. The inner error says why this
    /// entry cannot be read.
    ///
    /// # Errors
    /// `Encrypted`, `MasterKey`: this gateway can read none of them, and others may. What is wrong with the connection.
    pub async fn open(row: &Row, connection: &mut Connection) -> Result<Result<Self, StoreError>, StoreError> {
        match Self::read(row) {
            Err(StoreError::UnknownKey { .. }) => {
                row.renew_keys(connection).await?;
                Ok(Self::read(row))
            }
            Err(error @ StoreError::Encrypted { .. }) => Err(error),
            read => Ok(read),
        }
    }

    /// # Errors
    /// `Damaged`; `Encrypted` or `UnknownKey` when a body cannot be opened.
    fn read(row: &Row) -> Result<Self, StoreError> {
        let damaged = |cause: String| row.damaged(cause);
        let opened = |column: usize| row.body(column).map(Body::from);
        let lane: Arc<str> = row.text(1)?.into();
        let redrive = match (row.optional_text(6)?, row.optional_unsigned(7)?) {
            (Some(letter), Some(count)) => {
                Some(Redrive { letter: letter.into(), count: u32::try_from(count).unwrap_or(u32::MAX) })
            }
            _ => None,
        };
        let stored: StoredProgress =
            serde_json::from_str(&row.text(9)?).map_err(|error| damaged(format!("column progress: {error}")))?;
        let progress = stored.into_progress(&lane, row.unsigned(8)?, redrive.clone());
        let head = row.text(10)?;
        let message = stored_message::message(&head, opened(12)?).map_err(damaged)?;
        let (original_head, original_body) = (row.optional_text(11)?, row.optional_bytes(13)?);
        let original = if original_head.is_some() || original_body.is_some() {
            let body = original_body.map(|_| opened(13)).transpose()?.unwrap_or_else(|| message.body.clone());
            let original = stored_message::message(original_head.as_ref().unwrap_or(&head), body);
            Some(Arc::new(original.map_err(damaged)?))
        } else {
            None
        };
        Ok(Self {
            seq: row.integer(0)?,
            lane,
            timed: row.integer(2)? != 0,
            ready_at_ms: row.integer(3)?,
            key_hash: row.optional_bytes(4)?,
            bytes: row.unsigned(5)?,
            redrive,
            progress,
            message,
            original,
        })
    }

    /// For the pipeline.
    pub fn into_received(self) -> Received {
        let Self { seq, message, original, progress, .. } = self;
        let resumption = Some(Box::new(Resumption { original, progress }));
        Received { message, token: token(seq), resumption }
    }
}

pub(super) fn token(seq: i64) -> Token {
    Token(u128::from(seq.cast_unsigned()))
}

/// The number of an entry of ours.
pub(super) fn seq(token: Token) -> Option<i64> {
    i64::try_from(token.0).ok()
}

/// What of the progress has no column of its own.
#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct StoredProgress {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: u32,
    #[serde(skip_serializing_if = "is_zero")]
    disconnects: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<StoredAttempt>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The first column of `row`, a progress, at this attempt.
pub(super) fn with_attempt(row: &Row, attempt: u32) -> Result<String, StoreError> {
    let damaged = |error: serde_json::Error| row.damaged(format!("column progress: {error}"));
    let stored: StoredProgress = serde_json::from_str(&row.text(0)?).map_err(damaged)?;
    serde_json::to_string(&StoredProgress { attempt, ..stored }).map_err(damaged)
}

impl From<&Progress> for StoredProgress {
    fn from(progress: &Progress) -> Self {
        let step = match &progress.waypoint {
            Waypoint::Step(name) => Some(name.to_string()),
            Waypoint::Start | Waypoint::Target(_) => None,
        };
        let attempts = progress.attempts.iter().map(StoredAttempt::from).collect();
        Self { step, attempt: progress.attempt, disconnects: progress.disconnects, attempts }
    }
}

impl StoredProgress {
    fn into_progress(self, lane: &Arc<str>, received_at_ms: u64, redrive: Option<Redrive>) -> Progress {
        let waypoint = match self.step {
            Some(step) => Waypoint::Step(step.into()),
            None if lane.is_empty() => Waypoint::Start,
            None => Waypoint::Target(Arc::clone(lane)),
        };
        Progress {
            waypoint,
            attempt: self.attempt,
            disconnects: self.disconnects,
            attempts: self.attempts.into_iter().map(Attempt::from).collect(),
            received_at_ms,
            redrive,
        }
    }
}
