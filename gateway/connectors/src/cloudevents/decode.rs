//! From a JSON event to a message.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value};
use sluicegate_engine::message::{Body, Message, parse_json};

use super::{DecodeError, Draft};
use crate::json_text;

/// Reads one event. Extension attributes become headers, booleans and integers as their text; `null` is as good as
/// absent, as the JSON format says. Unlike the attributes, `data` keeps its exact text.
///
/// # Errors
/// Everything that is wrong with it, each with the attribute it is about.
pub fn decode(event: &[u8]) -> Result<Message, DecodeError> {
    match parse_json(event).map_err(|error| DecodeError::whole(error.to_string()))? {
        Value::Object(members) => decode_event(members, event),
        other => Err(DecodeError::whole(format!("is {}; a CloudEvent is a JSON object", kind_of(&other)))),
    }
}

/// Reads a JSON array of at most `max_events` events.
///
/// # Errors
/// Everything that is wrong with any of them; pointers start with the event's index.
pub fn decode_batch(batch: &[u8], max_events: usize) -> Result<Vec<Message>, DecodeError> {
    let events = match parse_json(batch).map_err(|error| DecodeError::whole(error.to_string()))? {
        Value::Array(events) => events,
        other => {
            return Err(DecodeError::whole(format!("is {}; a batch of CloudEvents is a JSON array", kind_of(&other))));
        }
    };
    if events.len() > max_events {
        return Err(DecodeError::whole(format!("holds {} events; at most {max_events} are allowed", events.len())));
    }
    let (mut messages, mut problems) = (Vec::with_capacity(events.len()), Vec::new());
    for (index, (event, text)) in events.into_iter().zip(json_text::elements(batch)).enumerate() {
        let decoded = match event {
            Value::Object(members) => decode_event(members, text),
            other => Err(DecodeError::whole(format!("is {}; a CloudEvent is a JSON object", kind_of(&other)))),
        };
        match decoded {
            Ok(message) => messages.push(message),
            Err(error) => problems.extend(error.problems.into_iter().map(|mut problem| {
                problem.pointer.insert_str(0, &format!("/{index}"));
                problem
            })),
        }
    }
    if problems.is_empty() { Ok(messages) } else { Err(DecodeError { problems }) }
}

/// `text` is what `members` were parsed from.
fn decode_event(mut members: Map<String, Value>, text: &[u8]) -> Result<Message, DecodeError> {
    let mut draft = Draft::new();
    let data = members.shift_remove("data");
    let data_base64 = members.shift_remove("data_base64");
    for (name, value) in &members {
        match value {
            Value::Null => {}
            Value::String(text) => draft.set(name, text),
            Value::Bool(_) => draft.set(name, &value.to_string()),
            Value::Number(number) if number.is_i64() || number.is_u64() => draft.set(name, &number.to_string()),
            Value::Number(_) => draft.refuse(name, "is a fraction; an attribute is a string, a boolean or an integer"),
            Value::Array(_) | Value::Object(_) => {
                draft.refuse(name, format!("is {}; an attribute is a string, a boolean or an integer", kind_of(value)))
            }
        }
    }
    let body = decode_data(data, data_base64, text, &mut draft);
    draft.finish(body)
}

fn decode_data(data: Option<Value>, data_base64: Option<Value>, text: &[u8], draft: &mut Draft) -> Body {
    match (data, data_base64.filter(|value| !value.is_null())) {
        (None, None) => Body::from(Bytes::new()),
        (Some(data), Some(_)) if !data.is_null() => {
            draft.refuse("data_base64", "comes together with `data`; an event has one of them");
            Body::from(Bytes::new())
        }
        (_, Some(Value::String(encoded))) => match BASE64.decode(&encoded) {
            Ok(bytes) => Body::from(bytes),
            Err(error) => {
                draft.refuse("data_base64", format!("is not base64: {error}"));
                Body::from(Bytes::new())
            }
        },
        (_, Some(other)) => {
            draft.refuse("data_base64", format!("is {}; it has to be a string", kind_of(&other)));
            Body::from(Bytes::new())
        }
        (Some(Value::String(data)), None) if !draft.content_type().is_none_or(json_text::is_json) => Body::from(data),
        (Some(data), None) => {
            let exact = json_text::member(text, "data").unwrap_or_default();
            Body::with_json(Bytes::copy_from_slice(exact), Arc::new(data))
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
