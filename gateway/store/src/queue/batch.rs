//! Publishing all of a batch or nothing, and once for each idempotency key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::error::QueueError;
use super::message::{MAX_BATCH_MESSAGES, Publication, Published};
use super::publishing::{Done, MAX_TRIES, Publish, prepare_all};
use super::queues::Queues;
use super::sql::QueueRow;
use crate::change::Transaction;
use crate::database::Value;
use crate::error::StoreError;

/// Makes repetitions of a request known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// As the client gave it. Keys are told apart by queue.
    pub key: Arc<str>,
    /// sha256 of what makes two requests the same.
    pub fingerprint: [u8; 32],
    /// How long from now the key is known.
    pub ttl: Duration,
}

/// A batch that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// One for each message, in order.
    pub published: Vec<Published>,
    /// Whether it was published before, by a request with the same key; nothing was published now.
    pub repeated: bool,
}

impl Queues {
    /// Publishes 1 to [`MAX_BATCH_MESSAGES`] in one transaction, all or none; durable when it returns. With `once`, a
    /// repetition within its time publishes nothing and gets the first one's result; what was refused may be repeated.
    ///
    /// If the call is dropped, all or none may have been published.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), those of a message within [`QueueError::InBatch`]; `KeyReused` when the key was
    /// another request's. Nothing was published.
    pub async fn publish_all(
        &self,
        queue: &str,
        publications: Vec<Publication>,
        once: Option<Once>,
    ) -> Result<Batch, QueueError> {
        let count = publications.len();
        if !(1..=MAX_BATCH_MESSAGES).contains(&count) {
            let text = format!("there are {count}; publish 1 to {MAX_BATCH_MESSAGES} at a time");
            return Err(QueueError::Invalid { what: "messages".to_owned(), text });
        }
        let publications: Arc<[Publication]> = publications.into();
        let mut known = self.known(queue).await?;
        for _ in 0..MAX_TRIES {
            let prepared =
                prepare_all(&self.store, queue.to_owned(), Arc::clone(&known), Arc::clone(&publications)).await?;
            let in_batch = |(index, one): (usize, Result<_, QueueError>)| {
                one.map_err(|error| QueueError::InBatch { index, error: Box::new(error) })
            };
            let messages = prepared.into_iter().enumerate().map(in_batch).collect::<Result<Vec<_>, _>>();
            let messages = match messages {
                Ok(messages) => messages,
                // It may have been another queue's properties, read a while ago.
                Err(error) => match self.look_up(queue).await? {
                    newer if newer.revision == known.revision && newer.queue_id == known.queue_id => return Err(error),
                    newer => {
                        known = newer;
                        continue;
                    }
                },
            };
            let whole = Some(Whole { once: once.clone() });
            let publish = Publish { queue: queue.to_owned(), known: Arc::clone(&known), messages, whole };
            match self.store.change(publish).await? {
                Some(Done::Whole(done)) => return done,
                Some(Done::Each(_)) | None => known = self.look_up(queue).await?,
            }
        }
        Err(QueueError::Conflict { queue: queue.to_owned(), revision: known.revision })
    }
}

/// What makes a publication whole.
pub(super) struct Whole {
    once: Option<Once>,
}

impl Whole {
    /// The answer, if the key is known already. The queue's row is locked, so nobody else takes the key meanwhile.
    pub async fn repetition(
        &self,
        transaction: &mut Transaction<'_>,
        queue: &QueueRow,
    ) -> Result<Option<Result<Batch, QueueError>>, StoreError> {
        let Some(once) = &self.once else { return Ok(None) };
        let sql = "SELECT fingerprint, body FROM idempotency \
                   WHERE pipeline = $1 AND key_hash = $2 AND expires_at_ms > $3";
        let values = [scope(queue), hash(&once.key), transaction.now_ms().into()];
        let Some(row) = transaction.query_first(sql, &values).await? else { return Ok(None) };
        if row.bytes(0)? != once.fingerprint[..] {
            return Ok(Some(Err(QueueError::KeyReused { queue: queue.name.clone() })));
        }
        let kept: Vec<Kept> = serde_json::from_slice(&row.bytes(1)?)
            .map_err(|error| row.damaged(format!("the answer kept for a key: {error}")))?;
        let published = kept.into_iter().map(|(id, offset, deliver_at_ms)| Published { id, offset, deliver_at_ms });
        Ok(Some(Ok(Batch { published: published.collect(), repeated: true })))
    }

    /// Keeps the answer for repetitions. The gateway's upkeep of the inbox removes it once it has expired.
    pub async fn remember(
        &self,
        transaction: &mut Transaction<'_>,
        queue: &QueueRow,
        published: &[Published],
    ) -> Result<(), StoreError> {
        let Some(once) = &self.once else { return Ok(()) };
        let kept: Vec<_> = published.iter().map(|one| (&one.id, one.offset, one.deliver_at_ms)).collect();
        let kept = serde_json::to_vec(&kept)
            .map_err(|error| transaction.failed(format!("an answer cannot be kept: {error}")))?;
        let sql = "INSERT INTO idempotency (pipeline, key_hash, fingerprint, status, body, expires_at_ms) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, key_hash) DO UPDATE \
                   SET fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body, \
                   expires_at_ms = excluded.expires_at_ms";
        let expires_at = transaction.now_ms().saturating_add(u64::try_from(once.ttl.as_millis()).unwrap_or(u64::MAX));
        let values = [
            scope(queue),
            hash(&once.key),
            Bytes::copy_from_slice(&once.fingerprint).into(),
            CREATED.into(),
            Bytes::from(kept).into(),
            expires_at.into(),
        ];
        transaction.execute(sql, &values).await.map(drop)
    }
}

/// The status that goes with the answer.
const CREATED: u32 = 201;

/// Id, offset, time of delivery.
type Kept = (String, Option<u64>, Option<u64>);

/// Keys of pipelines and of queues share a table; no pipeline's name has a space.
fn scope(queue: &QueueRow) -> Value {
    format!("queue {}", queue.queue_id).into()
}

fn hash(key: &str) -> Value {
    Value::Bytes(Bytes::copy_from_slice(&Sha256::digest(key)))
}
