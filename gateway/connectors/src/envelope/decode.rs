//! From an envelope to a message.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value};
use sluicegate_engine::message::{Body, Message, parse_json};

use super::{JSON, MAX_METADATA, MEMBERS, is_reserved};
use crate::cloudevents::{DecodeError, FieldProblem, parse_time};
use crate::{header_list, json_text};

/// Reads an envelope. `type` and `data` are required; a missing id is made up, a missing `timestamp` is now and a
/// missing `source` is `default_source`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(envelope: &[u8], default_source: &str) -> Result<Message, DecodeError> {
    let Value::Object(mut members) = parse_json(envelope).map_err(|error| DecodeError::whole(error.to_string()))?
    else {
        return Err(DecodeError::whole("is not an object; an envelope is a JSON object"));
    };
    let mut reader = Reader { message: Message::new(default_source, "", Bytes::new()), problems: Vec::new() };
    reader.message.content_type = Some(JSON.to_owned());
    let data = members.shift_remove("data");
    for name in ["type", "data"] {
        if !(members.contains_key(name) || name == "data" && data.is_some()) {
            reader.refuse(name, "is missing; an envelope has `type` and `data`");
        }
    }
    let mut encoding = Encoding::Json;
    for (name, value) in members {
        match (name.as_str(), value) {
            (_, Value::Null) if name != "type" => {}
            ("id", value) => reader.text("id", value, |message, text| message.id = text),
            ("type", value) => reader.text("type", value, |message, text| message.kind = text),
            ("source", value) => reader.text("source", value, |message, text| message.source = text),
            ("correlationId", value) => {
                reader.text("correlationId", value, |message, text| message.correlation_id = Some(text));
            }
            ("timestamp", value) => reader.timestamp(&value),
            ("metadata", Value::Object(metadata)) => encoding = reader.metadata(metadata),
            ("metadata", _) => reader.refuse("metadata", "is not an object"),
            _ => reader.refuse(&name, format!("is unknown; an envelope has {}", MEMBERS.join(", "))),
        }
    }
    if let Some(data) = data {
        reader.data(data, json_text::member(envelope, "data").unwrap_or_default(), encoding);
    }
    if reader.problems.is_empty() { Ok(reader.message) } else { Err(DecodeError { problems: reader.problems }) }
}

/// How `data` says the body.
#[derive(Clone, Copy)]
enum Encoding {
    Json,
    Text,
    Base64,
}

/// Puts a message together and collects every problem.
struct Reader {
    message: Message,
    problems: Vec<FieldProblem>,
}

impl Reader {
    fn refuse(&mut self, name: &str, text: impl Into<String>) {
        self.problems.push(FieldProblem::at(name, text));
    }

    fn refuse_metadata(&mut self, name: &str, text: impl Into<String>) {
        let mut problem = FieldProblem::at(name, text);
        problem.pointer.insert_str(0, "/metadata");
        self.problems.push(problem);
    }

    fn text(&mut self, name: &str, value: Value, set: impl FnOnce(&mut Message, String)) {
        match value {
            Value::String(text) if !text.is_empty() => set(&mut self.message, text),
            Value::String(_) => self.refuse(name, "is empty"),
            _ => self.refuse(name, "is not a string"),
        }
    }

    fn timestamp(&mut self, value: &Value) {
        match (value.as_u64(), value.as_str().map(parse_time)) {
            (Some(millis), _) => self.message.time_ms = millis,
            (None, Some(Ok(millis))) => self.message.time_ms = millis,
            (None, Some(Err(problem))) => self.refuse("timestamp", problem),
            (None, None) => self.refuse("timestamp", "is neither an RFC 3339 time nor milliseconds since 1970"),
        }
    }

    fn metadata(&mut self, metadata: Map<String, Value>) -> Encoding {
        let mut encoding = Encoding::Json;
        let count = metadata.len();
        if count > MAX_METADATA {
            self.refuse("metadata", format!("has {count} members; at most {MAX_METADATA} are allowed"));
            return encoding;
        }
        for (name, value) in metadata {
            if !is_reserved(&name) {
                let text = if let Value::String(text) = value { text } else { value.to_string() };
                self.message.headers.append(name, text);
                continue;
            }
            let problem = match (name.as_str(), value) {
                ("$headers", list) => match header_list::from_json(&list) {
                    Some(headers) => {
                        headers.into_iter().for_each(|(name, value)| self.message.headers.append(name, value));
                        None
                    }
                    None => Some(header_list::SHAPE.to_owned()),
                },
                ("$contentType", Value::String(text)) => {
                    self.message.content_type = (!text.is_empty()).then_some(text);
                    None
                }
                ("$dataEncoding", Value::String(text)) => match text.as_str() {
                    "text" => {
                        encoding = Encoding::Text;
                        None
                    }
                    "base64" => {
                        encoding = Encoding::Base64;
                        None
                    }
                    _ => Some("is neither `text` nor `base64`".to_owned()),
                },
                (reserved, Value::String(text)) => self.reserved(reserved, text).err(),
                _ => Some("is not a string".to_owned()),
            };
            if let Some(problem) = problem {
                self.refuse_metadata(&name, problem);
            }
        }
        encoding
    }

    fn reserved(&mut self, name: &str, text: String) -> Result<(), String> {
        let message = &mut self.message;
        match name {
            "$subject" => message.subject = Some(text),
            "$key" => message.key = Some(text.into()),
            "$keyBase64" => {
                message.key = Some(BASE64.decode(text).map_err(|error| format!("is not base64: {error}"))?.into());
            }
            "$expiresAt" => message.expires_at_ms = Some(parse_time(&text)?),
            "$deliverAt" => message.deliver_at_ms = Some(parse_time(&text)?),
            "traceparent" => message.trace_parent = Some(text),
            "tracestate" => message.trace_state = Some(text),
            _ => return Err("is reserved".to_owned()),
        }
        Ok(())
    }

    /// `exact` is the text that `data` was parsed from.
    fn data(&mut self, data: Value, exact: &[u8], encoding: Encoding) {
        match (encoding, data) {
            (Encoding::Json, data) => {
                self.message.body = Body::with_json(Bytes::copy_from_slice(exact), Arc::new(data));
            }
            (Encoding::Text, Value::String(text)) => self.message.body = Body::from(text),
            (Encoding::Base64, Value::String(encoded)) => match BASE64.decode(encoded) {
                Ok(bytes) => self.message.body = Body::from(bytes),
                Err(error) => self.refuse("data", format!("is not base64, as `$dataEncoding` says: {error}")),
            },
            (Encoding::Text | Encoding::Base64, _) => self.refuse("data", "is not a string, as `$dataEncoding` says"),
        }
    }
}
