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
        (StatusCode::OK, json!({ "id": "1", "status": "delivered", "targets": ["eu", "us"] }))
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
        (StatusCode::OK, json!({ "id": "1", "status": "filtered", "targets": [], "reason": "test: a test order" }))
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

fn response(reply: Reply) -> Response {
    reply.into_response()
}

#[test]
fn a_batch_has_the_worst_status_and_every_result() {
    let ids = ["1".to_owned(), "2".to_owned(), "3".to_owned()];
    let all_well = response(Reply::new(true, &ids[..1], vec![delivered(&["eu"])]));
    assert_eq!(all_well.status(), 200);
    let some_kept = response(Reply::new(true, &ids, vec![delivered(&["eu"]), Fate::Accepted, delivered(&[])]));
    assert_eq!(some_kept.status(), 202);
    let rejected = || dead(vec![letter("dl", FailureClass::Rejected)]);
    let mixed = response(Reply::new(true, &ids, vec![delivered(&["eu"]), rejected(), Fate::Accepted]));
    assert_eq!(mixed.status(), 422);
    assert!(!mixed.headers().contains_key("retry-after"));
    let worst = response(Reply::new(true, &ids, vec![rejected(), Fate::Late, delivered(&[])]));
    assert_eq!(worst.status(), 503);
    assert!(worst.headers().contains_key("retry-after"));
}

#[test]
fn what_the_gateway_keeps_is_202_and_what_only_the_spool_keeps_is_so_from_there_alone() {
    let parked = Outcome {
        settlement: Settlement::Parked,
        delivered_to: vec![Arc::from("eu")],
        undecided: Some("the target `us` is down".to_owned()),
        ..Outcome::default()
    };
    let document = json!({ "id": "1", "status": "parked", "targets": ["eu"], "reason": "the target `us` is down" });
    assert_eq!(result("1", Fate::Settled(parked)).unwrap(), (StatusCode::ACCEPTED, document));
    let postponed = Settlement::Postponed { after: std::time::Duration::from_secs(9), attempt: 2 };
    for settlement in [Settlement::Requeued, postponed] {
        let outcome = Outcome { settlement, ..Outcome::requeued("the target `us` is down") };
        let (status, document) = result("1", Fate::of_spooled(outcome.clone())).unwrap();
        assert_eq!((status, &document["status"]), (StatusCode::ACCEPTED, &json!("parked")));
        assert_eq!(document["reason"], "the target `us` is down");
        assert_eq!(result("1", Fate::Settled(outcome)).unwrap_err().code(), ProblemCode::NotDelivered);
    }
}

#[test]
fn only_what_sending_again_would_not_change_lasts() {
    let reply = |fate| Reply::new(false, &["1".to_owned()], vec![fate]);
    for (fate, status) in [
        (delivered(&["eu"]), Some(200)),
        (Fate::Accepted, Some(202)),
        (dead(vec![letter("dl", FailureClass::Schema)]), Some(422)),
        (dead(vec![letter("dl", FailureClass::TargetFailed)]), None),
        (Fate::Settled(Outcome::requeued("stopping")), None),
        (Fate::Late, None),
        (Fate::LateWithKey, None),
        (Fate::Lost, None),
    ] {
        let name = format!("{fate:?}");
        assert_eq!(reply(fate).lasting().map(|answer| answer.status.as_u16()), status, "{name}");
    }
}

#[test]
fn accepted_messages_are_listed_whatever_their_ids_are() {
    let message = |id: &str| Message { id: id.to_owned(), ..Message::new("s", "k", "b") };
    let json = |answer: StoredAnswer| serde_json::from_slice::<Value>(&answer.body).unwrap();
    let odd = "a\"b\\c\n\u{1}";
    assert_eq!(json(accepted(false, &[message(odd)])), json!({ "id": odd, "status": "accepted" }));
    let one = |id: &str| json!({ "id": id, "status": "accepted" });
    assert_eq!(json(accepted(true, &[message("1")])), json!({ "results": [one("1")] }));
    assert_eq!(json(accepted(true, &[message("1"), message(odd)])), json!({ "results": [one("1"), one(odd)] }));
    let again = replayed(accepted(false, &[message("1")]));
    assert_eq!(again.status(), 202);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.headers()[CONTENT_TYPE], "application/json");
}
