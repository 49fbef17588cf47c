//! The stored form of an entry.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sluicegate_engine::dead_letter::Attempt;
use sluicegate_engine::delivery::{Received, Resumption, Token};
use sluicegate_engine::inbox::{Entry, Progress, Redrive, Waypoint};
use sluicegate_engine::message::{Body, Message, now_ms};

use crate::database::{Row, Value};
use crate::error::StoreError;
use crate::opening::Sealed;
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
    /// For the inbox of this pipeline.
    ///
    /// # Errors
    /// A body that cannot be sealed. The heads are no reason that is known: every value has a JSON form.
    pub fn new(entry: &Entry, pipeline: &str, vault: &Vault) -> Result<Self, NotStored> {
        let seal = |message: &Message, part: Part, head: &str| {
            // It is read within milliseconds for the most part: compressing costs more than it saves.
            vault.seal(DEFAULT_TENANT, message.body.bytes(), false, &body_identity(pipeline, part, head))
        };
        let Entry { original, message, progress, not_before_ms, ordered } = entry;
        let head = stored_message::head(message)?;
        let (mut original_head, mut original_body) = (None, None);
        if !Arc::ptr_eq(original, message) {
            original_head = Some(stored_message::head(original)?).filter(|original| *original != head);
            let its_head = original_head.as_ref().unwrap_or(&head);
            original_body =
                (original.body != message.body).then(|| seal(original, Part::Original, its_head)).transpose()?;
        }
        let body = seal(message, Part::Message, &head)?;
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

/// An entry as a claim finds it: what the ledger asks of it is read, the rest is not opened yet.
#[derive(Debug)]
pub(super) struct ClaimedEntry {
    pub seq: i64,
    pub lane: Arc<str>,
    pub timed: bool,
    pub ready_at_ms: i64,
    pub key_hash: Option<Bytes>,
    pub bytes: u64,
    pub redrive: Option<Redrive>,
    pipeline: Arc<str>,
    row: Row,
}

/// All columns that [`ClaimedEntry`] reads.
pub(super) const CLAIM_COLUMNS: &str = "seq, lane, timed, ready_at_ms, key_hash, bytes, redrive_letter, redrive_count, \
    received_at_ms, progress, head, original_head, body, original_body";

impl ClaimedEntry {
    /// Of a row of [`CLAIM_COLUMNS`]. Numbers that make no sense do not keep other entries back: [`open`](Sealed::open)
    /// says so.
    ///
    /// # Errors
    /// `Damaged`: a column has another type.
    pub fn read(row: Row, pipeline: &Arc<str>) -> Result<Self, StoreError> {
        Ok(Self {
            seq: row.integer(0)?,
            lane: row.text(1)?.into(),
            timed: row.integer(2)? != 0,
            ready_at_ms: row.integer(3)?,
            key_hash: row.optional_bytes(4)?,
            bytes: row.unsigned(5).unwrap_or_default(),
            redrive: redrive(&row).unwrap_or_default(),
            pipeline: Arc::clone(pipeline),
            row,
        })
    }

    fn body(&self, column: usize, part: Part, head: &str) -> Result<Body, StoreError> {
        self.row.once_unbound_body_of(column, &body_identity(&self.pipeline, part, head)).map(Body::from)
    }
}

impl Sealed for ClaimedEntry {
    type Opened = Received;

    fn size_bytes(&self) -> usize {
        self.row.size_bytes()
    }

    /// For the pipeline.
    fn open(&self) -> Result<Received, StoreError> {
        let row = &self.row;
        let damaged = |cause: String| row.damaged(cause);
        row.unsigned(5)?;
        let stored: StoredProgress =
            serde_json::from_str(&row.text(9)?).map_err(|error| damaged(format!("column progress: {error}")))?;
        let progress = stored.into_progress(&self.lane, row.unsigned(8)?, redrive(row)?);
        let head = row.text(10)?;
        let message = stored_message::message(&head, self.body(12, Part::Message, &head)?).map_err(damaged)?;
        let (original_head, original_body) = (row.optional_text(11)?, row.optional_bytes(13)?);
        let original = if original_head.is_some() || original_body.is_some() {
            let original_head = original_head.as_ref().unwrap_or(&head);
            let body = match original_body {
                Some(_) => self.body(13, Part::Original, original_head)?,
                None => message.body.clone(),
            };
            Some(Arc::new(stored_message::message(original_head, body).map_err(damaged)?))
        } else {
            None
        };
        let resumption = Some(Box::new(Resumption { original, progress }));
        Ok(Received { message, token: token(self.seq), resumption })
    }
}

fn redrive(row: &Row) -> Result<Option<Redrive>, StoreError> {
    let (letter, count) = (row.optional_text(6)?, row.optional_unsigned(7)?);
    let count = count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Ok(letter.zip(count).map(|(letter, count)| Redrive { letter: letter.into(), count }))
}

/// Which body of an entry.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// As it goes on.
    Message,
    /// As it was received.
    Original,
}

/// What a body belongs to, `head` being its own message's. It is sealed before its entry has a number.
fn body_identity<'a>(pipeline: &'a str, part: Part, head: &'a str) -> [&'a [u8]; 4] {
    let part: &[u8] = match part {
        Part::Message => b"\0message\0",
        Part::Original => b"\0original\0",
    };
    [b"inbox ", pipeline.as_bytes(), part, head.as_bytes()]
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
