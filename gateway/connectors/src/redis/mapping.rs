//! Messages as entries of a stream and back.
//!
//! | message | field |
//! |---|---|
//! | (marks the layout) | `specversion`, always first, always `1.0` |
//! | id, source, kind, subject | `id`, `source`, `type`, `subject` |
//! | time, expiry, deliver-at | `time`, `expirytime`, `deliverytime` (RFC 3339, milliseconds, UTC) |
//! | content type, key | `datacontenttype`, `key` |
//! | trace context, correlation id | `traceparent`, `tracestate`, `correlationid` |
//! | each header, in order, repeats kept | `h:` and its name |
//! | body | `data` |
//!
//! Values are bytes and stay as they are. Fields of that layout which cannot be read (a time that is none, a text that is
//! not UTF-8, a repeat) and unknown fields become headers under their own names: an entry is never refused.
//!
//! **Entries of other producers**, without `specversion`, `id` and `type`: if exactly one of the fields `data`,
//! `payload` and `body` is there, it is the body, `type`, `key`, `subject`, `correlationid`, `traceparent` and
//! `tracestate` are taken over, and the other fields are headers. Otherwise the body is a JSON object of all fields:
//! texts as strings, repeats as arrays of them, other bytes as `{"base64": "…"}`. The id is the entry's, the source
//! `redis:` and the stream's name, the kind, unless told, the stream's name, the time the entry id's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value};
use sluicegate_engine::message::{Body, Headers, Message};

pub use super::reply::{EntryId, Fields};
use crate::cloudevents::{parse_time, print_time};

const HEADER_PREFIX: &[u8] = b"h:";
const BODY_FIELDS: [&[u8]; 3] = [b"data", b"payload", b"body"];

/// Gives out name and value of each field of a message, in order.
pub fn encode(message: &Message, mut put: impl FnMut(&[u8], &[u8])) {
    let time = print_time(message.time_ms);
    let expiry = message.expires_at_ms.map(print_time);
    let delivery = message.deliver_at_ms.map(print_time);
    let attributes = [
        ("specversion", Some("1.0")),
        ("id", Some(&*message.id)),
        ("source", Some(&*message.source)),
        ("type", Some(&*message.kind)),
        ("subject", message.subject.as_deref()),
        ("time", Some(&*time)),
        ("expirytime", expiry.as_deref()),
        ("deliverytime", delivery.as_deref()),
        ("datacontenttype", message.content_type.as_deref()),
    ];
    let context = [
        ("traceparent", message.trace_parent.as_deref()),
        ("tracestate", message.trace_state.as_deref()),
        ("correlationid", message.correlation_id.as_deref()),
    ];
    for (name, value) in attributes {
        if let Some(value) = value {
            put(name.as_bytes(), value.as_bytes());
        }
    }
    if let Some(key) = &message.key {
        put(b"key", key);
    }
    for (name, value) in context {
        if let Some(value) = value {
            put(name.as_bytes(), value.as_bytes());
        }
    }
    let mut prefixed = Vec::new();
    for (name, value) in message.headers.iter() {
        prefixed.clear();
        prefixed.extend_from_slice(HEADER_PREFIX);
        prefixed.extend_from_slice(name.as_bytes());
        put(&prefixed, value);
    }
    put(b"data", message.body.bytes());
}

/// The message of an entry. `attempt` is how often the entry has been delivered, this time included.
pub fn decode(stream: &str, id: EntryId, fields: Fields, attempt: u32) -> Message {
    let has = |name: &[u8], value: Option<&[u8]>| {
        fields.iter().any(|(n, v)| n == name && value.is_none_or(|value| v == value))
    };
    let is_layout = has(b"specversion", Some(b"1.0")) && has(b"id", None) && has(b"type", None);
    let mut message = Message {
        id: String::new(),
        source: String::new(),
        kind: String::new(),
        subject: None,
        time_ms: id.millis,
        content_type: None,
        key: None,
        headers: Headers::default(),
        body: Body::from(Bytes::new()),
        attempt,
        expires_at_ms: None,
        deliver_at_ms: None,
        trace_parent: None,
        trace_state: None,
        correlation_id: None,
    };
    let mut named = Named::default();
    if is_layout {
        decode_layout(fields, &mut message, &mut named);
    } else {
        decode_foreign(fields, &mut message, &mut named);
    }
    message.id = named.id.unwrap_or_else(|| id.to_string());
    message.source = named.source.unwrap_or_else(|| format!("redis:{stream}"));
    message.kind = named.kind.unwrap_or_else(|| stream.to_owned());
    message
}

/// What an entry says of what a message must have.
#[derive(Default)]
struct Named {
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
}

fn decode_layout(fields: Fields, message: &mut Message, named: &mut Named) {
    let mut seen: Vec<Bytes> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        if let Some(header) = name.strip_prefix(HEADER_PREFIX) {
            message.headers.append(String::from_utf8_lossy(header), value);
            continue;
        }
        let is_repeat = seen.contains(&name);
        let unread = if is_repeat { Some(value) } else { set(message, named, &name, value) };
        if let Some(value) = unread {
            message.headers.append(String::from_utf8_lossy(&name), value);
        }
        if !is_repeat {
            seen.push(name);
        }
    }
}

/// Takes in a field of the layout; gives the value back if the field is none, or its value cannot be what the layout says.
fn set(message: &mut Message, named: &mut Named, name: &[u8], value: Bytes) -> Option<Bytes> {
    match name {
        b"data" => {
            message.body = Body::from(value);
            return None;
        }
        b"key" => {
            message.key = Some(value);
            return None;
        }
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(&value) else { return Some(value) };
    let time = || parse_time(text).ok();
    let owned = || Some(text.to_owned());
    let is_set = match name {
        b"specversion" => text == "1.0",
        b"id" => is_some(&mut named.id, owned()),
        b"source" => is_some(&mut named.source, owned()),
        b"type" => is_some(&mut named.kind, owned()),
        b"subject" => is_some(&mut message.subject, owned()),
        b"datacontenttype" => is_some(&mut message.content_type, owned()),
        b"traceparent" => is_some(&mut message.trace_parent, owned()),
        b"tracestate" => is_some(&mut message.trace_state, owned()),
        b"correlationid" => is_some(&mut message.correlation_id, owned()),
        b"time" => time().map(|at| message.time_ms = at).is_some(),
        b"expirytime" => is_some(&mut message.expires_at_ms, time()),
        b"deliverytime" => is_some(&mut message.deliver_at_ms, time()),
        _ => false,
    };
    if is_set { None } else { Some(value) }
}

/// Puts a value in its place; says whether there was one.
fn is_some<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let some = value.is_some();
    *place = value;
    some
}

fn decode_foreign(fields: Fields, message: &mut Message, named: &mut Named) {
    let mut bodies = fields.iter().enumerate().filter(|(_, (name, _))| BODY_FIELDS.contains(&&**name));
    let (Some((body_at, _)), None) = (bodies.next(), bodies.next()) else {
        message.content_type = Some("application/json".to_owned());
        message.body = Body::from(object(&fields).to_string());
        return;
    };
    for (at, (name, value)) in fields.into_iter().enumerate() {
        if at == body_at {
            message.body = Body::from(value);
            continue;
        }
        let text = std::str::from_utf8(&value).ok().filter(|text| !text.is_empty()).map(str::to_owned);
        match (&*name, text) {
            (b"type", Some(kind)) => named.kind = Some(kind),
            (b"subject", Some(subject)) if message.subject.is_none() => message.subject = Some(subject),
            (b"correlationid", Some(id)) if message.correlation_id.is_none() => message.correlation_id = Some(id),
            (b"traceparent", Some(parent)) if message.trace_parent.is_none() => message.trace_parent = Some(parent),
            (b"tracestate", Some(state)) if message.trace_state.is_none() => message.trace_state = Some(state),
            (b"key", _) if message.key.is_none() => message.key = Some(value),
            _ => message.headers.append(String::from_utf8_lossy(&name), value),
        }
    }
}

fn object(fields: &Fields) -> Value {
    let mut object = Map::new();
    for (name, value) in fields {
        let value = match std::str::from_utf8(value) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from_iter([("base64", BASE64.encode(value))]),
        };
        match object.entry(String::from_utf8_lossy(name)) {
            serde_json::map::Entry::Vacant(entry) => {
                entry.insert(value);
            }
            serde_json::map::Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(values) => values.push(value),
                single => *single = Value::from(vec![single.take(), value]),
            },
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::arbitrary;

    const ID: EntryId = EntryId { millis: 1_700_000_000_000, sequence: 7 };

    fn foreign(fields: &[(&str, &[u8])]) -> Message {
        let fields = fields
            .iter()
            .map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value)))
            .collect();
        decode("orders", ID, fields, 1)
    }

    #[test]
    fn a_foreign_entry_with_a_body_field_keeps_the_rest_as_headers() {
        for body in ["data", "payload", "body"] {
            let message =
                foreign(&[("type", b"order.created"), ("key", b"k"), (body, b"{\"a\":1}"), ("tenant", b"\xff")]);
            assert_eq!(message.body.bytes(), &br#"{"a":1}"#[..]);
            assert_eq!(
                (&*message.id, &*message.source, &*message.kind),
                ("1700000000000-7", "redis:orders", "order.created")
            );
            assert_eq!(message.key.as_deref(), Some(&b"k"[..]));
            assert_eq!(message.headers, [("tenant", &b"\xff"[..])].into_iter().collect());
            assert_eq!(message.time_ms, 1_700_000_000_000);
        }
    }

    #[test]
    fn a_foreign_entry_without_one_becomes_a_json_object() {
        let message = foreign(&[("a", b"1"), ("b", b"x"), ("a", b"2"), ("bin", b"\xff"), ("a", b"3")]);
        let expected = json!({ "a": ["1", "2", "3"], "b": "x", "bin": { "base64": "/w==" } });
        assert_eq!(**message.body.json().expect("JSON"), expected);
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert_eq!(message.kind, "orders");
        let two = foreign(&[("data", b"1"), ("body", b"2")]);
        assert_eq!(**two.body.json().expect("JSON"), json!({ "data": "1", "body": "2" }));
        assert_eq!(**foreign(&[]).body.json().expect("JSON"), json!({}));
    }

    #[test]
    fn fields_of_the_layout_that_cannot_be_read_become_headers() {
        let message = foreign(&[
            ("specversion", b"1.0"),
            ("id", b"\xff"),
            ("type", b"t"),
            ("type", b"again"),
            ("time", b"yesterday"),
            ("new", b"x"),
            ("data", b"1"),
        ]);
        assert_eq!((&*message.id, &*message.kind, message.time_ms), ("1700000000000-7", "t", ID.millis));
        let expected = [("id", &b"\xff"[..]), ("type", b"again"), ("time", b"yesterday"), ("new", b"x")];
        assert_eq!(message.headers, expected.into_iter().collect());
        assert_eq!(message.body.bytes(), &Bytes::from_static(b"1"));
    }

    proptest! {
        #[test]
        fn messages_come_back_byte_for_byte(message in arbitrary::message(), attempt in 1_u32..9) {
            let mut fields = Fields::new();
            encode(&message, |name, value| fields.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))));
            let read = decode("s", ID, fields, attempt);
            prop_assert_eq!(read, Message { attempt, ..message });
        }

        #[test]
        fn no_entry_is_refused_and_no_value_is_lost(
            fields in prop::collection::vec((
                prop_oneof![Just("data".to_owned()), Just("id".to_owned()), Just("specversion".to_owned()), ".{0,5}"],
                prop::collection::vec(any::<u8>(), 0..6),
            ), 0..8),
        ) {
            let fields: Fields = fields.into_iter().map(|(n, v)| (Bytes::from(n), Bytes::from(v))).collect();
            let message = decode("s", ID, fields.clone(), 1);
            if fields.iter().filter(|(name, _)| BODY_FIELDS.contains(&&**name)).count() == 1 {
                let body = fields.iter().find(|(name, _)| BODY_FIELDS.contains(&&**name)).map(|(_, value)| value);
                prop_assert_eq!(Some(message.body.bytes()), body);
            } else if message.content_type.is_some() {
                prop_assert!(message.body.json().is_ok());
            }
        }
    }
}
