//! Deduplication: which messages were delivered, and which are under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use sluicegate_engine::deduplication::Deduplication;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use tokio::sync::{oneshot, watch};

use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;

/// Most keys of one query.
const MAX_QUESTIONS: usize = 256;

/// sha256 of source, NUL and id.
type KeyHash = [u8; 32];

/// What one pipeline has delivered. A copy that comes while the first is under way waits until that has ended, at this
/// gateway; copies that come to different gateways at the same time may both be delivered.
pub struct StoreDeduplication {
    store: Arc<Store>,
    pipeline: Arc<str>,
    window: Duration,
    questions: Questions,
}

impl StoreDeduplication {
    /// Remembers for `window` after delivery. Does no I/O.
    pub fn new(store: Arc<Store>, pipeline: &Arc<str>, window: Duration) -> Self {
        Self { store, pipeline: Arc::clone(pipeline), window, questions: Questions::default() }
    }

    /// Whether it is remembered, with what others ask at the same time.
    async fn is_remembered(&self, key: KeyHash) -> Result<bool, StoreError> {
        loop {
            let mut answered = self.questions.put(key);
            let turn = tokio::select! {
                biased;
                answer = &mut answered => match answer {
                    Ok(answer) => return answer,
                    // Whoever asked for us was dropped.
                    Err(_) => continue,
                },
                turn = self.questions.turn.lock() => turn,
            };
            while answered.is_empty() {
                let batch = self.questions.take();
                if batch.is_empty() {
                    break;
                }
                let keys = batch.iter().map(|(key, _)| *key).collect();
                let found = self.store.ask(FindDelivered { pipeline: Arc::clone(&self.pipeline), keys }).await;
                for (key, answer) in batch {
                    let answer_to_all = found.as_ref().map(|found| found.contains(&key)).map_err(Clone::clone);
                    if answer.send(answer_to_all).is_err() {
                        tracing::trace!("nobody waits for this answer any more");
                    }
                }
            }
            drop(turn);
            if let Ok(answer) = answered.try_recv() {
                return answer;
            }
        }
    }
}

#[async_trait]
impl Deduplication for StoreDeduplication {
    async fn was_delivered(&self, message: &Message) -> Result<bool, Failure> {
        let key = key_hash(message);
        let underway = loop {
            match self.store.underway().enter(&self.pipeline, key) {
                Ok(underway) => break underway,
                // Its end is the end of the channel.
                Err(mut first) => while first.changed().await.is_ok() {},
            }
        };
        let is_remembered = self.is_remembered(key).await?;
        if !is_remembered {
            underway.stay();
        }
        Ok(is_remembered)
    }

    async fn remember(&self, message: &Message) -> Result<(), Failure> {
        let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        let expires_at_ms = self.store.now_ms().saturating_add(window_ms);
        let remember = Remember { pipeline: Arc::clone(&self.pipeline), key: key_hash(message), expires_at_ms };
        Ok(self.store.change(remember).await?)
    }

    fn ended(&self, message: &Message) {
        self.store.underway().leave(&self.pipeline, key_hash(message));
    }
}

fn key_hash(message: &Message) -> KeyHash {
    Sha256::new().chain_update(&message.source).chain_update([0]).chain_update(&message.id).finalize().into()
}

/// Messages under way, by pipeline: shared by a pipeline and its successor. Each with a channel that closes when the
/// message's way has ended.
#[derive(Debug, Default)]
pub(crate) struct UnderwayKeys(Mutex<Underway>);

type Underway = HashMap<(Arc<str>, KeyHash), watch::Sender<()>>;

impl UnderwayKeys {
    fn enter(&self, pipeline: &Arc<str>, key: KeyHash) -> Result<Entering<'_>, watch::Receiver<()>> {
        let place = (Arc::clone(pipeline), key);
        let mut keys = self.lock();
        if let Some(first) = keys.get(&place) {
            return Err(first.subscribe());
        }
        keys.insert(place, watch::Sender::new(()));
        drop(keys);
        Ok(Entering { keys: self, pipeline: Arc::clone(pipeline), key, stays: false })
    }

    fn leave(&self, pipeline: &Arc<str>, key: KeyHash) {
        self.lock().remove(&(Arc::clone(pipeline), key));
    }

    fn lock(&self) -> MutexGuard<'_, Underway> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves again unless it is told to stay: the question may be dropped, or answered yes.
struct Entering<'a> {
    keys: &'a UnderwayKeys,
    pipeline: Arc<str>,
    key: KeyHash,
    stays: bool,
}

impl Entering<'_> {
    fn stay(mut self) {
        self.stays = true;
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.keys.leave(&self.pipeline, self.key);
        }
    }
}

type Answer = oneshot::Sender<Result<bool, StoreError>>;

/// Questions that wait to be asked together: whoever has the turn asks for all. Bounded by the messages in flight.
#[derive(Default)]
struct Questions {
    waiting: Mutex<Vec<(KeyHash, Answer)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Questions {
    fn put(&self, key: KeyHash) -> oneshot::Receiver<Result<bool, StoreError>> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((key, answer));
        answered
    }

    fn take(&self) -> Vec<(KeyHash, Answer)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.len().min(MAX_QUESTIONS);
        let mut batch: Vec<_> = waiting.drain(..first).collect();
        batch.retain(|(_, answer)| !answer.is_closed());
        batch
    }
}

struct FindDelivered {
    pipeline: Arc<str>,
    keys: Vec<KeyHash>,
}

pub(crate) const FIND: [&str; 2] = [
    "SELECT key_hash FROM delivered WHERE pipeline = $1 AND expires_at_ms > $3 \
     AND key_hash IN (SELECT unhex(value) FROM json_each($2))",
    "SELECT key_hash FROM delivered WHERE pipeline = $1 AND expires_at_ms > $3 \
     AND key_hash IN (SELECT decode(value, 'hex') FROM unnest(string_to_array($2, ',')) AS value)",
];

#[async_trait]
impl Question for FindDelivered {
    type Output = Vec<KeyHash>;

    fn doing(&self) -> &'static str {
        "look up what was delivered"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Vec<KeyHash>, StoreError> {
        let keys: Vec<String> = self.keys.iter().map(|key| hex(key)).collect();
        let list = match connection.backend() {
            Backend::Sqlite => format!("[\"{}\"]", keys.join("\",\"")),
            Backend::Postgres => keys.join(","),
        };
        let sql = FIND[usize::from(connection.backend() == Backend::Postgres)];
        let arguments = [Arc::clone(&self.pipeline).into(), Value::Text(list), connection.now_ms().into()];
        let rows = connection.query(sql, &arguments).await?;
        let read = |row: &crate::database::Row| {
            KeyHash::try_from(&row.bytes(0)?[..]).map_err(|_| row.damaged("a digest is not of 32 bytes"))
        };
        rows.iter().map(read).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok());
        text
    })
}

struct Remember {
    pipeline: Arc<str>,
    key: KeyHash,
    expires_at_ms: u64,
}

#[async_trait]
impl Change for Remember {
    type Output = ();

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "remember what was delivered"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let sql = "INSERT INTO delivered (pipeline, key_hash, expires_at_ms) VALUES ($1, $2, $3) \
            ON CONFLICT (pipeline, key_hash) DO UPDATE SET expires_at_ms = excluded.expires_at_ms";
        let key = Bytes::copy_from_slice(&self.key);
        let arguments = [Arc::clone(&self.pipeline).into(), key.into(), self.expires_at_ms.into()];
        transaction.execute(sql, &arguments).await.map(drop)
    }
}
