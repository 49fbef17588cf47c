use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::arbitrary;

fn pointers(envelope: &str) -> Vec<String> {
    let error = decode(envelope.as_bytes(), "here").expect_err("invalid");
    error.problems.into_iter().map(|problem| problem.pointer).collect()
}

#[test]
fn an_envelope_is_read_with_exact_data() {
    let envelope = br#"{ "id": "e-1", "type": "market.signal.created", "timestamp": "2026-11-20T17:00:00.5+01:00",
        "source": "signal-service", "correlationId": "c-1", "data": { "price": 1.10 },
        "metadata": { "userId": "u-1", "tries": 2, "nested": { "a": 1 }, "$subject": "gold" } }"#;
    let message = decode(envelope, "here").expect("valid");
    assert_eq!((&*message.id, &*message.kind, &*message.source), ("e-1", "market.signal.created", "signal-service"));
    assert_eq!(message.time_ms, 1_795_190_400_500);
    assert_eq!(message.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(message.subject.as_deref(), Some("gold"));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.body.bytes(), &br#"{ "price": 1.10 }"#[..]);
    assert_eq!(message.headers, [("userId", "u-1"), ("tries", "2"), ("nested", r#"{"a":1}"#)].into_iter().collect());
}

#[test]
fn what_may_be_missing_is_filled_in() {
    let message = decode(br#"{"type":"a","data":null,"timestamp":1000,"correlationId":null}"#, "here").expect("valid");
    assert_eq!((&*message.source, message.time_ms, message.correlation_id), ("here", 1_000, None));
    assert!(!message.id.is_empty());
    assert_eq!(message.body.bytes(), &Bytes::from_static(b"null"));
}

#[test]
fn every_problem_is_told_with_its_place() {
    assert_eq!(
        pointers(
            r#"{"id":7,"type":"","timestamp":"soon","source":[],"extra":1,
                "metadata":{"$key":1,"$expiresAt":"x","$headers":[["a"]],"$dataEncoding":"rot13"}}"#
        ),
        [
            "/data",
            "/id",
            "/type",
            "/timestamp",
            "/source",
            "/extra",
            "/metadata/$key",
            "/metadata/$expiresAt",
            "/metadata/$headers",
            "/metadata/$dataEncoding",
        ]
    );
    assert_eq!(pointers("[]"), [""]);
    assert_eq!(pointers("{"), [""]);
    assert_eq!(pointers("{}"), ["/type", "/data"]);
    assert_eq!(pointers(r#"{"type":"a","data":1,"metadata":3}"#), ["/metadata"]);
    assert_eq!(pointers(r#"{"type":"a","data":1,"metadata":{"$dataEncoding":"text"}}"#), ["/data"]);
    assert_eq!(pointers(r#"{"type":"a","data":"?","metadata":{"$dataEncoding":"base64"}}"#), ["/data"]);
}

#[test]
fn only_envelopes_look_like_envelopes() {
    assert!(looks_like(&json!({ "id": "1", "type": "a", "data": {} })));
    for other in [
        json!({ "type": "a", "data": {} }),
        json!({ "id": "1", "type": "a", "data": {}, "total": 3 }),
        json!({ "specversion": "1.0", "id": "1", "source": "s", "type": "a", "data": {} }),
        json!({ "id": "1", "timestamp": 1, "source": "s" }),
        json!([1]),
        json!("text"),
    ] {
        assert!(!looks_like(&other), "{other}");
    }
}

proptest! {
    #[test]
    fn messages_come_back_from_their_envelopes(message in arbitrary::message()) {
        let envelope = encode(&message);
        prop_assert!(!envelope.contains(&b'\n'));
        prop_assert!(looks_like(&serde_json::from_slice(&envelope).expect("JSON")));
        let read = decode(&envelope, "here").map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(arbitrary::compacted(&read), arbitrary::compacted(&message));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), object in arbitrary::object()) {
        prop_assert!(decode(&bytes, "here").is_err());
        if let Ok(message) = decode(object.to_string().as_bytes(), "here") {
            prop_assert!(!message.kind.is_empty());
        }
    }
}
