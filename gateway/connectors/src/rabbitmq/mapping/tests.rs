use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use proptest::prelude::*;
use sluicegate_engine::message::{Headers, Message, now_ms};

use super::*;

const FRAME_MAX_BYTES: u32 = 131_072;

fn incoming() -> Incoming {
    Incoming { pipeline: Arc::from("orders"), queue: "q".to_owned(), retry_header: "x-retry-count".to_owned() }
}

fn outgoing() -> Outgoing {
    Outgoing { persistent: true, expires: true, ttl: None, cloud_events: false }
}

fn arrived(properties: &BasicProperties, body: &[u8]) -> Message {
    let body = body.to_vec();
    incoming().message(Arrival { exchange: "shop", routing_key: "order.new", redelivered: false, properties, body })
}

fn written(outgoing: Outgoing, message: &Message) -> BasicProperties {
    outgoing.properties(message).and_then(|made| made.finish(FRAME_MAX_BYTES)).expect("properties")
}

fn with_headers<const N: usize>(headers: [(&str, AMQPValue); N]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Without what the source adds about the way the message came.
fn without_hop(mut message: Message) -> Message {
    for name in HOP {
        message.headers.remove(name);
    }
    message
}

#[test]
fn properties_become_attributes() {
    let properties = with_headers([("region", text("eu"))])
        .with_message_id("m-1".into())
        .with_type("order.created".into())
        .with_app_id("shop".into())
        .with_timestamp(1_700_000_000)
        .with_content_type("application/json".into())
        .with_correlation_id("c-1".into())
        .with_priority(7)
        .with_reply_to("answers".into());
    let message = arrived(&properties, b"{}");
    assert_eq!((message.id.as_str(), message.kind.as_str(), message.source.as_str()), ("m-1", "order.created", "shop"));
    assert_eq!(message.time_ms, 1_700_000_000_000);
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.correlation_id.as_deref(), Some("c-1"));
    let expected = [
        ("region", "eu"),
        (EXCHANGE, "shop"),
        (ROUTING_KEY, "order.new"),
        ("amqp-priority", "7"),
        ("amqp-reply-to", "answers"),
    ];
    assert_eq!(message.headers, expected.into_iter().collect::<Headers>());
    let back = written(outgoing(), &message);
    assert_eq!((*back.priority(), *back.delivery_mode()), (Some(7), Some(2)));
    assert_eq!(back.reply_to().as_ref().map(|t| t.as_str()), Some("answers"));
    assert_eq!(back.headers().as_ref().map(|table| table.inner().len()), Some(1), "{back:?}");
}

#[test]
fn both_prefixes_of_cloudevents_are_read_and_win() {
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let mut table = FieldTable::default();
        let attributes = [
            ("specversion", "1.0"),
            ("id", "ce-1"),
            ("type", "order.paid"),
            ("source", "/shop"),
            ("subject", "o-1"),
            ("time", "2026-11-20T16:04:05.120Z"),
            ("partitionkey", "customer-1"),
            ("expirytime", "2126-11-20T16:04:05Z"),
            ("dataschema", "https://example.com/order"),
        ];
        for (name, value) in attributes {
            table.insert(format!("{prefix}{name}").into(), text(value));
        }
        let message = arrived(&BasicProperties::default().with_headers(table).with_message_id("m-1".into()), b"{}");
        assert_eq!((message.id.as_str(), message.kind.as_str()), ("ce-1", "order.paid"));
        assert_eq!((message.source.as_str(), message.subject.as_deref()), ("/shop", Some("o-1")));
        assert_eq!(message.time_ms % 60_000, 5_120);
        assert_eq!(message.key, Some(Bytes::from_static(b"customer-1")));
        assert!(message.expires_at_ms.is_some());
        assert_eq!(message.headers.text("dataschema"), Some("https://example.com/order"));
        assert_eq!(without_hop(message).headers.len(), 1);
    }
}

#[test]
fn the_envelope_fills_what_properties_leave_open_and_stays_in_the_body() {
    let body = br#"{"id":"e-1","type":"order.created","timestamp":"2026-01-02T03:04:05Z","source":"shop","correlationId":"c","data":{}}"#;
    let message = arrived(&BasicProperties::default(), body);
    assert_eq!((message.id.as_str(), message.kind.as_str(), message.source.as_str()), ("e-1", "order.created", "shop"));
    assert_eq!((message.correlation_id.as_deref(), message.time_ms), (Some("c"), 1_767_323_045_000));
    assert_eq!(message.body.bytes().as_ref(), body);
    let named = BasicProperties::default().with_message_id("m".into()).with_app_id("desk".into());
    let message = arrived(&named, body);
    assert_eq!((message.id.as_str(), message.kind.as_str(), message.source.as_str()), ("m", "order.created", "desk"));
}

#[test]
fn a_body_that_is_no_envelope_names_nothing() {
    for body in [b"".as_slice(), b"{", b"[1]", b"\xff\x00", br#"{"id":1,"type":"t"}"#, br#"{"id":"x"}"#] {
        let message = arrived(&BasicProperties::default(), body);
        assert_eq!((message.kind.as_str(), message.source.as_str()), ("order.new", "orders"));
        assert_eq!(message.body.bytes().as_ref(), body);
    }
}

#[test]
fn a_message_without_id_has_the_same_one_when_it_comes_again() {
    let properties = BasicProperties::default();
    let first = arrived(&properties, b"body");
    let again = incoming().message(Arrival {
        exchange: "shop",
        routing_key: "order.new",
        redelivered: true,
        properties: &properties,
        body: b"body".to_vec(),
    });
    assert_eq!(first.id, again.id);
    assert_eq!(again.headers.text(REDELIVERED), Some("true"));
    assert_ne!(first.id, arrived(&properties, b"other").id);
    assert_ne!(first.id, arrived(&BasicProperties::default().with_timestamp(1), b"body").id);
}

#[test]
fn a_parked_message_is_as_it_was_but_for_its_attempt() {
    let original = arrived(&with_headers([("a", text("1"))]).with_type("t".into()), b"body");
    let mut made = outgoing().properties(&original).expect("properties");
    made.set_number("x-retry-count", 2).expect("a name");
    made.set(ORIGINAL_EXCHANGE, "shop").expect("a name");
    made.set(ORIGINAL_ROUTING_KEY, "order.new").expect("a name");
    made.set("x-death", "[]").expect("a name");
    made.set("x-first-death-queue", "q.delay.1000ms").expect("a name");
    let properties = made.finish(FRAME_MAX_BYTES).expect("properties");
    let body = b"body".to_vec();
    let back = incoming().message(Arrival {
        exchange: "",
        routing_key: "q",
        redelivered: false,
        properties: &properties,
        body,
    });
    assert_eq!(back, Message { attempt: 3, ..original });
}

#[test]
fn a_count_of_any_type_is_the_attempts_before_and_nonsense_is_none() {
    for (value, attempt) in [
        (AMQPValue::LongInt(4), 5),
        (text("4"), 5),
        (text("four"), 1),
        (AMQPValue::LongLongInt(-1), 1),
        (AMQPValue::LongLongInt(i64::from(u32::MAX)), u32::MAX),
    ] {
        assert_eq!(arrived(&with_headers([("x-retry-count", value)]), b"").attempt, attempt);
    }
}

#[test]
fn a_key_is_a_header_of_its_own() {
    let message = arrived(&with_headers([("key", text("customer-1"))]), b"");
    assert_eq!(message.key, Some(Bytes::from_static(b"customer-1")));
    assert_eq!(message.headers.get("key"), None);
    assert_eq!(arrived(&with_headers([("key", AMQPValue::LongInt(7))]), b"").key, Some(Bytes::from_static(b"7")));
    let both = with_headers([("cloudEvents:partitionkey", text("a")), ("key", text("b"))]);
    assert_eq!(arrived(&both, b"").key, Some(Bytes::from_static(b"a")));
}

#[test]
fn headers_about_the_way_are_not_taken_from_outside() {
    let forged = with_headers([(EXCHANGE, text("forged")), ("cloudEvents:amqp-exchange", text("forged"))]);
    let message = arrived(&forged, b"");
    assert_eq!(message.headers.iter().filter(|(_, value)| value.as_ref() == b"forged").count(), 0);
    assert_eq!(message.headers.text(EXCHANGE), Some("shop"));
}

#[test]
fn expirations_are_read_as_a_time_to_live() {
    let message = arrived(&BasicProperties::default().with_expiration("60000".into()), b"");
    let left = message.time_to_live().expect("an expiry");
    assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
    assert_eq!(arrived(&BasicProperties::default().with_expiration("soon".into()), b"").expires_at_ms, None);
}

#[test]
fn milliseconds_in_the_timestamp_are_recognised() {
    let message = arrived(&BasicProperties::default().with_timestamp(1_700_000_000_123), b"");
    assert_eq!(message.time_ms, 1_700_000_000_123);
    assert_eq!(arrived(&BasicProperties::default().with_timestamp(u64::MAX), b"").time_ms, u64::MAX);
}

#[test]
fn the_shorter_of_expiry_and_setting_is_written() {
    let mut message = Message::new("s", "k", "");
    let limited = Outgoing { ttl: Some(Duration::from_secs(5)), ..outgoing() };
    assert_eq!(written(limited, &message).expiration().as_ref().map(|t| t.as_str()), Some("5000"));
    message.expires_at_ms = Some(now_ms() + 2_000);
    let millis: u64 =
        written(limited, &message).expiration().as_ref().expect("expiration").as_str().parse().expect("a number");
    assert!((1_000..=2_000).contains(&millis), "{millis}");
    message.expires_at_ms = Some(now_ms() - 1);
    assert!(limited.properties(&message).err().expect("expired").contains("expired"));
    let waiting = Outgoing { expires: false, ..limited };
    assert_eq!(*written(waiting, &message).expiration(), None);
}

#[test]
fn what_is_too_long_for_a_property_is_a_header() {
    let long = "x".repeat(256);
    let mut message = Message::new(long.clone(), long.clone(), "");
    message.id.clone_from(&long);
    message.content_type = Some(long.clone());
    message.correlation_id = Some(long);
    let properties = written(outgoing(), &message);
    assert_eq!(*properties.message_id(), None);
    assert_eq!(without_hop(arrived(&properties, b"")), message);
}

#[test]
fn what_amqp_cannot_carry_is_an_error_with_its_size() {
    let mut message = Message::new("s", "k", "");
    message.headers.append("n".repeat(256), "v");
    assert!(outgoing().properties(&message).err().expect("too long a name").contains("256"));
    let mut message = Message::new("s", "k", "");
    message.headers.append("large", vec![0; 131_072]);
    let why = outgoing().properties(&message).and_then(|made| made.finish(FRAME_MAX_BYTES)).expect_err("too large");
    assert!(why.contains("131046"), "{why}");
}

#[test]
fn cloudevents_attributes_are_written_where_asked_for() {
    let mut message = Message::new("/shop", "order.paid", "{}");
    message.headers.append("dataschema", "https://example.com/order");
    message.headers.append(EXCHANGE, "shop");
    let properties = written(Outgoing { cloud_events: true, ..outgoing() }, &message);
    let table = properties.headers().clone().expect("headers");
    for name in ["specversion", "id", "type", "source", "time", "dataschema"] {
        assert!(table.contains_key(&format!("cloudEvents:{name}")), "{name}");
    }
    assert!(!table.contains_key(EXCHANGE));
    message.headers.remove(EXCHANGE);
    assert_eq!(without_hop(arrived(&properties, b"{}")), message);
}

#[test]
fn repeats_are_an_array() {
    let mut message = Message::new("s", "k", "");
    for value in ["1", "2", "3"] {
        message.headers.append("a", value);
    }
    let array = FieldArray::from(vec![text("1"), text("2"), text("3")]);
    let table = written(outgoing(), &message).headers().clone().expect("headers");
    assert_eq!(table.inner()["a"], AMQPValue::FieldArray(array));
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,40}", "\\PC{1,20}", "[a-z.]{250,260}"]
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

prop_compose! {
    /// Any message, with names in alphabetical order as AMQP tables have them.
    fn any_message()(
        texts in (any_text(), any_text(), any_text()),
        options in prop::collection::vec(prop::option::of(any_text()), 5),
        key in prop::option::of(any_bytes()),
        headers in prop::collection::btree_map("[a-z][a-z0-9-]{0,20}", prop::collection::vec(any_bytes(), 1..4), 0..6),
        body in any_bytes(),
        time_ms in 0..99_999_999_999_u64,
        times in prop::collection::vec(prop::option::of(4_102_444_800_000..9_000_000_000_000_u64), 2),
    ) -> Message {
        let (id, source, kind) = texts;
        let mut options = options.into_iter();
        let mut next = || options.next().flatten();
        let headers = headers.into_iter().flat_map(|(name, values)| values.into_iter().map(move |v| (name.clone(), v)));
        Message {
            id, source, kind, key, time_ms,
            headers: headers.collect(),
            subject: next(), content_type: next(), correlation_id: next(), trace_parent: next(), trace_state: next(),
            expires_at_ms: times[0], deliver_at_ms: times[1],
            ..Message::new("", "", body)
        }
    }
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_went(message in any_message(), cloud_events: bool) {
        // These names mean something of their own, and a message of attempt 1 has no count.
        for name in ["traceparent", "tracestate", "key", "x-retry-count"] {
            prop_assume!(message.headers.get(name).is_none());
        }
        let properties = written(Outgoing { cloud_events, ..outgoing() }, &message);
        let back = arrived(&properties, message.body.bytes());
        prop_assert_eq!(without_hop(back), message);
    }

    #[test]
    fn any_headers_are_survived(table in any_table(), body in any_bytes()) {
        let message = arrived(&BasicProperties::default().with_headers(table), &body);
        prop_assert_eq!(message.body.bytes(), &body);
    }
}

fn any_table() -> impl Strategy<Value = FieldTable> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        any_bytes().prop_map(|bytes| AMQPValue::LongString(bytes.to_vec().into())),
        Just(AMQPValue::Void),
    ];
    let value = leaf.prop_recursive(2, 8, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(|values| AMQPValue::FieldArray(values.into()))
    });
    let names = prop_oneof![
        "[a-z-]{1,10}",
        Just("x-retry-count".to_owned()),
        Just("cloudEvents:time".to_owned()),
        Just("cloudEvents:id".to_owned()),
        Just("cloudEvents_expirytime".to_owned()),
        Just("traceparent".to_owned()),
    ];
    prop::collection::btree_map(names, value, 0..6).prop_map(|headers| {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), value);
        }
        table
    })
}
