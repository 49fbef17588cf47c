//! From outcomes to answers: the HTTP answer is the outcome.

use std::collections::BTreeSet;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};
use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::delivery::{Outcome, Settlement};
use sluicegate_engine::failure::FailureClass;

use super::problem::{PointedError, ProblemCode, ProblemDetails};

/// What a client is asked to wait before it sends a message again that was not delivered, in seconds.
const RETRY_AFTER_FAILURE_SECS: u64 = 5;

/// What became of one message that was posted.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is settled.
    Settled(Outcome),
    /// It is in flight, but the client has waited as long as it may.
    Late,
    /// Its pipeline ended over it without saying what became of it.
    Lost,
    /// It never got into the pipeline.
    NotAccepted(ProblemDetails),
}

/// The answer to a request with one message.
pub(super) fn single(id: &str, fate: Fate) -> Response {
    match result(id, fate) {
        Ok(delivered) => ok(&delivered),
        Err(problem) => problem.with("id", id).into_response(),
    }
}

/// The answer to a batch: 200 when all is well, else a problem with the worst status of its messages.
pub(super) fn batch(ids: &[String], fates: Vec<Fate>) -> Response {
    let (mut failed, mut worst, mut retry_after) = (0_usize, StatusCode::OK, false);
    let mut results = Vec::with_capacity(fates.len());
    for (id, fate) in ids.iter().zip(fates) {
        results.push(match result(id, fate) {
            Ok(delivered) => delivered,
            Err(problem) => {
                failed += 1;
                worst = worst.max(problem.status());
                retry_after |= problem.status() == StatusCode::SERVICE_UNAVAILABLE;
                problem.with("id", id.as_str()).to_json()
            }
        });
    }
    if failed == 0 {
        return ok(&json!({ "results": results }));
    }
    let problem = ProblemDetails::new(
        ProblemCode::BatchIncomplete,
        format!("{failed} of {} messages were not delivered; each one's result is listed in order", ids.len()),
    )
    .with_status(worst)
    .with("results", results);
    if retry_after { problem.with_retry_after(RETRY_AFTER_FAILURE_SECS) } else { problem }.into_response()
}

fn ok(document: &Value) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document.to_string()).into_response()
}

/// `{id, status, targets, reason?}` of a message that is through.
fn result(id: &str, fate: Fate) -> Result<Value, ProblemDetails> {
    let outcome = match fate {
        Fate::Settled(outcome) => outcome,
        Fate::NotAccepted(problem) => return Err(problem),
        Fate::Late => {
            return Err(unknown(
                "the message is still in progress; it may yet be delivered, and sending it again may deliver it twice",
            ));
        }
        Fate::Lost => {
            return Err(unknown(
                "the pipeline stopped before it said what became of the message; sending it again may deliver it twice",
            ));
        }
    };
    match outcome.settlement {
        Settlement::Delivered | Settlement::Dropped | Settlement::Parked => Ok(through(id, &outcome)),
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

fn through(id: &str, outcome: &Outcome) -> Value {
    // One name a target, however many messages a split made for it.
    let targets: BTreeSet<&str> = outcome.delivered_to.iter().map(AsRef::as_ref).collect();
    let status = if outcome.settlement == Settlement::Parked {
        "parked"
    } else if targets.is_empty() && !outcome.dropped.is_empty() {
        "filtered"
    } else {
        "delivered"
    };
    let mut document = Map::new();
    document.insert("id".to_owned(), id.into());
    document.insert("status".to_owned(), status.into());
    document.insert("targets".to_owned(), targets.into_iter().collect());
    if !outcome.dropped.is_empty() {
        let reasons: Vec<String> = outcome.dropped.iter().map(ToString::to_string).collect();
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
mod tests {
    use std::sync::Arc;

    use sluicegate_engine::failure::{Reason, SchemaError};
    use sluicegate_engine::message::Message;

    use super::*;

    fn letter(id: &str, class: FailureClass) -> Arc<DeadLetter> {
        let message = Arc::new(Message::new("s", "k", "b"));
        Arc::new(DeadLetter {
            id: id.to_owned(),
            failed_at_ms: 0,
            pipeline: Arc::from("orders"),
            config_version: Arc::from("0"),
            original: Arc::clone(&message),
            at_failure: message,
            step: Some(Arc::from("validate order")),
            target: None,
            class,
            error: "it failed".to_owned(),
            schema_errors: match class {
                FailureClass::Schema => {
                    vec![
                        SchemaError { pointer: "/a".into(), text: "is no number".into() },
                        SchemaError { pointer: String::new(), text: "`b` is missing".into() },
                    ]
                }
                _ => Vec::new(),
            },
            plugin: None,
            plugin_digest: None,
            backtrace: Vec::new(),
            attempts: Vec::new(),
            trace_id: None,
            redrive_count: 0,
        })
    }

    fn dead(letters: Vec<Arc<DeadLetter>>) -> Fate {
        Fate::Settled(Outcome { settlement: Settlement::DeadLettered, dead_letters: letters, ..Outcome::default() })
    }

    fn delivered(targets: &[&str]) -> Fate {
        Fate::Settled(Outcome {
            delivered_to: targets.iter().map(|target| Arc::from(*target)).collect(),
            ..Outcome::default()
        })
    }

    #[test]
    fn a_delivered_message_lists_each_target_once() {
        assert_eq!(
            result("1", delivered(&["us", "eu", "us"])).unwrap(),
            json!({ "id": "1", "status": "delivered", "targets": ["eu", "us"] })
        );
    }

    #[test]
    fn a_dropped_message_is_filtered_with_its_reason() {
        let outcome = Outcome {
            settlement: Settlement::Dropped,
            dropped: vec![Reason::new("test", "a test order")],
            ..Outcome::default()
        };
        assert_eq!(
            result("1", Fate::Settled(outcome)).unwrap(),
            json!({ "id": "1", "status": "filtered", "targets": [], "reason": "test: a test order" })
        );
    }

    #[test]
    fn the_class_decides_between_422_and_503() {
        for class in FailureClass::ALL {
            let problem = result("1", dead(vec![letter("dl-1", class)])).unwrap_err();
            assert_eq!(problem.status().as_u16(), if class.blames_message() { 422 } else { 503 }, "{class}");
            let document = problem.to_json();
            assert_eq!(document["class"], class.name());
            assert_eq!(document["deadLetter"], "dl-1");
            assert_eq!(document["error"], "it failed");
            assert_eq!(document["retryAfter"].is_u64(), !class.blames_message());
            assert!(problem.detail().contains("kept as dead letter dl-1"), "{}", problem.detail());
        }
    }

    #[test]
    fn schema_violations_are_pointed_at() {
        let document = result("1", dead(vec![letter("dl-1", FailureClass::Schema)])).unwrap_err().to_json();
        assert_eq!(document["code"], "MQ_SCHEMA_VIOLATION");
        assert_eq!(
            document["errors"],
            json!([{ "pointer": "/a", "detail": "is no number" }, { "pointer": "", "detail": "`b` is missing" }])
        );
    }

    #[test]
    fn of_several_dead_letters_the_one_that_does_not_blame_the_message_decides() {
        let letters = vec![letter("a", FailureClass::Rejected), letter("b", FailureClass::TargetFailed)];
        let problem = result("1", dead(letters)).unwrap_err();
        assert_eq!(problem.code(), ProblemCode::PublishFailed);
        assert_eq!(problem.to_json()["deadLetters"], json!(["a", "b"]));
    }

    #[test]
    fn undecided_late_and_lost_messages_are_503_with_a_delay() {
        for (fate, code) in [
            (Fate::Settled(Outcome::requeued("stopping")), "MQ_NOT_DELIVERED"),
            (Fate::Late, "MQ_OUTCOME_UNKNOWN"),
            (Fate::Lost, "MQ_OUTCOME_UNKNOWN"),
        ] {
            let document = result("1", fate).unwrap_err().to_json();
            assert_eq!((&document["code"], &document["status"]), (&json!(code), &json!(503)));
            assert_eq!(document["retryAfter"], RETRY_AFTER_FAILURE_SECS);
        }
    }

    #[test]
    fn a_batch_has_the_worst_status_and_every_result() {
        let ids = ["1".to_owned(), "2".to_owned(), "3".to_owned()];
        let all_well = batch(&ids[..1], vec![delivered(&["eu"])]);
        assert_eq!(all_well.status(), 200);
        let rejected = || dead(vec![letter("dl", FailureClass::Rejected)]);
        let mixed = batch(&ids[..2], vec![delivered(&["eu"]), rejected()]);
        assert_eq!(mixed.status(), 422);
        assert!(!mixed.headers().contains_key("retry-after"));
        let worst = batch(&ids, vec![rejected(), Fate::Late, delivered(&[])]);
        assert_eq!(worst.status(), 503);
        assert!(worst.headers().contains_key("retry-after"));
    }
}
