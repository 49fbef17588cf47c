//! The spool: where a path that answers `accepted` puts its messages before it answers. The gateway's store implements
//! it; the pipeline then reads what was put there from its [inbox](sluicegate_engine::inbox).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::message::Message;
use tokio::sync::oneshot;

/// Keeps posted messages, and the answers of requests that named an `Idempotency-Key`.
///
/// Every call is to come back within seconds: what it waits for (a lock, a connection) ends in
/// [`Refusal::Unavailable`].
#[async_trait]
pub trait Spool: Send + Sync {
    /// Puts all messages of a request into their pipeline's inbox, in order, at the start of their way and with attempt
    /// 1, or none of them; with them, in one transaction, the idempotency key. Durable when it returns `Taken`.
    ///
    /// If the call is dropped before, all may be in or none.
    ///
    /// # Errors
    /// Nothing was put in.
    async fn admit(&self, admission: Admission) -> Result<Admitted, Refusal>;

    /// Records the answer of an idempotency key, durably, in place of the one recorded for the same request before.
    ///
    /// If the call is dropped, either answer may be recorded.
    ///
    /// # Errors
    /// The answer is not recorded; what was recorded before stays.
    async fn conclude(&self, pipeline: &Arc<str>, conclusion: Idempotency) -> Result<(), Refusal>;

    /// Looks up an idempotency key that is not older than its time to live. Cancel safe.
    ///
    /// # Errors
    /// [`Refusal::KeyReused`] if it was recorded for another request.
    async fn recall(&self, pipeline: &Arc<str>, key: &Arc<str>, fingerprint: &Fingerprint)
    -> Result<Recalled, Refusal>;
}

/// The messages of one request.
#[derive(Debug)]
pub struct Admission {
    /// The pipeline whose inbox they go into.
    pub pipeline: Arc<str>,
    /// At least one.
    pub messages: Vec<Message>,
    /// Whether messages of the same key are to wait for each other
    /// ([`Entry::ordered`](sluicegate_engine::inbox::Entry::ordered)).
    pub ordered: bool,
    /// The request's `Idempotency-Key`, with the answer to record for it.
    pub idempotency: Option<Idempotency>,
    /// Whether [`Admitted::Taken`] is to say how to learn the outcomes.
    pub wait: bool,
    /// How much may wait in the inbox at the start of its way, these messages included.
    pub backlog: Backlog,
}

/// How much of a path's messages may wait to be carried; what waits for a target or another attempt does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Messages.
    pub max_messages: u64,
    /// Bytes of their bodies.
    pub max_bytes: u64,
}

/// What makes repetitions of a request known, and answers them. Keys are told apart by pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// 1 to [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES) bytes of printable ASCII.
    pub key: Arc<str>,
    /// Tells a repetition from another request under the same key.
    pub fingerprint: Fingerprint,
    /// What repetitions are answered.
    pub answer: StoredAnswer,
    /// How long from now the key is known.
    pub ttl: Duration,
}

/// SHA-256 over what makes two requests the same: path, content type and decompressed body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// 2xx, or 422.
    pub status: StatusCode,
    /// JSON; a problem document if the status is 422.
    pub body: Bytes,
}

/// What became of an [`Admission`].
#[derive(Debug)]
pub enum Admitted {
    /// The messages are durable.
    Taken {
        /// If asked for, one for each message, in order: how its first stay in the pipeline ended. Closed without a word
        /// when that is not to be learned here, for example because another gateway carries the message.
        outcomes: Vec<oneshot::Receiver<Outcome>>,
    },
    /// The same request was taken before: nothing was put in now.
    Repeated(StoredAnswer),
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing, or nothing any more.
    Unknown,
    /// The same request was answered so.
    Answered(StoredAnswer),
}

/// Why the spool did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The idempotency key was recorded for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The backlog has no room for all of the messages.
    #[error("the backlog is full")]
    BacklogFull {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The store cannot do it now: disk full, locked, connection lost.
    #[error("{text}")]
    Unavailable {
        /// Why, for the client to read: no paths, no secrets.
        text: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
}
