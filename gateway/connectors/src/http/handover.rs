//! Messages whose clients wait for the outcome: into their pipeline's queue, and on to its successor if need be.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use sluicegate_engine::message::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::admission::{no_spool, refused};
use super::answer::{Fate, Reply, replayed};
use super::body::Claim;
use super::idempotency::Named;
use super::ingress::{Answer, Ingress, Live, Queued};
use super::problem::{ProblemCode, ProblemDetails};
use super::receive::{Posted, RETRY_AFTER_BUSY_SECS, successor};
use super::spool::{Idempotency, Recalled};

/// Answers with the outcome.
///
/// # Errors
/// When no message was accepted.
pub(super) async fn deliver(ingress: &Ingress, live: Arc<Live>, posted: Posted) -> Result<Response, ProblemDetails> {
    let due = Instant::now() + live.settings.timeout;
    let (is_batch, ids) = (posted.is_batch, posted.ids());
    let fates = carry(ingress, live, posted.messages, posted.claim, Some(due)).await?;
    Ok(Reply::new(is_batch, &ids, fates).into_response())
}

/// Answers with the outcome, and repetitions with the same answer.
///
/// Once a message is on its way the request is seen to its end whether or not its client still waits: until then the key
/// is in progress, so that who gave up and asks again does not send the message twice.
///
/// # Errors
/// When no message was accepted.
pub(super) async fn deliver_once(
    ingress: &Ingress,
    live: Arc<Live>,
    posted: Posted,
    named: Named,
) -> Result<Response, ProblemDetails> {
    let settings = Arc::clone(&live.settings);
    let due = Instant::now() + settings.timeout;
    let spool = settings.spool.clone().ok_or_else(no_spool)?;
    let in_progress = ingress.keys().begin(&settings.pipeline, &named)?;
    let recalling = spool.recall(&settings.pipeline, &named.key, &named.fingerprint);
    match timeout_at(due, recalling).await.map_err(|_| store_is_late())?.map_err(refused)? {
        Recalled::Answered(answer) => return Ok(replayed(answer)),
        Recalled::Unknown => {}
    }
    let (is_batch, ids) = (posted.is_batch, posted.ids());
    let all_are = |fate: fn() -> Fate| Reply::new(is_batch, &ids, ids.iter().map(|_| fate()).collect()).into_response();
    let (seen_to, carried) = (ingress.clone(), ids.clone());
    let request = ingress.spawn(async move {
        let fates = carry(&seen_to, live, posted.messages, posted.claim, None).await?;
        let reply = Reply::new(is_batch, &carried, fates);
        if let Some(answer) = reply.lasting() {
            let Named { key, fingerprint } = named;
            let conclusion = Idempotency { key, fingerprint, answer, ttl: settings.idempotency_ttl };
            if let Err(refusal) = spool.conclude(&settings.pipeline, conclusion).await {
                tracing::warn!(pipeline = %settings.pipeline, error = %refusal, "the answer of a request with an idempotency key could not be recorded; a repetition would be delivered again");
            }
        }
        drop(in_progress);
        Ok(reply)
    });
    match timeout_at(due, request).await {
        Ok(Ok(reply)) => reply.map(IntoResponse::into_response),
        // It panicked, which the runtime has reported.
        Ok(Err(_)) => Ok(all_are(|| Fate::Lost)),
        Err(_) => Ok(all_are(|| Fate::LateWithKey)),
    }
}

fn store_is_late() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::StoreUnavailable,
        "looking the idempotency key up took too long; nothing was accepted, so try again in a moment",
    )
    .with_retry_after(RETRY_AFTER_BUSY_SECS)
}

/// Hands messages over and waits, until `due` if it is given, for what becomes of them, in their order.
///
/// # Errors
/// When none of them was accepted.
async fn carry(
    ingress: &Ingress,
    mut live: Arc<Live>,
    messages: Vec<Message>,
    claim: Claim,
    due: Option<Instant>,
) -> Result<Vec<Fate>, ProblemDetails> {
    let settings = Arc::clone(&live.settings);
    let claim = Arc::new(claim);
    let mut fates: Vec<Option<Fate>> = messages.iter().map(|_| None).collect();
    let mut unsent: Vec<(usize, Message)> = messages.into_iter().enumerate().collect();
    let mut accepted = false;
    loop {
        match hand_over(&live, unsent, &claim) {
            Ok(waiting) => {
                accepted = true;
                unsent = outcomes(waiting, due, &mut fates).await;
            }
            Err(NotHandedOver::Stopped(returned)) => unsent = returned,
            Err(NotHandedOver::Full(problem)) if !accepted => return Err(problem),
            Err(NotHandedOver::Full(problem)) => {
                for fate in &mut fates {
                    fate.get_or_insert_with(|| Fate::NotAccepted(problem.clone()));
                }
                break;
            }
        }
        if unsent.is_empty() {
            break;
        }
        // The pipeline stopped before it took these: they go to its successor, as if they had come a moment later.
        live = match successor(ingress, ingress.listening(&settings.path)).await {
            Ok(live) => live,
            Err(problem) if !accepted => return Err(problem),
            Err(problem) => {
                for (index, _) in unsent.drain(..) {
                    fates[index] = Some(Fate::NotAccepted(problem.clone()));
                }
                break;
            }
        };
    }
    Ok(fates.into_iter().map(|fate| fate.unwrap_or(Fate::Lost)).collect())
}

/// A message that was handed over: its place in the request, and where its outcome comes from.
type Waiting = (usize, oneshot::Receiver<Answer>);

enum NotHandedOver {
    Full(ProblemDetails),
    Stopped(Vec<(usize, Message)>),
}

/// Puts all messages into the pipeline's queue, or none.
fn hand_over(live: &Live, unsent: Vec<(usize, Message)>, claim: &Arc<Claim>) -> Result<Vec<Waiting>, NotHandedOver> {
    let places = match live.queue.try_reserve_many(unsent.len()) {
        Ok(places) => places,
        Err(TrySendError::Closed(())) => return Err(NotHandedOver::Stopped(unsent)),
        Err(TrySendError::Full(())) => {
            let problem = ProblemDetails::new(
                ProblemCode::TooManyRequests,
                "as many messages wait for this pipeline as may; nothing was accepted, so try again in a moment",
            );
            return Err(NotHandedOver::Full(problem.with_retry_after(RETRY_AFTER_BUSY_SECS)));
        }
    };
    Ok(unsent
        .into_iter()
        .zip(places)
        .map(|((index, message), place)| {
            let (answer, outcome) = oneshot::channel();
            place.send(Queued { message, answer, claim: Arc::clone(claim) });
            (index, outcome)
        })
        .collect())
}

/// Waits, until `due` if it is given, for what becomes of `waiting`; gives back the messages that the pipeline did not take.
async fn outcomes(waiting: Vec<Waiting>, due: Option<Instant>, fates: &mut [Option<Fate>]) -> Vec<(usize, Message)> {
    let mut returned = Vec::new();
    for (index, outcome) in waiting {
        let answer = match due {
            Some(due) => timeout_at(due, outcome).await,
            None => Ok(outcome.await),
        };
        fates[index] = Some(match answer {
            Ok(Ok(Answer::Settled(outcome))) => Fate::Settled(outcome),
            Ok(Ok(Answer::Returned(message))) => {
                returned.push((index, message));
                continue;
            }
            Ok(Err(_)) => Fate::Lost,
            Err(_) => Fate::Late,
        });
    }
    returned
}
