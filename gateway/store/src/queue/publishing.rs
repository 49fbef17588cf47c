//! Publishing: what is checked beforehand, and the one transaction.

use async_trait::async_trait;
use bytes::Bytes;

use std::sync::Arc;

use super::batch::{Batch, Whole};
use super::error::QueueError;
use super::message::{MAX_BATCH_MESSAGES, Publication, Published};
use super::queues::{Known, Queues};
use super::room::{does_not_fit, full, make_room, never_fits};
use super::settings::{Compression, DEFAULT_PRIORITY, HIGHEST_PRIORITY, Kind, LONGEST_DELAY};
use super::sql::{Lock, QueueRow, SCHEDULED, body_identity, insert_all, queue_numbered, topic};
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;
use crate::store::Store;
use crate::stored_message;
use crate::vault::{DEFAULT_TENANT, Vault};

/// How often a publication is tried when the queue's properties change meanwhile.
pub(super) const MAX_TRIES: usize = 5;

impl Queues {
    /// Publishes up to [`MAX_BATCH_MESSAGES`]; durable when it returns. One result a message, in order: a message that
    /// is refused keeps no other back. Calls that come at the same time share a transaction.
    ///
    /// If the call is dropped, any of the messages may have been published.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (too many messages) or the store's trouble: nothing was published. For a message: `Full`,
    /// `TooLarge` or `Invalid`.
    pub async fn publish(
        &self,
        queue: &str,
        publications: Vec<Publication>,
    ) -> Result<Vec<Result<Published, QueueError>>, QueueError> {
        if publications.len() > MAX_BATCH_MESSAGES {
            let text = format!("there are {}; publish at most {MAX_BATCH_MESSAGES} at a time", publications.len());
            return Err(QueueError::Invalid { what: "messages".to_owned(), text });
        }
        let publications: Arc<[Publication]> = publications.into();
        let mut known = self.known(queue).await?;
        for _ in 0..MAX_TRIES {
            let (name, settings) = (queue.to_owned(), Arc::clone(&known));
            let prepared = prepare_all(&self.store, name, settings, Arc::clone(&publications)).await?;
            let ready = prepared.iter().filter_map(|one| one.as_ref().ok().cloned()).collect();
            let publish = Publish { queue: queue.to_owned(), known, messages: ready, whole: None };
            match self.store.change(publish).await? {
                Some(Done::Each(done)) => return Ok(merged(prepared, done)),
                Some(Done::Whole(_)) | None => known = self.look_up(queue).await?,
            }
        }
        Err(QueueError::Conflict { queue: queue.to_owned(), revision: known.revision })
    }
}

/// What was refused beforehand stays refused; the others have their results from the transaction.
fn merged(
    prepared: Vec<Result<Prepared, QueueError>>,
    done: Vec<Result<Published, QueueError>>,
) -> Vec<Result<Published, QueueError>> {
    let mut done = done.into_iter();
    let missing = || QueueError::Invalid { what: "message".to_owned(), text: "it has no result".to_owned() };
    prepared.into_iter().map(|one| one.and_then(|_| done.next().unwrap_or_else(|| Err(missing())))).collect()
}

/// Beyond this, heads and bodies are written on a thread that may block.
const MAX_INLINE_BYTES: usize = 64 << 10;

pub(super) async fn prepare_all(
    store: &Store,
    queue: String,
    known: Arc<Known>,
    publications: Arc<[Publication]>,
) -> Result<Vec<Result<Prepared, QueueError>>, QueueError> {
    let bytes: usize = publications.iter().map(|one| one.message.body.len()).sum();
    let (vault, now) = (Arc::clone(store.vault()), store.now_ms());
    let all = move || publications.iter().map(|one| prepare(&queue, &known, &vault, now, one)).collect();
    if bytes <= MAX_INLINE_BYTES {
        return Ok(all());
    }
    let doing = "prepare messages";
    tokio::task::spawn_blocking(all).await.map_err(|_| QueueError::Store(StoreError::Closed { doing }))
}

/// A message in its stored form.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    id: String,
    priority: u8,
    key: Option<Bytes>,
    head: String,
    body: Bytes,
    size_bytes: u64,
    /// The message's own.
    expires_at_ms: Option<u64>,
    /// The shorter of the publication's and the queue's.
    ttl_ms: Option<u64>,
    when: When,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Now,
    At(u64),
    After(u64),
}

impl Prepared {
    pub fn stored_bytes(&self) -> u64 {
        (self.head.len() + self.body.len()) as u64
    }
}

fn prepare(
    queue: &str,
    known: &Known,
    vault: &Vault,
    now: u64,
    publication: &Publication,
) -> Result<Prepared, QueueError> {
    let settings = &known.settings;
    let invalid = |what: &str, text: &str| Err(QueueError::Invalid { what: what.to_owned(), text: text.to_owned() });
    let message = &publication.message;
    let head = stored_message::head(message)
        .map_err(|error| QueueError::Invalid { what: "message".to_owned(), text: error.to_string() })?;
    let size_bytes = (head.len() + message.body.len()) as u64;
    if size_bytes > settings.max_message_bytes {
        let limit_bytes = settings.max_message_bytes;
        return Err(QueueError::TooLarge { queue: queue.to_owned(), bytes: size_bytes, limit_bytes });
    }
    let is_ordered = settings.kind == Kind::Ordered;
    let priority = match publication.priority {
        None => DEFAULT_PRIORITY,
        Some(_) if is_ordered => return invalid("priority", "an ordered queue has none"),
        Some(priority) if priority > HIGHEST_PRIORITY => return invalid("priority", "choose 0 to 9"),
        Some(priority) => priority,
    };
    let when = match message.deliver_at_ms {
        Some(at) if at > now && is_ordered => {
            return invalid(
                "deliver_at",
                "an ordered queue keeps the order of publication; use a queue of another kind",
            );
        }
        Some(at) if at.saturating_sub(now) > LONGEST_DELAY.as_millis() as u64 => {
            return invalid("deliver_at", "choose a time within 30 days");
        }
        Some(at) if at > now => When::At(at),
        Some(_) => When::Now,
        None => match settings.delay {
            Some(delay) if settings.kind == Kind::Delay && !delay.is_zero() => When::After(delay.as_millis() as u64),
            Some(_) | None => When::Now,
        },
    };
    let ttl = [publication.ttl, settings.ttl].into_iter().flatten().min();
    let is_compressed = match settings.compression {
        Compression::None => false,
        Compression::Zstd => true,
    };
    let queue_id = known.queue_id.to_be_bytes();
    let body = vault.seal(DEFAULT_TENANT, message.body.bytes(), is_compressed, &body_identity(&queue_id, &head))?;
    Ok(Prepared {
        id: message.id.clone(),
        priority,
        key: message.key.clone(),
        head,
        body,
        size_bytes,
        expires_at_ms: message.expires_at_ms,
        ttl_ms: ttl.map(|ttl| ttl.as_millis() as u64),
        when,
    })
}

pub(super) struct Publish {
    pub queue: String,
    pub known: Arc<Known>,
    pub messages: Vec<Prepared>,
    /// All of them or none.
    pub whole: Option<Whole>,
}

/// What came of it.
pub(super) enum Done {
    /// Of each message.
    Each(Vec<Result<Published, QueueError>>),
    /// Of all together, if they are [`Publish::whole`].
    Whole(Result<Batch, QueueError>),
}

pub(super) const MESSAGE_COLUMNS: [&str; 11] = [
    "queue_id",
    "msg_offset",
    "priority",
    "published_at_ms",
    "expires_at_ms",
    "size_bytes",
    "stored_bytes",
    "message_id",
    "message_key",
    "head",
    "body",
];

const SCHEDULED_COLUMNS: [&str; 10] = [
    "queue_id",
    "deliver_at_ms",
    "priority",
    "expires_at_ms",
    "size_bytes",
    "stored_bytes",
    "message_id",
    "message_key",
    "head",
    "body",
];

#[async_trait]
impl Change for Publish {
    /// `None` when the queue has changed meanwhile.
    type Output = Option<Done>;

    fn size_bytes(&self) -> usize {
        self.messages.iter().map(|message| message.stored_bytes() as usize + 256).sum()
    }

    fn doing(&self) -> &'static str {
        "publish messages"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let Some(mut queue) = queue_numbered(transaction, self.known.queue_id, Lock::Wait).await? else {
            return Ok(None);
        };
        if queue.revision != self.known.revision {
            return Ok(None);
        }
        if let Some(whole) = &self.whole {
            if let Some(answer) = whole.repetition(transaction, &queue).await? {
                return Ok(Some(Done::Whole(answer)));
            }
            // Before room is made for what cannot have it.
            if let Some(full) = never_fits(&self.queue, &queue, &self.messages) {
                return Ok(Some(Done::Whole(Err(full))));
            }
        }
        make_room(transaction, &mut queue, &self.messages).await?;
        if self.whole.is_some()
            && let Some(full) = does_not_fit(&self.queue, &queue, &self.messages)
        {
            queue.save(transaction).await?;
            return Ok(Some(Done::Whole(Err(full))));
        }
        let published_at = transaction.now_ms().max(queue.last_published_ms);
        let (mut results, mut stored, mut scheduled) = (Vec::new(), Vec::new(), Vec::new());
        for message in &self.messages {
            if let Some(full) = full(&self.queue, &queue, message.stored_bytes()) {
                results.push(Err(full));
                continue;
            }
            let id = message.id.clone();
            let (offset, deliver_at_ms) = match message.when {
                When::Now => {
                    queue.last_offset += 1;
                    queue.messages += 1;
                    queue.bytes += message.stored_bytes();
                    stored.push(stored_row(message, &queue, published_at));
                    (Some(queue.last_offset), None)
                }
                When::At(_) | When::After(_) => {
                    let deliver_at = match message.when {
                        When::Now => published_at,
                        When::At(at) => at,
                        When::After(delay_ms) => published_at.saturating_add(delay_ms),
                    };
                    queue.scheduled += 1;
                    queue.scheduled_bytes += message.stored_bytes();
                    scheduled.push(scheduled_row(message, &queue, deliver_at));
                    (None, Some(deliver_at))
                }
            };
            results.push(Ok(Published { id, offset, deliver_at_ms }));
        }
        if !stored.is_empty() {
            queue.last_published_ms = published_at;
            insert_all(transaction, "queue_messages", &MESSAGE_COLUMNS, &stored).await?;
            transaction.announce(topic(queue.queue_id));
        }
        if !scheduled.is_empty() {
            insert_all(transaction, "queue_scheduled", &SCHEDULED_COLUMNS, &scheduled).await?;
            transaction.announce(SCHEDULED);
        }
        queue.save(transaction).await?;
        let Some(whole) = &self.whole else { return Ok(Some(Done::Each(results))) };
        match results.into_iter().collect::<Result<Vec<Published>, QueueError>>() {
            Ok(published) => {
                whole.remember(transaction, &queue, &published).await?;
                Ok(Some(Done::Whole(Ok(Batch { published, repeated: false }))))
            }
            // It was seen beforehand that all fit; a failure undoes the transaction.
            Err(error) => Err(transaction.failed(format!("a batch that fits was refused: {error}"))),
        }
    }
}

fn expiry(message: &Prepared, from_ms: u64) -> Option<u64> {
    let ttl = message.ttl_ms.map(|ttl| from_ms.saturating_add(ttl));
    [message.expires_at_ms, ttl].into_iter().flatten().min()
}

fn stored_row(message: &Prepared, queue: &QueueRow, published_at: u64) -> Vec<Value> {
    vec![
        queue.queue_id.into(),
        queue.last_offset.into(),
        u32::from(message.priority).into(),
        published_at.into(),
        expiry(message, published_at).into(),
        message.size_bytes.into(),
        message.stored_bytes().into(),
        message.id.as_str().into(),
        message.key.clone().into(),
        message.head.as_str().into(),
        message.body.clone().into(),
    ]
}

fn scheduled_row(message: &Prepared, queue: &QueueRow, deliver_at: u64) -> Vec<Value> {
    vec![
        queue.queue_id.into(),
        deliver_at.into(),
        u32::from(message.priority).into(),
        expiry(message, deliver_at).into(),
        message.size_bytes.into(),
        message.stored_bytes().into(),
        message.id.as_str().into(),
        message.key.clone().into(),
        message.head.as_str().into(),
        message.body.clone().into(),
    ]
}
