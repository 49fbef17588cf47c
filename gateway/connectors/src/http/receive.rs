//! One request, from its headers to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use metrics::SharedString;
use sluicegate_engine::message::Message;
use tokio::time::timeout;

use super::admission::{self, no_spool};
use super::answer::Reply;
use super::binding::{self, Shape};
use super::body::{self, Claim, Encoding};
use super::config::Respond;
use super::handover;
use super::idempotency::{self, Named};
use super::ingress::{Ingress, Listening, Live, PathSettings};
use super::problem::{ProblemCode, ProblemDetails};

/// Bodies larger than this are parsed on a thread that may block.
const PARSE_INLINE_BYTES: usize = 256 << 10;

/// After a refusal, this much of an unread body is read and thrown away, so that the client gets to read its answer
/// instead of a reset connection.
const LINGER_BYTES: usize = 4 << 20;

/// How long that may take.
const LINGER: Duration = Duration::from_secs(1);

/// What a client is asked to wait before it tries a busy or absent pipeline again, in seconds.
pub(super) const RETRY_AFTER_BUSY_SECS: u64 = 1;

/// What was posted in one request.
pub(super) struct Posted {
    pub(super) is_batch: bool,
    pub(super) messages: Vec<Message>,
    /// The memory of its body.
    pub(super) claim: Claim,
}

impl Posted {
    pub(super) fn ids(&self) -> Vec<String> {
        self.messages.iter().map(|message| message.id.clone()).collect()
    }
}

/// Answers one request. If the client goes away, whatever was handed over to the pipeline goes on without it.
pub(super) async fn answer_request(State(ingress): State<Ingress>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let listening = ingress.listening(parts.uri.path());
    // Only configured paths are labels: what clients send must not grow the metrics.
    let path: SharedString = match &listening {
        Listening::No => "(unknown)".into(),
        Listening::Yes(live) => Arc::clone(&live.settings.path).into(),
        Listening::Soon(_) => parts.uri.path().to_owned().into(),
    };
    let response = match accept(&ingress, listening, &parts, &mut body).await {
        Ok(response) => response,
        Err(problem) => {
            linger(&parts.headers, &mut body).await;
            problem.into_response()
        }
    };
    let status: SharedString = match response.status() {
        StatusCode::OK => "200".into(),
        StatusCode::ACCEPTED => "202".into(),
        other => other.as_str().to_owned().into(),
    };
    metrics::counter!("sluicegate_http_requests_total", "path" => path, "status" => status).increment(1);
    response
}

async fn accept(
    ingress: &Ingress,
    listening: Listening,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, ProblemDetails> {
    check_head(ingress, &listening, parts)?;
    let wait = wants_to_wait(parts.uri.query())?;
    let key = idempotency::key(&parts.headers)?;
    let live = successor(ingress, listening).await?;
    let settings = Arc::clone(&live.settings);
    if settings.spool.is_none() && (settings.respond == Respond::Accepted || key.is_some()) {
        return Err(no_spool());
    }
    let shape = binding::shape(settings.format, &parts.headers)?;
    let (body, claim) = read_body(ingress, &settings, shape, &parts.headers, body).await?;
    let (messages, named) = parse(ingress, &settings, shape, &parts.headers, body, key).await?;
    let posted = Posted { is_batch: shape == Shape::Batch, messages, claim };
    match (settings.respond, named) {
        // There is nothing to deliver, to keep or to repeat.
        _ if posted.messages.is_empty() => Ok(Reply::new(true, &[], Vec::new()).into_response()),
        (Respond::Accepted, named) => admission::admit(ingress, &settings, posted, named, wait).await,
        (Respond::Delivered, None) => handover::deliver(ingress, live, posted).await,
        (Respond::Delivered, Some(named)) => handover::deliver_once(ingress, live, posted, named).await,
    }
}

/// Whether the address says `wait=delivered`. Other parameters mean nothing here.
fn wants_to_wait(query: Option<&str>) -> Result<bool, ProblemDetails> {
    let parameters = query.unwrap_or_default().split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
    let mut wait = false;
    for (_, value) in parameters.filter(|(name, _)| *name == "wait") {
        if value != "delivered" {
            let shown: String = value.chars().take(64).collect();
            let detail = format!("`wait` is `{shown}`; write `wait=delivered` to get the outcome, or leave it out");
            return Err(ProblemDetails::new(ProblemCode::InvalidQuery, detail));
        }
        wait = true;
    }
    Ok(wait)
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
pub(super) async fn successor(ingress: &Ingress, listening: Listening) -> Result<Arc<Live>, ProblemDetails> {
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
    key: Option<Arc<str>>,
) -> Result<(Vec<Message>, Option<Named>), ProblemDetails> {
    let (max_messages, is_small) = (ingress.limits().max_batch_messages, body.len() <= PARSE_INLINE_BYTES);
    let parse = move |settings: &PathSettings, headers: &HeaderMap| {
        let fingerprint = |key| Named { key, fingerprint: idempotency::fingerprint(&settings.path, headers, &body) };
        let named = key.map(fingerprint);
        Ok((binding::messages(shape, settings, headers, body, max_messages)?, named))
    };
    if is_small {
        return parse(settings, headers);
    }
    let (settings, headers) = (Arc::clone(settings), headers.clone());
    tokio::task::spawn_blocking(move || parse(&settings, &headers)).await.map_err(|_| unavailable())?
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
