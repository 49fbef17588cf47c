//! From a message to a JSON event.

use std::borrow::Borrow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sluicegate_engine::message::{MAX_JSON_DEPTH, Message};

use super::attributes;
use crate::json_text;

/// A body nested deeper than this goes as base64: an event adds one level and a batch another, and both must stay
/// within the depth that is read back.
const MAX_DATA_DEPTH: usize = MAX_JSON_DEPTH - 2;

/// One event, on one line without a line break at its end. Always valid and always read back by
/// [`decode`](super::decode); JSON bodies lose the whitespace between their tokens and nothing else.
pub fn encode(message: &Message) -> Vec<u8> {
    let mut event = Vec::with_capacity(message.body.len() + 512);
    for (name, text) in attributes(message) {
        event.push(if event.is_empty() { b'{' } else { b',' });
        write_member(&mut event, name, json_text::string(&text).as_bytes());
    }
    write_data(&mut event, message);
    event.push(b'}');
    event
}

/// A JSON array of events, in order.
pub fn encode_batch<M: Borrow<Message>>(messages: &[M]) -> Vec<u8> {
    let mut batch = vec![b'['];
    for message in messages {
        if batch.len() > 1 {
            batch.push(b',');
        }
        batch.extend(encode(message.borrow()));
    }
    batch.push(b']');
    batch
}

fn write_data(event: &mut Vec<u8>, message: &Message) {
    let bytes = message.body.bytes();
    if bytes.is_empty() {
        return;
    }
    event.push(b',');
    if message.content_type.as_deref().filter(|text| !text.is_empty()).is_none_or(json_text::is_json) {
        if message.body.json().is_ok() && json_text::depth(bytes) <= MAX_DATA_DEPTH {
            return write_member(event, "data", &json_text::compact(bytes));
        }
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        return write_member(event, "data", json_text::string(text).as_bytes());
    }
    write_member(event, "data_base64", json_text::string(&BASE64.encode(bytes)).as_bytes());
}

fn write_member(event: &mut Vec<u8>, name: &str, value: &[u8]) {
    event.push(b'"');
    event.extend(name.as_bytes());
    event.extend(b"\":");
    event.extend(value);
}
