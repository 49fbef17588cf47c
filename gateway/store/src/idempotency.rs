//! Answers to requests that carried an idempotency key, so that a repetition is answered the same and does nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::change::{Change, Transaction};
use crate::database::{Connection, Row, Value};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;

/// What makes repetitions of a request known, and answers them. Keys are told apart by pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// As the client gave it.
    pub key: Arc<str>,
    /// sha256 of what makes two requests the same.
    pub fingerprint: [u8; 32],
    /// What repetitions are answered.
    pub answer: StoredAnswer,
    /// How long from now the key is known.
    pub ttl: Duration,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP's.
    pub status: u16,
    /// As it was sent.
    pub body: Bytes,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// Nothing, or nothing any more.
    Unknown,
    /// The same request was answered so.
    Answered(StoredAnswer),
    /// It was another request's.
    KeyReused,
}

impl Store {
    /// Records the answer of a key, durably, in place of the one recorded for the same request before. Returns `false`,
    /// with nothing changed, if the key is another request's. If the call is dropped, either answer may be recorded.
    ///
    /// # Errors
    /// The answer is not recorded; what was recorded before stays.
    pub async fn conclude(&self, pipeline: &Arc<str>, conclusion: Idempotency) -> Result<bool, StoreError> {
        self.change(Conclude { pipeline: Arc::clone(pipeline), conclusion }).await
    }

    /// Looks a key up that is not older than its time to live. Cancel safe.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn recall(
        &self,
        pipeline: &Arc<str>,
        key: &Arc<str>,
        fingerprint: &[u8; 32],
    ) -> Result<Recalled, StoreError> {
        let recall = Recall { pipeline: Arc::clone(pipeline), key: Arc::clone(key), fingerprint: *fingerprint };
        self.ask(recall).await
    }
}

/// Takes the key for this request, if it is free or expired; else says what is known of it.
pub(crate) async fn take(
    transaction: &mut Transaction<'_>,
    pipeline: &Arc<str>,
    idempotency: &Idempotency,
) -> Result<Recalled, StoreError> {
    // A concurrent request with the key is waited for here, and then found below.
    let sql = "INSERT INTO idempotency (pipeline, key_hash, fingerprint, status, body, expires_at_ms) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, key_hash) DO UPDATE SET fingerprint = excluded.fingerprint, \
        status = excluded.status, body = excluded.body, expires_at_ms = excluded.expires_at_ms \
        WHERE idempotency.expires_at_ms <= $7";
    let arguments = arguments(pipeline, idempotency, transaction.now_ms());
    let taken = transaction.execute(sql, &arguments).await?;
    if taken > 0 {
        return Ok(Recalled::Unknown);
    }
    find(transaction, pipeline, &idempotency.key, &idempotency.fingerprint).await
}

fn arguments(pipeline: &Arc<str>, idempotency: &Idempotency, now: u64) -> [Value; 7] {
    let Idempotency { key, fingerprint, answer, ttl } = idempotency;
    let expires = now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    [
        Arc::clone(pipeline).into(),
        key_hash(key),
        Bytes::copy_from_slice(fingerprint).into(),
        u32::from(answer.status).into(),
        answer.body.clone().into(),
        expires.into(),
        now.into(),
    ]
}

fn key_hash(key: &str) -> Value {
    Value::Bytes(Bytes::copy_from_slice(&Sha256::digest(key)))
}

async fn find(
    connection: &mut Connection,
    pipeline: &Arc<str>,
    key: &str,
    fingerprint: &[u8; 32],
) -> Result<Recalled, StoreError> {
    let sql = "SELECT fingerprint, status, body FROM idempotency \
        WHERE pipeline = $1 AND key_hash = $2 AND expires_at_ms > $3";
    let found =
        connection.query_first(sql, &[Arc::clone(pipeline).into(), key_hash(key), connection.now_ms().into()]).await?;
    found.map_or(Ok(Recalled::Unknown), |row| judge(&row, fingerprint))
}

fn judge(row: &Row, fingerprint: &[u8; 32]) -> Result<Recalled, StoreError> {
    if row.bytes(0)? != fingerprint[..] {
        return Ok(Recalled::KeyReused);
    }
    let status = row.integer(1)?;
    let status = u16::try_from(status).map_err(|_| row.damaged(format!("{status} is no status of HTTP")))?;
    Ok(Recalled::Answered(StoredAnswer { status, body: row.bytes(2)? }))
}

struct Conclude {
    pipeline: Arc<str>,
    conclusion: Idempotency,
}

#[async_trait]
impl Change for Conclude {
    type Output = bool;

    fn size_bytes(&self) -> usize {
        256 + self.conclusion.answer.body.len()
    }

    fn doing(&self) -> &'static str {
        "record an answer"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<bool, StoreError> {
        let sql = "INSERT INTO idempotency (pipeline, key_hash, fingerprint, status, body, expires_at_ms) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (pipeline, key_hash) DO UPDATE \
            SET fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body, \
            expires_at_ms = excluded.expires_at_ms \
            WHERE idempotency.fingerprint = excluded.fingerprint OR idempotency.expires_at_ms <= $7";
        let arguments = arguments(&self.pipeline, &self.conclusion, transaction.now_ms());
        let recorded = transaction.execute(sql, &arguments).await?;
        Ok(recorded > 0)
    }
}

struct Recall {
    pipeline: Arc<str>,
    key: Arc<str>,
    fingerprint: [u8; 32],
}

#[async_trait]
impl Question for Recall {
    type Output = Recalled;

    fn doing(&self) -> &'static str {
        "look up an idempotency key"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Recalled, StoreError> {
        find(connection, &self.pipeline, &self.key, &self.fingerprint).await
    }
}
