//! The store as the spool of HTTP ingestion: from the connector's words to the store's and back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use sluicegate_connectors::http::{
    Admission, Admitted, Fingerprint, Idempotency, Recalled, Refusal, Spool, StoredAnswer,
};
use sluicegate_store::{Store, StoreError, idempotency, inbox};
use tracing::warn;

/// What a client is asked to wait whose messages found a full backlog.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(1);
/// What a client is asked to wait when the store takes nothing.
const RETRY_AFTER_STORE: Duration = Duration::from_secs(5);

/// See the module.
pub struct StoreSpool(pub Arc<Store>);

#[async_trait]
impl Spool for StoreSpool {
    async fn admit(&self, admission: Admission) -> Result<Admitted, Refusal> {
        let Admission { pipeline, messages, ordered, idempotency, wait, backlog } = admission;
        let backlog = inbox::Backlog { max_messages: backlog.max_messages, max_bytes: backlog.max_bytes };
        let idempotency = idempotency.map(stored);
        let admission = inbox::Admission { pipeline, messages, ordered, idempotency, wait, backlog };
        match self.0.admit(admission).await.map_err(unavailable)? {
            inbox::Admitted::Taken { outcomes } => Ok(Admitted::Taken { outcomes }),
            inbox::Admitted::Repeated(answer) => Ok(Admitted::Repeated(answered(answer)?)),
            inbox::Admitted::KeyReused => Err(Refusal::KeyReused),
            inbox::Admitted::BacklogFull => Err(Refusal::BacklogFull { retry_after: RETRY_AFTER_FULL }),
        }
    }

    async fn conclude(&self, pipeline: &Arc<str>, conclusion: Idempotency) -> Result<(), Refusal> {
        match self.0.conclude(pipeline, stored(conclusion)).await.map_err(unavailable)? {
            true => Ok(()),
            false => Err(Refusal::KeyReused),
        }
    }

    async fn recall(
        &self,
        pipeline: &Arc<str>,
        key: &Arc<str>,
        fingerprint: &Fingerprint,
    ) -> Result<Recalled, Refusal> {
        match self.0.recall(pipeline, key, &fingerprint.0).await.map_err(unavailable)? {
            idempotency::Recalled::Unknown => Ok(Recalled::Unknown),
            idempotency::Recalled::Answered(answer) => Ok(Recalled::Answered(answered(answer)?)),
            idempotency::Recalled::KeyReused => Err(Refusal::KeyReused),
        }
    }
}

fn stored(idempotency: Idempotency) -> idempotency::Idempotency {
    let Idempotency { key, fingerprint, answer, ttl } = idempotency;
    let answer = idempotency::StoredAnswer { status: answer.status.as_u16(), body: answer.body };
    idempotency::Idempotency { key, fingerprint: fingerprint.0, answer, ttl }
}

fn answered(answer: idempotency::StoredAnswer) -> Result<StoredAnswer, Refusal> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| Refusal::Unavailable {
        text: "the answer recorded for this idempotency key cannot be read".to_owned(),
        retry_after: RETRY_AFTER_STORE,
    })?;
    Ok(StoredAnswer { status, body: answer.body })
}

/// Clients are not told where the store is; the log is.
fn unavailable(error: StoreError) -> Refusal {
    warn!(%error, "nothing can be accepted: the store takes nothing now");
    metrics::counter!("sluicegate_admissions_refused_total").increment(1);
    Refusal::Unavailable {
        text: "the gateway cannot keep messages at the moment; nothing was accepted".to_owned(),
        retry_after: RETRY_AFTER_STORE,
    }
}
