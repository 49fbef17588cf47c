//! From a message to an envelope.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use sluicegate_engine::message::{MAX_JSON_DEPTH, Message};

use super::{JSON, MAX_METADATA, RESERVED, is_reserved};
use crate::cloudevents::print_time;
use crate::{header_list, json_text};

/// Writes an envelope on one line without a line break at its end; always read back by [`decode`] if the message has a
/// kind, an id and a source. JSON bodies lose the whitespace between their tokens and nothing else.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut metadata = metadata(message);
    let (data, encoding) = data(message);
    if let Some(encoding) = encoding {
        metadata.insert("$dataEncoding".to_owned(), encoding.into());
    }
    let mut envelope = Vec::with_capacity(data.len() + 512);
    let mut member = |name: &str, value: &[u8]| {
        envelope.push(if envelope.is_empty() { b'{' } else { b',' });
        envelope.extend(json_text::string(name).as_bytes());
        envelope.push(b':');
        envelope.extend(value);
    };
    member("id", json_text::string(&message.id).as_bytes());
    member("type", json_text::string(&message.kind).as_bytes());
    member("timestamp", json_text::string(&print_time(message.time_ms)).as_bytes());
    member("source", json_text::string(&message.source).as_bytes());
    if let Some(id) = &message.correlation_id {
        member("correlationId", json_text::string(id).as_bytes());
    }
    member("data", &data);
    if !metadata.is_empty() {
        member("metadata", Value::Object(metadata).to_string().as_bytes());
    }
    envelope.push(b'}');
    envelope
}

fn data(message: &Message) -> (Vec<u8>, Option<&'static str>) {
    let bytes = message.body.bytes();
    // The envelope adds a level, and a list of envelopes another.
    if message.body.json().is_ok() && json_text::depth(bytes) <= MAX_JSON_DEPTH - 2 {
        return (json_text::compact(bytes), None);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => (json_text::string(text).into_bytes(), Some("text")),
        Err(_) => (json_text::string(&BASE64.encode(bytes)).into_bytes(), Some("base64")),
    }
}

fn metadata(message: &Message) -> Map<String, Value> {
    let mut metadata = Map::new();
    let headers = &message.headers;
    let fits = |name: &str, value: &[u8]| {
        !is_reserved(name)
            && std::str::from_utf8(value).is_ok()
            && headers.iter().filter(|(n, _)| *n == name).count() == 1
    };
    let is_small = headers.len() <= MAX_METADATA - RESERVED.len();
    if is_small && headers.iter().all(|(name, value)| fits(name, value)) {
        for (name, value) in headers.iter() {
            metadata.insert(name.to_owned(), String::from_utf8_lossy(value).into());
        }
    } else {
        metadata.insert("$headers".to_owned(), header_list::to_json(headers));
    }
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value.into());
        }
    };
    set("$subject", message.subject.clone());
    if message.content_type.as_deref() != Some(JSON) {
        set("$contentType", Some(message.content_type.clone().unwrap_or_default()));
    }
    match message.key.as_ref().map(|key| (key, std::str::from_utf8(key))) {
        None => {}
        Some((_, Ok(text))) => set("$key", Some(text.to_owned())),
        Some((key, Err(_))) => set("$keyBase64", Some(BASE64.encode(key))),
    }
    set("$expiresAt", message.expires_at_ms.map(print_time));
    set("$deliverAt", message.deliver_at_ms.map(print_time));
    set("traceparent", message.trace_parent.clone());
    set("tracestate", message.trace_state.clone());
    metadata
}
