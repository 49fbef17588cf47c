//! Messages whose clients are answered once they are on disk: into the spool, and on request their outcome from there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use sluicegate_engine::delivery::Outcome;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{self, Fate, Reply};
use super::idempotency::{Named, reused};
use super::ingress::{Ingress, PathSettings};
use super::problem::{ProblemCode, ProblemDetails};
use super::receive::{Posted, RETRY_AFTER_BUSY_SECS};
use super::spool::{Admission, Admitted, Idempotency, Refusal, Spool};

/// Answers 202 once all messages are durable, or with their outcome if the client wants to `wait`.
///
/// Dropped with its client's connection, it leaves the messages on disk or not, as [`Spool::admit`] says.
///
/// # Errors
/// When no message was accepted, or it is not known.
pub(super) async fn admit(
    ingress: &Ingress,
    settings: &PathSettings,
    posted: Posted,
    named: Option<Named>,
    wait: bool,
) -> Result<Response, ProblemDetails> {
    let due = Instant::now() + settings.timeout;
    let spool = settings.spool.as_ref().ok_or_else(no_spool)?;
    check_fits(settings, posted.messages.len())?;
    let accepted = answer::accepted(posted.is_batch, &posted.messages);
    let _in_progress = named.as_ref().map(|named| ingress.keys().begin(&settings.pipeline, named)).transpose()?;
    let idempotency = named.map(|Named { key, fingerprint }| Idempotency {
        key,
        fingerprint,
        answer: accepted.clone(),
        ttl: settings.idempotency_ttl,
    });
    let (is_batch, ids) = (posted.is_batch, if wait { posted.ids() } else { Vec::new() });
    let to_conclude = if wait { idempotency.clone() } else { None };
    let admitting = spool.admit(Admission {
        pipeline: Arc::clone(&settings.pipeline),
        messages: posted.messages,
        ordered: settings.ordered,
        idempotency,
        wait,
        backlog: settings.backlog,
    });
    let admitted =
        timeout_at(due, admitting).await.map_err(|_| perhaps_accepted(settings.timeout))?.map_err(refused)?;
    // The bodies are the store's now.
    drop(posted.claim);
    let outcomes = match admitted {
        Admitted::Repeated(answer) => return Ok(answer::replayed(answer)),
        Admitted::Taken { .. } if !wait => return Ok(answer::first_time(accepted)),
        Admitted::Taken { outcomes } => outcomes,
    };
    let reply = Reply::new(is_batch, &ids, fates(ingress, settings, outcomes, ids.len(), due).await);
    if let (Some(conclusion), Some(answer)) = (to_conclude, reply.lasting()) {
        conclude(spool.as_ref(), settings, Idempotency { answer, ..conclusion }).await;
    }
    Ok(reply.into_response())
}

/// A batch that the backlog could never take is refused for good.
fn check_fits(settings: &PathSettings, count: usize) -> Result<(), ProblemDetails> {
    let limit = settings.backlog.max_messages;
    if count as u64 <= limit {
        return Ok(());
    }
    let detail = format!(
        "the batch has {count} events, and no more than {limit} messages may wait at this path; send less in one request"
    );
    Err(ProblemDetails::new(ProblemCode::BatchTooLarge, detail).with("limitMessages", limit))
}

/// What becomes of messages that are on disk: known by `due`, or not.
async fn fates(
    ingress: &Ingress,
    settings: &PathSettings,
    outcomes: Vec<oneshot::Receiver<Outcome>>,
    count: usize,
    due: Instant,
) -> Vec<Fate> {
    let mut enough = pin!(async {
        tokio::select! {
            () = sleep_until(due) => {}
            () = ingress.deserted(&settings.path) => {}
        }
    });
    let mut has_waited_enough = false;
    let mut fates = Vec::with_capacity(count);
    for mut outcome in outcomes {
        if !has_waited_enough {
            tokio::select! {
                biased;
                settled = &mut outcome => {
                    fates.push(settled.map_or(Fate::Accepted, Fate::of_spooled));
                    continue;
                }
                () = &mut enough => has_waited_enough = true,
            }
        }
        fates.push(outcome.try_recv().map_or(Fate::Accepted, Fate::of_spooled));
    }
    fates.resize_with(count, || Fate::Accepted);
    fates
}

async fn conclude(spool: &dyn Spool, settings: &PathSettings, conclusion: Idempotency) {
    if let Err(refusal) = spool.conclude(&settings.pipeline, conclusion).await {
        tracing::warn!(pipeline = %settings.pipeline, error = %refusal, "the outcome of a request with an idempotency key could not be recorded; repetitions are answered `accepted`");
    }
}

/// A path that cannot keep what it promises to.
pub(super) fn no_spool() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::StoreUnavailable,
        "this gateway runs without the store that keeps accepted messages and idempotency keys; nothing was accepted",
    )
    .with_retry_after(RETRY_AFTER_BUSY_SECS)
}

fn perhaps_accepted(waited: Duration) -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::OutcomeUnknown,
        format!(
            "the store did not say within {waited:?} whether it has the messages; sending them again with the same \
             idempotency key does not double them, without one it may"
        ),
    )
    .with_retry_after(RETRY_AFTER_BUSY_SECS)
}

/// What the client is told when the spool refuses.
pub(super) fn refused(refusal: Refusal) -> ProblemDetails {
    match refusal {
        Refusal::KeyReused => reused(),
        Refusal::BacklogFull { retry_after } => ProblemDetails::new(
            ProblemCode::BacklogFull,
            "as many accepted messages wait for this pipeline as may; nothing was accepted, so try again later",
        )
        .with_retry_after(whole_secs(retry_after)),
        Refusal::Unavailable { text, retry_after } => ProblemDetails::new(
            ProblemCode::StoreUnavailable,
            format!("{text}; nothing was accepted, so try again later"),
        )
        .with_retry_after(whole_secs(retry_after)),
    }
}

/// Rounded up, so that nobody comes too early; at least a second.
fn whole_secs(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_in_whole_seconds_rounded_up() {
        for (millis, secs) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (90_500, 91)] {
            assert_eq!(whole_secs(Duration::from_millis(millis)), secs, "{millis} ms");
        }
    }
}
