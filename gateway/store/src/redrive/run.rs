//! Running jobs: which of them this gateway runs, and what it sends next.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value as Json;
use sluicegate_engine::inbox::{Entry, Progress, Redrive, Waypoint};
use sluicegate_engine::message::{Message, now_ms};
use tokio::sync::watch;

use super::send::{Finish, Prepared, Send, Sent, Step};
use super::{From, ItemState, TOPIC, changed};
use crate::change::{Change, Transaction};
use crate::database::{Connection, Value};
use crate::dead_letter::{KeptLetter, MAX_PAGE_BYTES, try_read_letter};
use crate::error::StoreError;
use crate::inbox::Put;
use crate::leases::Owner;
use crate::reader::Question;
use crate::store::Store;

/// Letters of a job that are on their way at the same time; the next is sent when one of them has its outcome. A target
/// that is down does not get the whole job into the inbox.
const MAX_ON_THEIR_WAY: u64 = 1_000;
/// Letters sent in one change.
const MAX_BATCH: u64 = 64;

/// The pipelines of a gateway, by name: where letters can go.
pub type Destinations = HashMap<Arc<str>, Destination>;

/// What must be known of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Whether it keeps an order.
    pub ordered: bool,
}

/// A job that this gateway runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveJob {
    /// Its id.
    pub id: String,
    /// Letters a second.
    pub rate_per_second: u32,
    from: From,
    patch: Option<Json>,
    max_redrives: u32,
}

/// How a job went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// So many letters got on their way or were found not to; there may be more.
    Sent(u32),
    /// All that is left is on its way already, or as much as may be.
    Waits,
    /// Every letter has its outcome: the job is done.
    Done,
    /// It was paused or cancelled, or another gateway runs it.
    Lost,
}

impl Store {
    /// News of jobs that were created or controlled here or, on PostgreSQL, by others; with SQLite nothing tells of other
    /// processes: look from time to time.
    pub fn redrive_news(&self) -> watch::Receiver<u64> {
        self.signals().subscribe(TOPIC)
    }

    /// Takes over the running jobs that no gateway runs and returns all that this one runs. Cheap when there is nothing
    /// new: one question.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn claim_redrives(&self) -> Result<Vec<ActiveJob>, StoreError> {
        let mut running = self.ask(RunningJobs).await?;
        if running.iter().any(|(_, owner)| owner.is_none()) {
            self.change(Claim).await?;
            running = self.ask(RunningJobs).await?;
        }
        let owner: Owner = self.owner();
        let mine = running.into_iter().filter(|(_, of)| of.as_deref() == Some(owner.as_str()));
        Ok(mine.map(|(job, _)| job).collect())
    }

    /// Sends the next letters of a job, `limit` at most.
    ///
    /// # Errors
    /// What is wrong with the store. Nothing is lost then or when the call is dropped: what was sent is marked as sent.
    pub async fn advance_redrive(
        self: &Arc<Self>,
        job: &ActiveJob,
        destinations: &Destinations,
        limit: u32,
    ) -> Result<Advance, StoreError> {
        let limit = u64::from(limit).min(MAX_BATCH);
        let next = self.ask(Next { job: job.id.clone(), limit }).await?;
        if next.letters.is_empty() {
            return match (next.pending, next.sent) {
                (false, 0) => {
                    let done = self.change(Finish { job: job.id.clone() }).await?;
                    Ok(if done { Advance::Done } else { Advance::Waits })
                }
                (false | true, _) => Ok(Advance::Waits),
            };
        }
        let mut prepared = Vec::with_capacity(next.letters.len());
        for (number, id, letter) in next.letters {
            let step = self.prepare(job, destinations, letter).await?;
            prepared.push(Prepared { number, letter: id, step });
        }
        match self.change(Send { job: job.id.clone(), prepared }).await? {
            Sent::Lost => Ok(Advance::Lost),
            Sent::Went { count, .. } => Ok(Advance::Sent(count)),
        }
    }

    async fn prepare(
        self: &Arc<Self>,
        job: &ActiveJob,
        destinations: &Destinations,
        letter: Found,
    ) -> Result<Step, StoreError> {
        let ends = |state, words: String| Ok(Step::Ends { state, words });
        let kept = match letter {
            Some(Ok(kept)) => kept,
            // It stays, and may be redriven once it can be read.
            Some(Err(error)) => return ends(ItemState::Failed, format!("it cannot be opened: {error}")),
            None => return ends(ItemState::Skipped, "deleted meanwhile".to_owned()),
        };
        let letter = &kept.letter;
        if kept.is_being_redriven {
            return ends(ItemState::Skipped, "on its way again already".to_owned());
        }
        if letter.redrive_count >= job.max_redrives {
            return ends(ItemState::Skipped, format!("redriven {} times already", letter.redrive_count));
        }
        let Some(destination) = destinations.get(&letter.pipeline) else {
            let words = format!("the gateway's configuration has no pipeline `{}`", letter.pipeline);
            return ends(ItemState::Failed, words);
        };
        let entry = match entry(&kept, job.from, job.patch.as_ref(), *destination) {
            Ok(entry) => entry,
            Err(words) => return ends(ItemState::Failed, words),
        };
        let edited_at_ms = kept.edit.as_ref().map(|edit| edit.at_ms);
        match Put::new(self, &letter.pipeline, &entry).await? {
            Ok(put) => Ok(Step::Goes { put, before: letter.redrive_count, edited_at_ms }),
            Err(words) => ends(ItemState::Failed, words),
        }
    }
}

/// The message of a letter as its pipeline's inbox is to have it, after the letter's edit and then the patch.
///
/// # Errors
/// The patch does not fit, in words for people.
pub fn entry(kept: &KeptLetter, from: From, patch: Option<&Json>, destination: Destination) -> Result<Entry, String> {
    let (letter, now) = (&kept.letter, now_ms());
    let edit = kept.edit.as_ref().map(|kept| &kept.edit);
    let renewed = |message: &Message| -> Result<Message, String> {
        let mut message = changed(message, edit, patch)?;
        message.attempt = 1;
        // Its time is over, and yet somebody wants it delivered.
        message.expires_at_ms = message.expires_at_ms.filter(|at| *at > now);
        Ok(message)
    };
    let waypoint = match (from, &letter.step, &letter.target) {
        (From::FailedStep, Some(step), _) => Waypoint::Step(Arc::clone(step)),
        (From::FailedStep, None, Some(target)) => Waypoint::Target(Arc::clone(target)),
        (From::FailedStep, None, None) | (From::Start, _, _) => Waypoint::Start,
    };
    let (original, message) = match &waypoint {
        Waypoint::Start => {
            let original = Arc::new(renewed(&letter.original)?);
            (Arc::clone(&original), original)
        }
        Waypoint::Step(_) | Waypoint::Target(_) => {
            let message = Arc::new(renewed(&letter.at_failure)?);
            // Should the step be gone, its way begins with this one: changed too, if it can be. The record in the store
            // keeps what was received, whatever comes of this.
            let original = renewed(&letter.original).map_or_else(|_| Arc::clone(&letter.original), Arc::new);
            (original, message)
        }
    };
    let not_before_ms = if waypoint == Waypoint::Start { message.deliver_at_ms.unwrap_or(0) } else { 0 };
    Ok(Entry {
        ordered: destination.ordered && message.key.is_some(),
        original,
        message,
        progress: Progress {
            waypoint,
            attempt: 1,
            received_at_ms: now,
            redrive: Some(Redrive { letter: letter.id.as_str().into(), count: letter.redrive_count.saturating_add(1) }),
            ..Progress::default()
        },
        not_before_ms,
    })
}

/// All that run, and who runs them.
struct RunningJobs;

#[async_trait]
impl Question for RunningJobs {
    type Output = Vec<(ActiveJob, Option<String>)>;

    fn doing(&self) -> &'static str {
        "look for redrive jobs"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Self::Output, StoreError> {
        /// More run one after the other.
        const MAX_RUNNING: u64 = 64;
        let sql = "SELECT id, rate_per_second, origin, patch, max_redrives, owner FROM redrive_jobs \
            WHERE state = 'running' ORDER BY created_at_ms, id LIMIT $1";
        let rows = connection.query(sql, &[MAX_RUNNING.into()]).await?;
        let job = |row: &crate::database::Row| {
            let small = |column: usize| Ok::<_, StoreError>(u32::try_from(row.integer(column)?).unwrap_or(u32::MAX));
            let patch = row.optional_text(3)?.map(|text| serde_json::from_str(&text)).transpose();
            let job = ActiveJob {
                id: row.text(0)?,
                rate_per_second: small(1)?,
                from: From::from_name(&row.text(2)?).unwrap_or_default(),
                patch: patch.map_err(|error| row.damaged(format!("column patch: {error}")))?,
                max_redrives: small(4)?,
            };
            Ok((job, row.optional_text(5)?))
        };
        rows.iter().map(job).collect()
    }
}

/// Takes over what nobody runs.
struct Claim;

#[async_trait]
impl Change for Claim {
    type Output = ();

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "take over redrive jobs"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let owner = transaction.owner();
        let sql = "UPDATE redrive_jobs SET owner = $1 WHERE state = 'running' AND owner IS NULL RETURNING id";
        for row in transaction.query(sql, &[owner.into()]).await? {
            reconcile(transaction, &row.text(0)?).await?;
        }
        Ok(())
    }
}

/// What was sent and is in no inbox any more without having an outcome: somebody emptied the inbox by hand. If its letter
/// is there as it was, it is sent again.
async fn reconcile(connection: &mut Connection, job: &str) -> Result<(), StoreError> {
    const LOST: &str = "job = $1 AND state = 'sent' AND NOT EXISTS \
        (SELECT 1 FROM inbox WHERE redrive_letter = redrive_items.letter)";
    const LETTER: &str = "SELECT 1 FROM dead_letters WHERE dead_letters.id = redrive_items.letter";
    let again = format!(
        "UPDATE redrive_items SET state = 'dead_lettered', outcome = 'failed again', at_ms = $2 WHERE {LOST} \
         AND EXISTS ({LETTER} AND dead_letters.redrive_count >= redrive_items.redrive_count)"
    );
    let pending = format!(
        "UPDATE redrive_items SET state = 'pending', outcome = NULL, at_ms = NULL, redrive_count = NULL WHERE {LOST} \
         AND EXISTS ({LETTER})"
    );
    let gone = format!(
        "UPDATE redrive_items SET state = 'delivered', outcome = 'its letter is gone', at_ms = $2 WHERE {LOST} \
         AND NOT EXISTS ({LETTER})"
    );
    let arguments: [Value; 2] = [job.into(), connection.now_ms().into()];
    connection.execute(&again, &arguments).await?;
    connection.execute(&pending, &arguments[..1]).await?;
    connection.execute(&gone, &arguments).await.map(drop)
}

/// The next letters of a job.
struct Next {
    job: String,
    limit: u64,
}

/// A letter, why it cannot be opened, or that it is gone.
type Found = Option<Result<KeptLetter, StoreError>>;

#[derive(Default)]
struct NextLetters {
    /// Number in the job, id, letter.
    letters: Vec<(u64, String, Found)>,
    /// Whether there are any that are not sent.
    pending: bool,
    /// How many are on their way.
    sent: u64,
}

#[async_trait]
impl Question for Next {
    type Output = NextLetters;

    fn doing(&self) -> &'static str {
        "read what is to be redriven next"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<NextLetters, StoreError> {
        let job = Value::from(self.job.as_str());
        let sql = "SELECT count(*) FROM redrive_items WHERE job = $1 AND state = 'sent'";
        let mut next = NextLetters::default();
        if let Some(row) = connection.query_first(sql, std::slice::from_ref(&job)).await? {
            next.sent = row.unsigned(0)?;
        }
        let limit = self.limit.min(MAX_ON_THEIR_WAY.saturating_sub(next.sent));
        let sql =
            "SELECT number, letter FROM redrive_items WHERE job = $1 AND state = 'pending' ORDER BY number LIMIT $2";
        let rows = connection.query(sql, &[job, limit.max(1).into()]).await?;
        next.pending = !rows.is_empty();
        let mut bytes = 0;
        for row in rows.iter().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            if bytes >= MAX_PAGE_BYTES {
                break;
            }
            let (number, id) = (row.unsigned(0)?, row.text(1)?);
            let letter = try_read_letter(connection, &id).await?;
            if let Some(Ok(kept)) = &letter {
                bytes += (kept.letter.original.body.len() + kept.letter.at_failure.body.len()) as u64;
            }
            next.letters.push((number, id, letter));
        }
        Ok(next)
    }
}
