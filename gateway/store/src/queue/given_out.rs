//! What a claim has given out, until it is opened; what cannot be opened is set aside, see [`opening`](crate::opening).
//!
//! A message that is set aside stays in its queue as it is. The group is not through with it: it counts as pending, room
//! is not made by removing it, and it comes again after a while, and when a consumer joins. Until then it is in nobody's
//! way, nor is it in an ordered queue: the messages of its key go on without it, as they do after a dead letter.

use std::sync::Arc;

use async_trait::async_trait;

use super::claimed::Claimed;
use super::removal::MAX_STEP_MESSAGES;
use super::sql::{self, Lock, execute_for, group_numbered, topic, unblock};
use crate::change::{Change, Transaction};
use crate::database::{Row, Value};
use crate::error::StoreError;
use crate::opening::{SET_ASIDE_PAUSE, Sealed};

/// A claimed message as it is stored.
#[derive(Debug)]
pub(super) struct GivenOut {
    pub queue_id: u64,
    pub generation: u64,
    pub offset: u64,
    /// How often it has been given out, this time included.
    pub attempt: u32,
    /// `msg_offset, head, body`.
    pub row: Row,
}

impl Sealed for GivenOut {
    type Opened = Claimed;

    fn size_bytes(&self) -> usize {
        self.row.size_bytes()
    }

    fn open(&self) -> Result<Claimed, StoreError> {
        let mut message = sql::message(&self.row, self.queue_id, 1, 2)?;
        message.attempt = self.attempt;
        let token = (u128::from(self.generation) << 64) | u128::from(self.offset);
        Ok(Claimed { message, token, offset: self.offset })
    }
}

/// What becomes of messages that were given out and not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Another gateway may open them: they are as they were.
    GivenBack,
    /// Nobody can, for now.
    SetAside,
}

/// Takes messages back from a consumer that could not open them. It was no attempt.
#[derive(Debug, Clone)]
pub(super) struct TakeBack {
    pub queue_id: u64,
    pub group_id: u64,
    pub consumer: Arc<str>,
    pub generation: u64,
    pub offsets: Vec<u64>,
    pub fate: Fate,
}

#[async_trait]
impl Change for TakeBack {
    type Output = ();

    fn size_bytes(&self) -> usize {
        64 * (self.offsets.len() + 1)
    }

    fn doing(&self) -> &'static str {
        match self.fate {
            Fate::GivenBack => "give messages back",
            Fate::SetAside => "set messages aside",
        }
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        // Whoever adds to a lane has the lock, too, so that the next of a lane is not missed.
        if group_numbered(transaction, self.group_id, Lock::Wait).await?.is_none() {
            return Ok(());
        }
        let mut values = vec![self.group_id.into(), self.generation.into(), Value::from(&*self.consumer)];
        let sql = match self.fate {
            Fate::GivenBack => {
                "UPDATE queue_claims SET consumer = NULL, owner = NULL, attempt = attempt - 1 \
                 WHERE group_id = $1 AND generation = $2 AND consumer = $3 AND msg_offset IN ("
            }
            Fate::SetAside => {
                let pause_ms = u64::try_from(SET_ASIDE_PAUSE.as_millis()).unwrap_or(u64::MAX);
                values.push(transaction.now_ms().saturating_add(pause_ms).into());
                // An attempt of none would be one that was never given out.
                "UPDATE queue_claims SET consumer = NULL, owner = NULL, is_blocked = 2, lane = NULL, not_before_ms = $4, \
                 attempt = CASE WHEN attempt > 1 THEN attempt - 1 ELSE 1 END \
                 WHERE group_id = $1 AND generation = $2 AND consumer = $3 AND msg_offset IN ("
            }
        };
        execute_for(transaction, sql, &values, &self.offsets).await?;
        if self.fate == Fate::SetAside {
            unblock(transaction, self.group_id).await?;
        }
        transaction.announce(topic(self.queue_id));
        Ok(())
    }
}

/// Lets messages come again that were set aside long enough ago.
pub(super) struct TakeUp;

#[async_trait]
impl Change for TakeUp {
    /// Whether there may be more.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        64 << 10
    }

    fn doing(&self) -> &'static str {
        "take up messages that were set aside"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let sql = "UPDATE queue_claims SET is_blocked = 0 WHERE is_blocked = 2 AND (group_id, msg_offset) IN \
                   (SELECT group_id, msg_offset FROM queue_claims WHERE is_blocked = 2 AND not_before_ms <= $1 \
                    ORDER BY not_before_ms LIMIT $2)";
        let values = [transaction.now_ms(), MAX_STEP_MESSAGES].map(Value::from);
        Ok(transaction.execute(sql, &values).await? >= MAX_STEP_MESSAGES)
    }
}
