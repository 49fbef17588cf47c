//! From outcomes to answers: the HTTP answer is the outcome, or that the message is on disk.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::delivery::{Outcome, Settlement};
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Message;

use super::problem::{PROBLEM_JSON, PointedError, ProblemCode, ProblemDetails};
use super::spool::StoredAnswer;
use crate::json_text;

/// What a client is asked to wait before it sends a message again that was not delivered, in seconds.
const RETRY_AFTER_FAILURE_SECS: u64 = 5;

/// Says that an answer was given before, to the same request.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What became of one message that was posted.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is settled.
    Settled(Outcome),
    /// It is on disk. What became of it is not known yet, or not to be learned here.
    Accepted,
    /// It is in flight, but the client has waited as long as it may.
    Late,
    /// The same, and its request has an idempotency key.
    LateWithKey,
    /// Its pipeline ended over it without saying what became of it.
    Lost,
    /// It never got into the pipeline.
    NotAccepted(ProblemDetails),
}

impl Fate {
    /// The fate of a message from the spool, which keeps what was not decided.
    pub(super) fn of_spooled(mut outcome: Outcome) -> Self {
        match outcome.settlement {
            Settlement::Postponed { .. } | Settlement::Requeued => outcome.settlement = Settlement::Parked,
            Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {}
        }
        Self::Settled(outcome)
    }
}

/// An answer that says what became of a request's messages.
#[derive(Debug)]
pub(super) enum Reply {
    /// All is well.
    Through(StoredAnswer),
    /// Something is not.
    Problem(ProblemDetails),
}

impl Reply {
    /// To a request with the messages `ids`, of which these are the fates.
    pub(super) fn new(is_batch: bool, ids: &[String], mut fates: Vec<Fate>) -> Self {
        if is_batch {
            return batch(ids, fates);
        }
        let id = ids.first().map_or("", String::as_str);
        match result(id, fates.pop().unwrap_or(Fate::Lost)) {
            Ok((status, through)) => Self::Through(StoredAnswer { status, body: through.to_string().into() }),
            Err(problem) => Self::Problem(problem.with("id", id)),
        }
    }

    /// What repetitions of the request are to be answered: nothing when the message is worth sending again as it is.
    pub(super) fn lasting(&self) -> Option<StoredAnswer> {
        match self {
            Self::Through(answer) => Some(answer.clone()),
            Self::Problem(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                Some(StoredAnswer { status: problem.status(), body: problem.to_json().to_string().into() })
            }
            Self::Problem(_) => None,
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Through(answer) => first_time(answer),
            Self::Problem(problem) => problem.into_response(),
        }
    }
}

/// 202: all messages are on disk.
pub(super) fn accepted(is_batch: bool, messages: &[Message]) -> StoredAnswer {
    let mut body = String::with_capacity(32 + messages.iter().map(|message| message.id.len() + 32).sum::<usize>());
    if is_batch {
        body.push_str("{\"results\":[");
    }
    for (index, message) in messages.iter().enumerate() {
        body.push_str(if index == 0 { "{\"id\":" } else { ",{\"id\":" });
        push_json_string(&mut body, &message.id);
        body.push_str(",\"status\":\"accepted\"}");
    }
    if is_batch {
        body.push_str("]}");
    }
    StoredAnswer { status: StatusCode::ACCEPTED, body: body.into() }
}

fn push_json_string(json: &mut String, text: &str) {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&json_text::string(text));
    }
}

/// An answer that is given for the first time.
pub(super) fn first_time(answer: StoredAnswer) -> Response {
    let media_type = if answer.status.is_success() { "application/json" } else { PROBLEM_JSON };
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// An answer that was given before.
pub(super) fn replayed(answer: StoredAnswer) -> Response {
    let mut response = first_time(answer);
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    response
}

/// The answer to a batch: 200 when all is well, 202 when some of it is not through yet, else a problem with the worst
/// status of its messages.
fn batch(ids: &[String], fates: Vec<Fate>) -> Reply {
    let (mut failed, mut worst, mut retry_after) = (0_usize, StatusCode::OK, false);
    let mut results = Vec::with_capacity(fates.len());
    for (id, fate) in ids.iter().zip(fates) {
        results.push(match result(id, fate) {
            Ok((status, through)) => {
                worst = worst.max(status);
                through
            }
            Err(problem) => {
                failed += 1;
                worst = worst.max(problem.status());
                retry_after |= problem.status() == StatusCode::SERVICE_UNAVAILABLE;
                problem.with("id", id.as_str()).to_json()
            }
        });
    }
    if failed == 0 {
        let body = Bytes::from(json!({ "results": results }).to_string());
        return Reply::Through(StoredAnswer { status: worst, body });
    }
    let problem = ProblemDetails::new(
        ProblemCode::BatchIncomplete,
        format!("{failed} of {} messages were not delivered; each one's result is listed in order", ids.len()),
    )
    .with_status(worst)
    .with("results", results);
    Reply::Problem(if retry_after { problem.with_retry_after(RETRY_AFTER_FAILURE_SECS) } else { problem })
}

/// `{id, status, targets, reason?}` of a message that is through or kept, and its HTTP status.
fn result(id: &str, fate: Fate) -> Result<(StatusCode, Value), ProblemDetails> {
    let outcome = match fate {
        Fate::Settled(outcome) => outcome,
        Fate::Accepted => {
            let reason = "the message is on disk and goes on; how it ended was not known in time";
            return Ok((StatusCode::ACCEPTED, json!({ "id": id, "status": "accepted", "reason": reason })));
        }
        Fate::NotAccepted(problem) => return Err(problem),
        Fate::Late => {
            return Err(unknown(
                "the message is still in progress; it may yet be delivered, and sending it again may deliver it twice",
            ));
        }
        Fate::LateWithKey => {
            return Err(unknown(
                "the message is still in progress; repeat the request with the same idempotency key to learn its outcome",
            ));
        }
        Fate::Lost => {
            return Err(unknown(
                "the pipeline stopped before it said what became of the message; sending it again may deliver it twice",
            ));
        }
    };
    match outcome.settlement {
        Settlement::Delivered | Settlement::Dropped => {
            let delivered = !outcome.delivered_to.is_empty() || outcome.dropped.is_empty();
            let status = if delivered { "delivered" } else { "filtered" };
            Ok((StatusCode::OK, through(id, status, &outcome)))
        }
        Settlement::Parked => Ok((StatusCode::ACCEPTED, through(id, "parked", &outcome))),
        Settlement::DeadLettered => Err(dead_lettered(&outcome)),
        Settlement::Postponed { .. } | Settlement::Requeued => {
            let why = outcome.undecided.as_deref().unwrap_or("nothing was decided about the message");
            let problem = ProblemDetails::new(
                ProblemCode::NotDelivered,
                format!("{why}; the gateway does not keep it, so send it again"),
            );
            Err(problem.with_retry_after(RETRY_AFTER_FAILURE_SECS))
        }
    }
}

fn unknown(detail: &str) -> ProblemDetails {
    ProblemDetails::new(ProblemCode::OutcomeUnknown, detail).with_retry_after(RETRY_AFTER_FAILURE_SECS)
}

fn through(id: &str, status: &str, outcome: &Outcome) -> Value {
    // One name a target, however many messages a split made for it.
    let targets: BTreeSet<&str> = outcome.delivered_to.iter().map(AsRef::as_ref).collect();
    let mut document = Map::new();
    document.insert("id".to_owned(), id.into());
    document.insert("status".to_owned(), status.into());
    document.insert("targets".to_owned(), targets.into_iter().collect());
    let dropped = outcome.dropped.iter().map(ToString::to_string);
    let reasons: Vec<String> = outcome.undecided.iter().cloned().chain(dropped).collect();
    if !reasons.is_empty() {
        document.insert("reason".to_owned(), reasons.join("; ").into());
    }
    Value::Object(document)
}

/// 422 when the message is at fault, so that its sender changes it; 503 when it is not, even though the dead letter
/// keeps it, so that its sender knows that no target has it yet.
fn dead_lettered(outcome: &Outcome) -> ProblemDetails {
    let letters = &outcome.dead_letters;
    let unblamed = letters.iter().find(|letter| !letter.class.blames_message());
    let Some(letter) = unblamed.or_else(|| letters.first()) else {
        return ProblemDetails::new(ProblemCode::PublishFailed, "the message was kept as a dead letter")
            .with_retry_after(RETRY_AFTER_FAILURE_SECS);
    };
    let problem = if letter.class.blames_message() {
        blamed(letter)
    } else {
        ProblemDetails::new(
            ProblemCode::PublishFailed,
            format!(
                "{}; the message was kept as dead letter {}, from which it can be redriven: sending it again as well \
                 delivers it twice",
                letter.error, letter.id
            ),
        )
        .with_retry_after(RETRY_AFTER_FAILURE_SECS)
    };
    let mut problem = problem
        .with("class", letter.class.name())
        .with("error", letter.error.as_str())
        .with("deadLetter", letter.id.as_str());
    if letters.len() > 1 {
        problem = problem.with("deadLetters", letters.iter().map(|letter| letter.id.clone()).collect::<Vec<_>>());
    }
    if !outcome.delivered_to.is_empty() {
        let targets: BTreeSet<&str> = outcome.delivered_to.iter().map(AsRef::as_ref).collect();
        problem = problem.with("targets", targets.into_iter().collect::<Value>());
    }
    match &letter.step {
        Some(step) => problem.with("step", &**step),
        None => problem,
    }
}

fn blamed(letter: &DeadLetter) -> ProblemDetails {
    let code = match letter.class {
        FailureClass::Schema => ProblemCode::SchemaViolation,
        FailureClass::Rejected
        | FailureClass::Retried
        | FailureClass::Trap
        | FailureClass::Deadline
        | FailureClass::Memory
        | FailureClass::OutputLimit
        | FailureClass::Contract
        | FailureClass::Unavailable
        | FailureClass::Unroutable
        | FailureClass::Timeout
        | FailureClass::Expired
        | FailureClass::TargetRefused
        | FailureClass::TargetFailed => ProblemCode::MessageRejected,
    };
    let errors = letter.schema_errors.iter().map(|error| PointedError::in_body(&error.pointer, &error.text));
    ProblemDetails::new(code, format!("{}; the message was kept as dead letter {}", letter.error, letter.id))
        .with_errors(errors)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
