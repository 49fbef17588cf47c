use proptest::prelude::*;
use serde_json::json;

use super::super::config::SourceConfig;
use super::super::problem::Place;
use super::*;

const EVENT: &str = r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.created","data":{"a":1}}"#;

fn settings(more: &Value) -> PathSettings {
    let mut config = json!({ "path": "/a", "kind": "order.posted", "max_body": "1KiB" });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    PathSettings::new(&config, "orders")
}

fn headers(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn read(more: &Value, given: &[(&'static str, &'static str)], body: &str) -> Result<Vec<Message>, ProblemDetails> {
    let (settings, headers) = (settings(more), headers(given));
    let shape = shape(settings.format, &headers)?;
    messages(shape, &settings, &headers, Bytes::copy_from_slice(body.as_bytes()), 3)
}

fn one(more: &Value, given: &[(&'static str, &'static str)], body: &str) -> Message {
    read(more, given, body).expect("understood").remove(0)
}

#[test]
fn a_raw_body_is_kept_whatever_it_is() {
    for body in ["{\"a\": 1}", "not JSON {", "\u{0}\u{1}", "", &"[".repeat(900)] {
        let message = one(&json!({}), &[("content-type", "text/x; charset=latin-1"), ("x-a", "1")], body);
        assert_eq!(message.body.bytes(), body);
        assert_eq!(message.content_type.as_deref(), Some("text/x; charset=latin-1"));
        assert_eq!((message.kind.as_str(), message.source.as_str()), ("order.posted", "orders"));
        assert_eq!(message.headers.text("x-a"), Some("1"));
    }
    let (first, second) = (one(&json!({}), &[], "x"), one(&json!({}), &[], "x"));
    assert_ne!(first.id, second.id);
}

#[test]
fn a_delivery_time_more_than_30_days_ahead_is_refused_at_its_place() {
    let at = |ahead_ms: u64| cloudevents::print_time(now_ms() + ahead_ms);
    let event = |at: &str| EVENT.replace("\"data\"", &format!("\"deliverytime\":\"{at}\",\"data\""));
    let (within, beyond) = (event(&at(LONGEST_DELAY_MS - 60_000)), event(&at(LONGEST_DELAY_MS + 60_000)));
    let structured = [("content-type", EVENT_MEDIA_TYPE)];
    assert!(one(&json!({}), &structured, &within).deliver_at_ms.is_some());
    let problem = read(&json!({}), &structured, &beyond).expect_err("too far ahead");
    assert_eq!(problem.errors(), [PointedError::in_body("/deliverytime", "is more than 30 days ahead")]);
    let batch = [("content-type", BATCH_MEDIA_TYPE)];
    let problem = read(&json!({}), &batch, &format!("[{within},{beyond}]")).expect_err("one is too far ahead");
    assert_eq!((problem.status().as_u16(), problem.errors().len()), (400, 1));
    assert_eq!(problem.errors()[0].place, Place::Body("/1/deliverytime".to_owned()));
}

#[test]
fn the_shape_follows_format_and_headers() {
    let structured = ("content-type", "Application/CloudEvents+JSON; charset=utf-8");
    let of = |format, given: &[(&'static str, &'static str)]| {
        shape(format, &headers(given)).map_err(|problem| problem.status().as_u16())
    };
    assert_eq!(of(Format::Auto, &[structured]), Ok(Shape::Structured));
    assert_eq!(of(Format::Auto, &[("content-type", "application/cloudevents-batch+json")]), Ok(Shape::Batch));
    assert_eq!(of(Format::Auto, &[("ce-type", "x")]), Ok(Shape::Binary));
    assert_eq!(of(Format::Auto, &[("ce-tyoe", "x"), ("content-type", "application/json")]), Ok(Shape::Raw));
    assert_eq!(of(Format::Auto, &[("content-type", "application/cloudevents+avro")]), Err(415));
    assert_eq!(of(Format::Raw, &[structured, ("ce-id", "1")]), Ok(Shape::Raw));
    assert_eq!(of(Format::Cloudevents, &[]), Ok(Shape::Binary));
    assert_eq!(of(Format::Envelope, &[]), Ok(Shape::Envelope));
    assert_eq!(of(Format::Envelope, &[("content-type", "application/vnd.x+json")]), Ok(Shape::Envelope));
    assert_eq!(of(Format::Envelope, &[("content-type", "text/plain")]), Err(415));
    assert_eq!(of(Format::Auto, &[("content-type", "a/b"), ("content-type", "c/d")]), Err(400));
}

#[test]
fn a_binary_event_is_read_from_headers() {
    let given = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-source", "/shop"),
        ("ce-type", "order.created"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-partitionkey", "k"),
        ("ce-tenant", "acme"),
        ("content-type", "application/json"),
        ("x-not-part-of-it", "1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-correlation-id", "c-1"),
    ];
    let message = one(&json!({}), &given, "{}");
    assert_eq!((message.id.as_str(), message.kind.as_str()), ("e-1", "order.created"));
    assert_eq!(message.subject.as_deref(), Some("Euro €"));
    assert_eq!(message.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.headers, [("tenant", "acme")].into_iter().collect());
    assert!(message.trace_parent.is_some());
    assert_eq!(message.correlation_id.as_deref(), Some("c-1"));
}

#[test]
fn every_mistake_of_a_binary_event_is_named_by_its_header() {
    let given = [("ce-specversion", "0.3"), ("ce-id", "%G"), ("ce-time", "yesterday"), ("ce-bad_name", "x")];
    let problem = read(&json!({}), &given, "{}").unwrap_err();
    assert_eq!((problem.code(), problem.status().as_u16()), (ProblemCode::InvalidEvent, 400));
    let mut names: Vec<String> = problem
        .errors()
        .iter()
        .map(|error| match &error.place {
            super::super::problem::Place::Header(name) => name.clone(),
            other @ super::super::problem::Place::Body(_) => format!("{other:?}"),
        })
        .collect();
    names.sort();
    assert_eq!(names, ["ce-bad_name", "ce-id", "ce-source", "ce-specversion", "ce-time", "ce-type"]);
}

#[test]
fn structured_events_and_envelopes_are_read_and_their_mistakes_listed() {
    let structured = [("content-type", "application/cloudevents+json"), ("x-a", "1")];
    let message = one(&json!({}), &structured, EVENT);
    assert_eq!((message.id.as_str(), message.body.bytes().as_ref()), ("e-1", &b"{\"a\":1}"[..]));
    assert!(message.headers.is_empty(), "an event says all of its message itself");
    let problem = read(&json!({}), &structured, r#"{"id":"","specversion":"1.0"}"#).unwrap_err();
    assert_eq!((problem.code(), problem.errors().len()), (ProblemCode::InvalidEvent, 3));

    let envelope = json!({ "format": "envelope" });
    let message = one(&envelope, &[], r#"{"type":"a.b.c","data":[1]}"#);
    assert_eq!((message.kind.as_str(), message.source.as_str()), ("a.b.c", "orders"));
    let problem = read(&envelope, &[], r#"{"tpye":"a"}"#).unwrap_err();
    assert_eq!((problem.code(), problem.errors().len()), (ProblemCode::InvalidEnvelope, 3));
}

#[test]
fn malformed_and_deep_json_is_refused_where_json_is_the_format() {
    let structured = [("content-type", "application/cloudevents+json")];
    for bad in ["", "{", "[]", "null", &"[".repeat(500)] {
        let problem = read(&json!({}), &structured, bad).unwrap_err();
        assert_eq!(problem.status(), 400, "{bad}");
    }
}

#[test]
fn a_batch_is_whole_or_not_at_all() {
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let many = |count: usize| format!("[{}]", vec![EVENT; count].join(","));
    assert_eq!(read(&json!({}), &batch, &many(3)).unwrap().len(), 3);
    assert_eq!(read(&json!({}), &batch, "[]").unwrap().len(), 0);
    let problem = read(&json!({}), &batch, &many(4)).unwrap_err();
    assert_eq!((problem.code(), problem.status().as_u16()), (ProblemCode::BatchTooLarge, 413));
    let problem = read(&json!({}), &batch, &format!("[{EVENT},{{}},7]")).unwrap_err();
    assert_eq!((problem.code(), problem.errors().len()), (ProblemCode::InvalidEvent, 5));
    assert!(problem.errors().contains(&PointedError::in_body("/1/id", "is missing; CloudEvents requires it")));
    let big = format!("[{}]", EVENT.replace("{\"a\":1}", &format!("\"{}\"", "x".repeat(2_000))));
    let problem = read(&json!({}), &batch, &big).unwrap_err();
    assert_eq!((problem.code(), problem.status().as_u16()), (ProblemCode::BodyTooLarge, 413));
}

#[test]
fn the_key_comes_from_where_the_configuration_says() {
    let by_header = json!({ "key": { "header": "X-Order" } });
    assert_eq!(one(&by_header, &[("x-order", "o-1")], "").key.as_deref(), Some(&b"o-1"[..]));
    assert_eq!(one(&by_header, &[], "").key, None);
    let by_pointer = json!({ "key": { "pointer": "/order/id" } });
    for (body, key) in [
        (r#"{"order":{"id":"o-2"}}"#, Some("o-2")),
        (r#"{"order":{"id":7}}"#, Some("7")),
        (r#"{"order":{"id":null}}"#, None),
        (r#"{"order":{"id":""}}"#, None),
        ("not JSON", None),
    ] {
        assert_eq!(one(&by_pointer, &[], body).key.as_deref(), key.map(str::as_bytes), "{body}");
    }
}

#[test]
fn an_invalid_traceparent_is_ignored_together_with_its_state() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let message = one(&json!({}), &[("traceparent", valid), ("tracestate", "a=b")], "");
    assert_eq!((message.trace_parent.as_deref(), message.trace_state.as_deref()), (Some(valid), Some("a=b")));
    for invalid in [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "rubbish",
    ] {
        let message = one(&json!({}), &[("traceparent", invalid), ("tracestate", "a=b")], "");
        assert_eq!((message.trace_parent, message.trace_state), (None, None), "{invalid}");
    }
    assert!(is_trace_parent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"));
}

#[test]
fn a_content_type_that_is_not_text_is_refused() {
    let mut map = HeaderMap::new();
    map.insert("content-type", http::HeaderValue::from_bytes(b"text/\xff").unwrap());
    for format in [Format::Auto, Format::Raw, Format::Envelope] {
        let problem = shape(format, &map).unwrap_err();
        assert_eq!((problem.code(), problem.status().as_u16()), (ProblemCode::InvalidHeader, 400));
    }
}

proptest! {
    #[test]
    fn no_request_panics(
        content_type in prop::sample::select(vec![
            "", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain",
        ]),
        body: Vec<u8>,
        value in prop::collection::vec(0x20_u8..=0xff, 0..20),
    ) {
        let mut map = headers(&[("content-type", content_type)]);
        if let Ok(value) = http::HeaderValue::from_bytes(&value) {
            map.append("ce-id", value);
        }
        let settings = settings(&json!({}));
        let shape = shape(settings.format, &map).unwrap();
        match messages(shape, &settings, &map, body.into(), 3) {
            Ok(messages) => prop_assert!(messages.len() <= 3),
            Err(problem) => prop_assert!(problem.status().is_client_error()),
        }
    }
}
