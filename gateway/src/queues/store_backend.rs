//! The store's queues, as the `queue` connector needs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context as _;
use async_trait::async_trait;
use sluicegate_connectors::queue::{
    self as declared, Backend, Declaration, Declarations, Defaults, Member, Outgoing, QueueBackend, Verdict,
};
use sluicegate_engine::delivery::{Received, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_store::queue::{
    self, Consumer, Keeper, Publication, QueueError, Queues, Retention, Settings, Settle, Start,
};
use tokio::task::JoinHandle;

/// Most bytes a source reads at once, if its first message is not larger.
const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// How often a declaration is tried when another gateway changes the queue at the same time.
const MAX_TRIES: usize = 5;

/// Queues kept by the gateway's store.
#[derive(Debug, Clone)]
pub struct StoreQueues(Queues);

impl StoreQueues {
    /// Those of this store.
    pub fn new(queues: &Queues) -> Self {
        Self(queues.clone())
    }

    /// Creates what is declared and missing, and brings the rest to its declaration.
    ///
    /// # Errors
    /// The first queue for which that cannot be done.
    pub async fn declare_all(&self, declarations: &Declarations) -> anyhow::Result<()> {
        for (name, declaration) in declarations {
            match declaration.backend {
                Backend::Store => self.declare(name, declaration).await.with_context(|| format!("queue `{name}`"))?,
                // A stream comes with its first entry or group.
                Backend::Redis(_) => {}
            }
        }
        Ok(())
    }

    async fn bring_about(&self, name: &str, settings: &Settings) -> Result<(), QueueError> {
        let mut tries = 0;
        loop {
            let changed = match self.0.create(name, settings).await {
                Err(QueueError::Exists { .. }) => {
                    let found = self.0.get(name).await?;
                    self.0.update(name, found.revision, settings).await
                }
                created => created,
            };
            match changed {
                Err(QueueError::Conflict { .. } | QueueError::NotFound { .. }) if tries < MAX_TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }
}

/// Runs what is due by itself in the store's queues, until it is stopped.
#[derive(Debug)]
pub struct Keeping(JoinHandle<()>);

impl Keeping {
    /// Starts. Must be called within a Tokio runtime.
    pub fn start(queues: &Queues) -> Self {
        Self(tokio::spawn(Keeper::new(queues).run()))
    }

    /// Stops between two transactions, or lets the last one go through unseen.
    pub async fn stop(self) {
        self.0.abort();
        if let Err(error) = self.0.await
            && error.is_panic()
        {
            tracing::error!(%error, "the queues' keeper failed");
        }
    }
}

/// What a new queue is like of which nothing else is said.
pub fn defaults(defaults: &Defaults) -> Settings {
    let Defaults { max_messages, max_age, max_message, consumer_timeout: _ } = defaults;
    let standard = Settings::default();
    let retention = Retention { max_age: max_age.0, max_messages: max_messages.messages(), ..standard.retention };
    Settings { retention, max_message_bytes: max_message.0, ..standard }
}

/// The store's words for a declaration.
pub fn settings(declaration: &Declaration) -> Settings {
    let Declaration { kind, retention, max_message, compression, ttl, delay, schema, backend } = declaration;
    let standard = Settings::default();
    let max_messages = match (retention.max_messages, backend) {
        (Some(length), _) => length.messages(),
        (None, Backend::Store) => standard.retention.max_messages,
        // It has no limit by default: it would be kept by removing what nobody has read.
        (None, Backend::Redis(_)) => None,
    };
    Settings {
        kind: match kind {
            declared::Kind::Normal => queue::Kind::Normal,
            declared::Kind::Ordered => queue::Kind::Ordered,
            declared::Kind::Delay => queue::Kind::Delay,
        },
        retention: Retention {
            max_age: retention.max_age.map_or(standard.retention.max_age, |age| age.0),
            max_bytes: retention.max_bytes.map(|size| size.0),
            max_messages,
            at_limit: match retention.at_limit {
                declared::AtLimit::Refuse => queue::AtLimit::Refuse,
                declared::AtLimit::DropOldest => queue::AtLimit::DropOldest,
            },
        },
        max_message_bytes: max_message.map_or(standard.max_message_bytes, |size| size.0),
        compression: match compression {
            declared::Compression::None => queue::Compression::None,
            declared::Compression::Zstd => queue::Compression::Zstd,
        },
        ttl: ttl.map(|ttl| ttl.0),
        delay: delay.map(|delay| delay.0),
        schema: schema.clone(),
    }
}

/// What an error of a queue asks of the engine.
fn failure(doing: &str, error: QueueError) -> Failure {
    let text = format!("{doing}: {error}");
    match error {
        QueueError::Full { retry_after, .. } => Failure::retry_after(retry_after, text),
        // Connecting anew declares it again.
        QueueError::NotFound { .. } | QueueError::GroupNotFound { .. } => Failure::disconnected(text),
        QueueError::Conflict { .. } => Failure::transient(text),
        QueueError::Store(error) if error.is_transient() => Failure::transient(text),
        QueueError::Store(_)
        | QueueError::TooLarge { .. }
        | QueueError::Invalid { .. }
        | QueueError::Exists { .. }
        | QueueError::Claimed { .. }
        | QueueError::MessageNotFound { .. }
        | QueueError::InBatch { .. }
        | QueueError::KeyReused { .. }
        | QueueError::TooMany { .. } => Failure::permanent(text),
    }
}

fn publication(outgoing: Outgoing) -> Publication {
    let message = match outgoing.delay {
        None => outgoing.message,
        Some(delay) => {
            let deliver_at_ms = Some(now_ms().saturating_add(delay.as_millis() as u64));
            Arc::new(Message { deliver_at_ms, ..Message::clone(&outgoing.message) })
        }
    };
    Publication { message, priority: outgoing.priority, ttl: None }
}

#[async_trait]
impl QueueBackend for StoreQueues {
    async fn declare(&self, queue: &str, declaration: &Declaration) -> Result<(), Failure> {
        let doing = format!("declaring the queue `{queue}`");
        self.bring_about(queue, &settings(declaration)).await.map_err(|error| failure(&doing, error))
    }

    async fn publish(&self, queue: &str, batch: Vec<Outgoing>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let doing = format!("publishing to the queue `{queue}`");
        let publications = batch.into_iter().map(publication).collect();
        let results = self.0.publish(queue, publications).await.map_err(|error| failure(&doing, error))?;
        Ok(results.into_iter().map(|one| one.map(drop).map_err(|error| failure(&doing, error))).collect())
    }

    async fn join(&self, queue: &str, group: &str, start: declared::Start) -> Result<Arc<dyn Member>, Failure> {
        let start = match start {
            declared::Start::Earliest => Start::Earliest,
            declared::Start::Latest => Start::Latest,
        };
        let place = format!("the queue `{queue}` as group `{group}`");
        let consumer = self.0.join(queue, group, start).await;
        let consumer = consumer.map_err(|error| failure(&format!("joining {place}"), error))?;
        Ok(Arc::new(StoreMember { place, consumer, is_gone: AtomicBool::new(false) }))
    }
}

struct StoreMember {
    place: String,
    consumer: Consumer,
    is_gone: AtomicBool,
}

#[async_trait]
impl Member for StoreMember {
    async fn claim(&self, max: usize) -> Result<Vec<Received>, Failure> {
        match self.consumer.claim(max, MAX_CLAIM_BYTES).await {
            Ok(claimed) => Ok(claimed.into_iter().map(|one| Received::new(one.message, Token(one.token))).collect()),
            Err(error) => {
                if let QueueError::NotFound { .. } | QueueError::GroupNotFound { .. } = error {
                    self.is_gone.store(true, Relaxed);
                }
                Err(failure(&format!("reading {}", self.place), error))
            }
        }
    }

    async fn settle(&self, batch: &[(Token, Verdict)]) -> Result<(), Failure> {
        let settle = |(token, verdict): &(Token, Verdict)| match verdict {
            Verdict::Done => Settle::done(token.0),
            Verdict::Again(after) => Settle::release(token.0, *after),
        };
        let batch: Vec<Settle> = batch.iter().map(settle).collect();
        self.consumer.settle(&batch).await.map_err(|error| failure(&format!("settling in {}", self.place), error))
    }

    async fn leave(&self) -> Result<(), Failure> {
        self.is_gone.store(true, Relaxed);
        self.consumer.leave().await.map_err(|error| failure(&format!("leaving {}", self.place), error))
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use sluicegate_connectors::queue::Length;
    use sluicegate_engine::failure::FailureKind;

    use super::*;

    #[test]
    fn a_full_queue_is_tried_again_and_a_message_it_does_not_take_is_not() {
        let (queue, retry_after) = ("q".to_owned(), Duration::from_secs(1));
        let full = QueueError::Full { queue: queue.clone(), limit: "1 messages".to_owned(), retry_after };
        assert_eq!(failure("publishing", full).kind, FailureKind::Transient { retry_after: Some(retry_after) });
        let large = QueueError::TooLarge { queue: queue.clone(), bytes: 2, limit_bytes: 1 };
        assert_eq!(failure("publishing", large).kind, FailureKind::Permanent);
        assert_eq!(failure("publishing", QueueError::NotFound { queue }).kind, FailureKind::Disconnected);
    }

    #[test]
    fn the_defaults_of_a_declaration_are_those_of_the_store() {
        assert_eq!(settings(&Declaration::default()), Settings::default());
        assert_eq!(defaults(&Defaults::default()), Settings::default());
        let completed = Declaration::default().completed(&Defaults::default(), Path::new(""));
        assert_eq!(settings(&completed), Settings::default());
    }

    #[test]
    fn what_is_left_out_is_as_the_defaults_say_and_what_is_said_stays() {
        let more = Defaults { max_messages: Length::Unlimited, ..Defaults::default() };
        let completed = Declaration::default().completed(&more, Path::new(""));
        assert_eq!(settings(&completed).retention.max_messages, None);
        assert_eq!(defaults(&more).retention.max_messages, None);
        let mut own = Declaration::default();
        own.retention.max_messages = Some(Length::Messages(5));
        assert_eq!(settings(&own.completed(&more, Path::new(""))).retention.max_messages, Some(5));
    }
}
