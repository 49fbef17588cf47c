use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sluicegate_engine::message::{MAX_JSON_DEPTH, Message};

use super::*;
use crate::arbitrary;

fn problems(event: &Value) -> Vec<(String, String)> {
    let error = decode(event.to_string().as_bytes()).expect_err("invalid event");
    error.problems.into_iter().map(|problem| (problem.pointer, problem.text)).collect()
}

#[test]
fn an_event_of_the_specification_is_read() {
    let event = br#"{
        "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext", "subject": null,
        "id" : "C234-1234-1234", "time" : "2018-04-05T17:31:00Z", "comexampleextension1" : "value",
        "comexampleothervalue" : 5, "flag": true, "unsetextension": null,
        "datacontenttype" : "application/json", "data" : { "price" : 1.10, "n": 12345678901234567890123 } }"#;
    let message = decode(event).expect("valid");
    assert_eq!(
        (&*message.id, &*message.source, &*message.kind),
        ("C234-1234-1234", "/mycontext", "com.example.someevent")
    );
    assert_eq!(message.time_ms, 1_522_949_460_000);
    assert_eq!(message.subject, None);
    assert_eq!(message.headers.text("comexampleothervalue"), Some("5"));
    assert_eq!(message.headers.text("flag"), Some("true"));
    assert_eq!(message.headers.len(), 3);
    assert_eq!(message.body.bytes(), &br#"{ "price" : 1.10, "n": 12345678901234567890123 }"#[..]);
    assert_eq!(message.body.json().expect("JSON")["price"], json!(1.1));
}

#[test]
fn data_that_is_not_json_is_text_or_base64() {
    let event = |extra: &str| {
        let text = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t",{extra}}}"#);
        decode(text.as_bytes()).map(|message| message.body.bytes().clone())
    };
    assert_eq!(event(r#""datacontenttype":"text/xml","data":"<a/>""#), Ok(Bytes::from("<a/>")));
    assert_eq!(event(r#""datacontenttype":"text/plain","data":{"a":1.0}"#), Ok(Bytes::from(r#"{"a":1.0}"#)));
    assert_eq!(event(r#""data":"text""#), Ok(Bytes::from(r#""text""#)));
    assert_eq!(event(r#""data_base64":"AP8=""#), Ok(Bytes::from_static(&[0, 255])));
    assert_eq!(event(r#""subject":"x""#), Ok(Bytes::new()));
    assert!(event(r#""data":1,"data_base64":"AP8=""#).is_err());
    assert!(event(r#""data_base64":"not base64!""#).is_err());
    assert!(event(r#""data_base64":7"#).is_err());
}

#[test]
fn every_problem_is_told_with_its_place() {
    let event = json!({
        "specversion": "0.3", "id": "", "type": 1.5, "time": "now", "Upper": "x", "with_underscore": "x",
        "a".repeat(65): "x", "list": [1], "subject": "line\nbreak", "data": 1, "data_base64": "AA==",
    });
    let pointers: Vec<String> = problems(&event).into_iter().map(|(pointer, _)| pointer).collect();
    let long = format!("/{}", "a".repeat(65));
    for expected in [
        "/specversion",
        "/id",
        "/type",
        "/time",
        "/Upper",
        "/with_underscore",
        &long,
        "/list",
        "/subject",
        "/data_base64",
        "/source",
    ] {
        assert_eq!(pointers.iter().filter(|pointer| *pointer == expected).count(), 1, "{expected}: {pointers:?}");
    }
    assert_eq!(pointers.len(), 11);
    let missing = problems(&json!({}));
    assert_eq!(missing.len(), 4);
    assert!(missing.iter().all(|(_, text)| text.contains("missing")));
}

#[test]
fn what_is_no_object_at_all_is_refused() {
    for text in ["", "[]", "1", "{", "\u{FEFF}{}", "{\"a\":\"\\ud800\"}"] {
        assert!(decode(text.as_bytes()).is_err(), "{text}");
    }
    assert!(decode(b"\xff\xfe").is_err());
    let deep = format!("{}1{}", "[".repeat(MAX_JSON_DEPTH), "]".repeat(MAX_JSON_DEPTH));
    let event = format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{deep}}}"#);
    assert!(decode(event.as_bytes()).is_err());
}

#[test]
fn too_many_attributes_are_told_once() {
    let mut event = json!({ "specversion": "1.0", "id": "1", "source": "s", "type": "t" });
    for index in 0..300 {
        event[format!("x{index}")] = json!("y");
    }
    assert_eq!(problems(&event), [(String::new(), "more than 256 attributes".to_owned())]);
}

#[test]
fn an_attribute_changed_on_the_way_wins_over_the_header_list() {
    let mut message = Message::new("s", "t", "1");
    message.headers.append("X-Upper", "1");
    message.headers.append("region", "eu");
    let mut event: Value = serde_json::from_slice(&encode(&message)).expect("JSON");
    event["region"] = json!("us");
    event["added"] = json!("new");
    let headers = decode(event.to_string().as_bytes()).expect("valid").headers;
    assert_eq!(headers, [("X-Upper", "1"), ("region", "us"), ("added", "new")].into_iter().collect());
}

#[test]
fn a_message_that_breaks_the_rules_still_makes_a_valid_event() {
    let mut message = Message::new("", "a\nb", "x");
    message.subject = Some(String::new());
    message.time_ms = u64::MAX;
    for index in 0..400 {
        message.headers.append(format!("h{index}"), "v");
    }
    let read = decode(&encode(&message)).expect("valid");
    assert_eq!((&*read.source, &*read.kind, read.subject), ("unknown", "a\u{FFFD}b", None));
    assert_eq!(read.headers, message.headers);
}

#[test]
fn a_batch_is_read_whole_or_refused_with_every_place() {
    let messages = [Message::new("s", "t", r#"{"n": 1.0}"#), Message::new("s", "t", "plain")];
    assert_eq!(
        decode_batch(&encode_batch(&messages), 2).expect("valid").iter().map(|m| m.id.clone()).collect::<Vec<_>>(),
        messages.iter().map(|m| m.id.clone()).collect::<Vec<_>>()
    );
    assert!(decode_batch(&encode_batch(&messages), 1).expect_err("too many").to_string().contains("at most 1"));
    let bad =
        br#"[{"specversion":"1.0","id":"1","source":"s","type":"t"},{"specversion":"1.0","id":"1","type":"t"},7]"#;
    let pointers: Vec<String> =
        decode_batch(bad, 10).expect_err("invalid").problems.into_iter().map(|problem| problem.pointer).collect();
    assert_eq!(pointers, ["/1/source", "/2"]);
    assert!(decode_batch(b"{}", 10).is_err());
    assert_eq!(decode_batch(b"[]", 10), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn messages_come_back_from_their_events(message in arbitrary::message()) {
        let event = encode(&message);
        prop_assert!(!event.contains(&b'\n'));
        let read = decode(&event).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(arbitrary::compacted(&read), arbitrary::compacted(&message));
        let batch = decode_batch(&encode_batch(&[message.clone(), message.clone()]), 2)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(arbitrary::compacted(&batch[1]), arbitrary::compacted(&message));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), event in arbitrary::object()) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(decode_batch(event.to_string().as_bytes(), 3).is_err());
        if let Ok(message) = decode(event.to_string().as_bytes()) {
            prop_assert!(!message.id.is_empty());
        }
    }
}
