//! Arbitrary messages for the property tests of the mappings.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use sluicegate_engine::message::{Body, Headers, Message};

use crate::json_text;

const MAX_TIME_MS: u64 = 253_000_000_000_000;

/// Text without control characters, never empty.
pub(crate) fn text() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{1,12}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..24).prop_map(Bytes::from), ".{0,12}".prop_map(Bytes::from),]
}

fn headers() -> impl Strategy<Value = Headers> {
    let name = prop_oneof![
        "[a-z0-9]{1,8}",
        "[A-Za-z-]{1,8}",
        ".{0,6}",
        prop::sample::select(vec![
            "id",
            "time",
            "type",
            "data",
            "key",
            "$key",
            "$headers",
            "traceparent",
            "subject",
            "sluicegateheaders",
            "dataschema",
            "h:id",
            "content_type",
            "correlationId",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec((name, bytes()), 0..6).prop_map(Headers::from_iter)
}

fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        bytes(),
        any_json().prop_map(|value| Bytes::from(value.to_string())),
        object().prop_map(|value| Bytes::from(format!("{value:#}"))),
        (60_usize..70).prop_map(|depth| Bytes::from(format!("{}{}", "[".repeat(depth), "]".repeat(depth)))),
        Just(Bytes::from_static(b"[1.10, 12345678901234567890123]")),
    ]
}

/// Any message that keeps to CloudEvents, on its first attempt.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    let content_type = prop::option::of(prop::sample::select(vec![
        "application/json",
        "application/vnd.order+json; charset=utf-8",
        "text/plain",
        "application/octet-stream",
    ]));
    let names = (text(), text(), text(), prop::option::of(text()), content_type);
    let times = (0..MAX_TIME_MS, prop::option::of(0..MAX_TIME_MS), prop::option::of(0..MAX_TIME_MS));
    let context = (prop::option::of(text()), prop::option::of(text()), prop::option::of(text()));
    (names, times, context, prop::option::of(bytes()), headers(), body()).prop_map(
        |(
            (id, source, kind, subject, content_type),
            (time_ms, expires_at_ms, deliver_at_ms),
            context,
            key,
            headers,
            body,
        )| {
            Message {
                id,
                source,
                kind,
                subject,
                time_ms,
                content_type: content_type.map(str::to_owned),
                key,
                headers,
                body: Body::from(body),
                attempt: 1,
                expires_at_ms,
                deliver_at_ms,
                trace_parent: context.0,
                trace_state: context.1,
                correlation_id: context.2,
            }
        },
    )
}

/// The message with its body compacted if it is JSON, for mappings that may drop insignificant whitespace.
pub(crate) fn compacted(message: &Message) -> Message {
    let mut message = message.clone();
    if message.body.json().is_ok() {
        message.body = Body::from(json_text::compact(message.body.bytes()));
    }
    message
}

/// Any JSON object, a few levels deep.
pub(crate) fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec((".{0,6}", any_json()), 0..5).prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// Any JSON value, a few levels deep.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
