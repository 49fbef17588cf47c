//! Sending letters: their messages into the inbox and their items marked, in one transaction.

use async_trait::async_trait;

use super::ItemState;
use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection, Value};
use crate::dead_letter::is_being_redriven;
use crate::error::StoreError;
use crate::inbox::Put;

/// A letter that is to be sent, or not.
pub(super) struct Prepared {
    pub number: u64,
    pub letter: String,
    pub step: Step,
}

#[expect(clippy::large_enum_variant, reason = "nearly all of them go")]
pub(super) enum Step {
    /// Into the inbox, if the letter is still as it was when this was made.
    Goes { put: Put, before: u32, edited_at_ms: Option<u64> },
    /// It has its outcome already.
    Ends { state: ItemState, words: String },
}

/// See the module.
pub(super) struct Send {
    pub job: String,
    pub prepared: Vec<Prepared>,
}

pub(super) enum Sent {
    /// The job is not this gateway's, or does not run any more.
    Lost,
    Went {
        /// How many were sent or ended.
        count: u32,
        /// Which were put into an inbox, and whether they wait for their time there.
        put: Vec<(usize, bool)>,
    },
}

#[async_trait]
impl Change for Send {
    type Output = Sent;

    fn size_bytes(&self) -> usize {
        let size = |prepared: &Prepared| match &prepared.step {
            Step::Goes { put, .. } => put.size_bytes(),
            Step::Ends { words, .. } => words.len(),
        };
        64 + self.prepared.iter().map(size).sum::<usize>()
    }

    fn doing(&self) -> &'static str {
        "redrive dead letters"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Sent, StoreError> {
        let owner = transaction.owner();
        let sql = match transaction.backend() {
            Backend::Sqlite => "SELECT 1 FROM redrive_jobs WHERE id = $1 AND owner = $2 AND state = 'running'",
            Backend::Postgres => {
                "SELECT 1 FROM redrive_jobs WHERE id = $1 AND owner = $2 AND state = 'running' FOR SHARE"
            }
        };
        if transaction.query_first(sql, &[self.job.as_str().into(), owner.into()]).await?.is_none() {
            return Ok(Sent::Lost);
        }
        // In the order in which settlements take these locks, so that nobody waits in a circle.
        let puts = self.prepared.iter().filter_map(|prepared| match &prepared.step {
            Step::Goes { put, .. } => Some(put),
            Step::Ends { .. } => None,
        });
        Put::hold_order(puts, transaction).await?;
        let (mut count, mut put_in) = (0, Vec::new());
        for (index, prepared) in self.prepared.iter().enumerate() {
            let (put, ends) = match &prepared.step {
                Step::Ends { state, words } => (None, Some((*state, words.as_str()))),
                Step::Goes { put, before, edited_at_ms } => {
                    match letter(transaction, &prepared.letter).await? {
                        None => (None, Some((ItemState::Skipped, "deleted meanwhile"))),
                        // Changed since: prepared again next time.
                        Some(found) if found != (*before, *edited_at_ms) => continue,
                        Some(_) if is_being_redriven(transaction, &prepared.letter).await? => {
                            (None, Some((ItemState::Skipped, "on its way again already")))
                        }
                        Some((before, _)) => (Some((put, before)), None),
                    }
                }
            };
            let state = ends.map_or(ItemState::Sent, |(state, _)| state);
            let arguments: [Value; 6] = [
                self.job.as_str().into(),
                prepared.number.into(),
                state.name().into(),
                ends.map(|(_, words)| words).into(),
                transaction.now_ms().into(),
                put.map(|(_, before)| before.saturating_add(1)).into(),
            ];
            let sql = "UPDATE redrive_items SET state = $3, outcome = $4, at_ms = $5, redrive_count = $6, delivered = 0 \
                WHERE job = $1 AND number = $2 AND state = 'pending'";
            if transaction.execute(sql, &arguments).await? == 0 {
                continue;
            }
            count += 1;
            if let Some((put, _)) = put {
                put_in.push((index, put.insert(transaction).await?));
            }
        }
        Ok(Sent::Went { count, put: put_in })
    }

    fn committed(&mut self, sent: &mut Sent) {
        let Sent::Went { put: put_in, .. } = sent else { return };
        for (index, timed) in put_in {
            if let Some(Prepared { step: Step::Goes { put, .. }, .. }) = self.prepared.get(*index) {
                put.committed(*timed);
            }
        }
    }
}

/// Redrive count and time of the edit of a letter, held until the transaction ends.
async fn letter(connection: &mut Connection, id: &str) -> Result<Option<(u32, Option<u64>)>, StoreError> {
    let sql = match connection.backend() {
        Backend::Sqlite => "SELECT redrive_count, edited_at_ms FROM dead_letters WHERE id = $1",
        Backend::Postgres => "SELECT redrive_count, edited_at_ms FROM dead_letters WHERE id = $1 FOR UPDATE",
    };
    match connection.query_first(sql, &[id.into()]).await? {
        None => Ok(None),
        Some(row) => {
            let count = u32::try_from(row.integer(0)?).unwrap_or(u32::MAX);
            Ok(Some((count, row.optional_unsigned(1)?)))
        }
    }
}

/// Ends a job whose letters all have their outcome.
pub(super) struct Finish {
    pub job: String,
}

#[async_trait]
impl Change for Finish {
    /// Whether it is so.
    type Output = bool;

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "finish a redrive job"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let sql = "UPDATE redrive_jobs SET state = 'done', ended_at_ms = $2, owner = NULL WHERE id = $1 \
            AND state = 'running' AND NOT EXISTS (SELECT 1 FROM redrive_items WHERE job = $1 \
            AND redrive_items.state IN ('pending', 'sent'))";
        let values = [Value::from(self.job.as_str()), transaction.now_ms().into()];
        let done = transaction.execute(sql, &values).await? > 0;
        if done {
            transaction.announce(super::TOPIC);
        }
        Ok(done)
    }
}
