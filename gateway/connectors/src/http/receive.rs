//! One request, from its headers to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use sluicegate_engine::message::Message;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{self, Fate};
use super::binding::{self, Shape};
use super::body::{self, Claim, Encoding};
use super::ingress::{Answer, Ingress, Listening, Live, PathSettings, Queued};
use super::problem::{ProblemCode, ProblemDetails};

/// Bodies larger than this are parsed on a thread that may block.
const PARSE_INLINE_BYTES: usize = 256 << 10;

/// After a refusal, this much of an unread body is read and thrown away, so that the client gets to read its answer
/// instead of a reset connection.
const LINGER_BYTES: usize = 4 << 20;

/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);

/// What a client is asked to wait before it tries a busy or absent pipeline again, in seconds.
const RETRY_AFTER_BUSY_SECS: u64 = 1;

/// Answers one request. If the client goes away, whatever was handed over to the pipeline goes on without it.
pub(super) async fn answer_request(State(ingress): State<Ingress>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let listening = ingress.listening(parts.uri.path());
    // Only configured paths are labels: what clients send must not grow the metrics.
    let label = if matches!(listening, Listening::No) { "(unknown)".to_owned() } else { parts.uri.path().to_owned() };
    let response = match accept(&ingress, listening, &parts, &mut body).await {
        Ok(response) => response,
        Err(problem) => {
            linger(&parts.headers, &mut body).await;
            problem.into_response()
        }
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!("sluicegate_http_requests_total", "path" => label, "status" => status).increment(1);
    response
}

async fn accept(
    ingress: &Ingress,
    listening: Listening,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, ProblemDetails> {
    check_head(ingress, &listening, parts)?;
    let live = successor(ingress, listening).await?;
    let settings = Arc::clone(&live.settings);
    let shape = binding::shape(settings.format, &parts.headers)?;
    let (body, claim) = read_body(ingress, &settings, shape, &parts.headers, body).await?;
    let messages = parse(ingress, &settings, shape, &parts.headers, body).await?;
    let ids: Vec<String> = messages.iter().map(|message| message.id.clone()).collect();
    let mut fates = deliver(ingress, live, messages, claim).await?;
    Ok(match shape {
        Shape::Batch => answer::batch(&ids, fates),
        Shape::Raw | Shape::Binary | Shape::Structured | Shape::Envelope => {
            let fate = fates.pop().unwrap_or(Fate::Lost);
            answer::single(ids.first().map_or("", String::as_str), fate)
        }
    })
}

/// What can be refused by the request's head alone.
fn check_head(ingress: &Ingress, listening: &Listening, parts: &Parts) -> Result<(), ProblemDetails> {
    if matches!(listening, Listening::No) {
        return Err(ProblemDetails::new(
            ProblemCode::PathNotFound,
            "no pipeline listens at this path; compare it with `source: http: path` of the configuration",
        ));
    }
    if parts.method != Method::POST {
        return Err(ProblemDetails::new(
            ProblemCode::MethodNotAllowed,
            format!("messages are sent to this path by POST, not by {}", parts.method),
        ));
    }
    let limits = ingress.limits();
    let header_bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if parts.headers.len() > limits.max_headers || header_bytes > limits.max_header_bytes {
        return Err(ProblemDetails::new(
            ProblemCode::HeadersTooLarge,
            format!(
                "the request has {} headers of {header_bytes} bytes; at most {} of {} bytes are taken",
                parts.headers.len(),
                limits.max_headers,
                limits.max_header_bytes
            ),
        ));
    }
    Ok(())
}

/// The pipeline that listens, waiting a little for one that is being replaced.
async fn successor(ingress: &Ingress, listening: Listening) -> Result<Arc<Live>, ProblemDetails> {
    let mut coming = match listening {
        Listening::Yes(live) => return Ok(live),
        Listening::No => return Err(unavailable()),
        Listening::Soon(coming) => coming,
    };
    let arrived = timeout(ingress.limits().successor_wait, coming.wait_for(Option::is_some)).await;
    match arrived {
        Ok(Ok(live)) => live.clone().ok_or_else(unavailable),
        Ok(Err(_)) | Err(_) => Err(unavailable()),
    }
}

fn unavailable() -> ProblemDetails {
    ProblemDetails::new(
        ProblemCode::PipelineUnavailable,
        "the pipeline of this path is being reloaded or has stopped; nothing was accepted, so try again in a moment",
    )
    .with_retry_after(RETRY_AFTER_BUSY_SECS)
}

async fn read_body(
    ingress: &Ingress,
    settings: &PathSettings,
    shape: Shape,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Bytes, Claim), ProblemDetails> {
    let encoding = body::encoding(headers)?;
    let limit_bytes = match shape {
        Shape::Batch => ingress.limits().max_batch_bytes.max(settings.max_body_bytes),
        Shape::Raw | Shape::Binary | Shape::Structured | Shape::Envelope => settings.max_body_bytes,
    };
    body::check_declared_length(headers, limit_bytes)?;
    let mut claim = ingress.claim();
    let received = body::read(body, limit_bytes, &mut claim).await?;
    let plain = match encoding {
        Encoding::Identity => received,
        Encoding::Gzip => body::gunzip(&received, limit_bytes, &mut claim).await?,
    };
    Ok((plain, claim))
}

async fn parse(
    ingress: &Ingress,
    settings: &Arc<PathSettings>,
    shape: Shape,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Vec<Message>, ProblemDetails> {
    let max_messages = ingress.limits().max_batch_messages;
    if body.len() <= PARSE_INLINE_BYTES {
        return binding::messages(shape, settings, headers, body, max_messages);
    }
    let (settings, headers) = (Arc::clone(settings), headers.clone());
    tokio::task::spawn_blocking(move || binding::messages(shape, &settings, &headers, body, max_messages))
        .await
        .map_err(|_| unavailable())?
}

/// Hands messages over and waits for what becomes of them, in their order.
///
/// # Errors
/// When none of them was accepted.
async fn deliver(
    ingress: &Ingress,
    mut live: Arc<Live>,
    messages: Vec<Message>,
    claim: Claim,
) -> Result<Vec<Fate>, ProblemDetails> {
    let settings = Arc::clone(&live.settings);
    let due = Instant::now() + settings.timeout;
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

/// Waits until `due` for what becomes of `waiting`; gives back the messages that the pipeline did not take.
async fn outcomes(waiting: Vec<Waiting>, due: Instant, fates: &mut [Option<Fate>]) -> Vec<(usize, Message)> {
    let mut returned = Vec::new();
    for (index, outcome) in waiting {
        fates[index] = Some(match timeout_at(due, outcome).await {
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

/// Reads on for a moment after a refusal. A client that waits for `100 Continue` has not begun to send.
async fn linger(headers: &HeaderMap, body: &mut Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let discard = async {
        let mut discarded = 0;
        while discarded < LINGER_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            discarded += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    if timeout(LINGER, discard).await.is_err() {
        tracing::debug!("a client was still sending after its request was refused");
    }
}
