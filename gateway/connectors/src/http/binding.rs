//! The HTTP binding: from a request to messages. What the parts mean stands in the module documentation of `http`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use sluicegate_engine::message::{Body, Message, now_ms};

use super::attribute_headers::{self, PREFIX};
use super::config::{Format, KeyFrom};
use super::ingress::PathSettings;
use super::message_headers;
use super::problem::{PointedError, ProblemCode, ProblemDetails};
use crate::cloudevents::{self, BATCH_MEDIA_TYPE, DecodeError, EVENT_MEDIA_TYPE};
use crate::{envelope, json_text};

/// Headers of which one says that a request means to be a CloudEvent in binary mode.
const BINARY_MARKS: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// How far ahead a message's delivery time may be.
const LONGEST_DELAY_MS: u64 = 30 * 86_400_000;

/// How a request carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The body is the message's.
    Raw,
    /// CloudEvents, attributes in headers.
    Binary,
    /// CloudEvents, one JSON document.
    Structured,
    /// CloudEvents, a JSON array of them.
    Batch,
    /// The JSON envelope.
    Envelope,
}

/// Decides by the path's format and the request's headers.
///
/// # Errors
/// 400 for an impossible content type, 415 for one that is not accepted at this path.
pub(super) fn shape(format: Format, headers: &HeaderMap) -> Result<Shape, ProblemDetails> {
    let content_type = content_type(headers)?;
    let essence = content_type.as_deref().map(essence).unwrap_or_default();
    match format {
        Format::Raw => Ok(Shape::Raw),
        Format::Envelope if essence.is_empty() || json_text::is_json(&essence) => Ok(Shape::Envelope),
        Format::Envelope => Err(unsupported(&essence, "this path takes JSON envelopes: send `application/json`")),
        Format::Auto | Format::Cloudevents => {
            let marked = BINARY_MARKS.iter().any(|mark| headers.contains_key(*mark));
            match essence.as_str() {
                EVENT_MEDIA_TYPE => Ok(Shape::Structured),
                BATCH_MEDIA_TYPE => Ok(Shape::Batch),
                other if other.starts_with("application/cloudevents") => Err(unsupported(
                    other,
                    "CloudEvents are taken as `application/cloudevents+json`, `application/cloudevents-batch+json` or \
                     with their attributes in `ce-` headers",
                )),
                // Without any mark the missing attributes are reported one by one.
                _ if marked || format == Format::Cloudevents => Ok(Shape::Binary),
                _ => Ok(Shape::Raw),
            }
        }
    }
}

/// The messages of a request. May take milliseconds for bodies of megabytes.
///
/// # Errors
/// 400 with every mistake that was found, 413 for batches that are too large; never some of the messages only.
pub(super) fn messages(
    shape: Shape,
    settings: &PathSettings,
    headers: &HeaderMap,
    body: Bytes,
    max_batch_messages: usize,
) -> Result<Vec<Message>, ProblemDetails> {
    let mut messages = match shape {
        Shape::Raw => vec![raw(settings, headers, body)?],
        Shape::Binary => vec![binary(headers, body)?],
        Shape::Structured => vec![cloudevents::decode(&body).map_err(invalid_event)?],
        Shape::Batch => batch(&body, settings.max_body_bytes, max_batch_messages)?,
        Shape::Envelope => vec![envelope::decode(&body, &settings.pipeline).map_err(invalid_envelope)?],
    };
    check_delivery_times(shape, &messages)?;
    let transport = Transport::read(headers);
    for message in &mut messages {
        transport.fill(message);
        if message.key.is_none() {
            message.key = settings.key.as_ref().and_then(|from| key(from, headers, &message.body));
        }
    }
    Ok(messages)
}

/// What is to wait longer than anything may wait is refused while its sender can still be told.
fn check_delivery_times(shape: Shape, messages: &[Message]) -> Result<(), ProblemDetails> {
    let latest_ms = now_ms().saturating_add(LONGEST_DELAY_MS);
    let late = messages.iter().enumerate().filter(|(_, message)| message.deliver_at_ms > Some(latest_ms));
    let errors: Vec<PointedError> = late
        .map(|(index, _)| {
            let text = "is more than 30 days ahead";
            match shape {
                Shape::Raw | Shape::Binary => PointedError::in_header(format!("{PREFIX}deliverytime"), text),
                Shape::Structured => PointedError::in_body("/deliverytime", text),
                Shape::Batch => PointedError::in_body(format!("/{index}/deliverytime"), text),
                Shape::Envelope => PointedError::in_body("/metadata/$deliverAt", text),
            }
        })
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let code = match shape {
        Shape::Raw | Shape::Binary | Shape::Structured | Shape::Batch => ProblemCode::InvalidEvent,
        Shape::Envelope => ProblemCode::InvalidEnvelope,
    };
    let detail = "a message is held for 30 days at most; send it again with an earlier time, or closer to that time";
    Err(ProblemDetails::new(code, detail).with_errors(errors))
}

fn raw(settings: &PathSettings, headers: &HeaderMap, body: Bytes) -> Result<Message, ProblemDetails> {
    let mut message = Message::new(&*settings.pipeline, &settings.kind, body);
    message.content_type = content_type(headers)?;
    message.headers = message_headers::from_request(headers);
    Ok(message)
}

fn binary(headers: &HeaderMap, body: Bytes) -> Result<Message, ProblemDetails> {
    let draft = attribute_headers::read(headers, content_type(headers)?.as_deref());
    draft.finish(Body::from(body)).map_err(|error| {
        let errors = error.problems.into_iter().map(|problem| match problem.pointer.strip_prefix('/') {
            Some(attribute) => PointedError::in_header(format!("{PREFIX}{attribute}"), problem.text),
            None => PointedError::in_body("", problem.text),
        });
        ProblemDetails::new(
            ProblemCode::InvalidEvent,
            "the headers do not make a CloudEvent in binary mode; correct them all and send it again",
        )
        .with_errors(errors)
    })
}

fn batch(body: &[u8], max_body_bytes: usize, max_messages: usize) -> Result<Vec<Message>, ProblemDetails> {
    let messages = cloudevents::decode_batch(body, max_messages).map_err(|error| {
        let count = json_text::elements(body).len();
        if count <= max_messages {
            return invalid_event(error);
        }
        ProblemDetails::new(
            ProblemCode::BatchTooLarge,
            format!("the batch has {count} events; send at most {max_messages} in one request"),
        )
        .with("limitMessages", max_messages)
    })?;
    let oversized: Vec<_> = messages
        .iter()
        .enumerate()
        .filter(|(_, message)| message.body.len() > max_body_bytes)
        .map(|(index, message)| {
            PointedError::in_body(format!("/{index}/data"), format!("has {} bytes", message.body.len()))
        })
        .collect();
    if oversized.is_empty() {
        return Ok(messages);
    }
    let detail = format!("events of the batch have bodies larger than the {max_body_bytes} bytes allowed here");
    Err(ProblemDetails::new(ProblemCode::BodyTooLarge, detail)
        .with_errors(oversized)
        .with("limitBytes", max_body_bytes))
}

fn invalid_event(error: DecodeError) -> ProblemDetails {
    let detail = "the body is not a valid CloudEvent of version 1.0; correct all its mistakes and send it again";
    ProblemDetails::new(ProblemCode::InvalidEvent, detail).with_errors(in_body(error))
}

fn invalid_envelope(error: DecodeError) -> ProblemDetails {
    let detail = "the body is not a valid envelope; correct all its mistakes and send it again";
    ProblemDetails::new(ProblemCode::InvalidEnvelope, detail).with_errors(in_body(error))
}

fn in_body(error: DecodeError) -> impl Iterator<Item = PointedError> {
    error.problems.into_iter().map(|problem| PointedError::in_body(problem.pointer, problem.text))
}

fn unsupported(essence: &str, what_to_try: &str) -> ProblemDetails {
    let shown: String = essence.chars().take(100).collect();
    ProblemDetails::new(
        ProblemCode::UnsupportedMediaType,
        format!("the content type `{shown}` is not accepted here; {what_to_try}"),
    )
    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The content type with its parameters, as it came.
fn content_type(headers: &HeaderMap) -> Result<Option<String>, ProblemDetails> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = |text: &str| {
        ProblemDetails::new(ProblemCode::InvalidHeader, format!("the header `content-type` {text}; send one in ASCII"))
            .with_errors([PointedError::in_header("content-type", text)])
    };
    if values.next().is_some() {
        return Err(refused("comes more than once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refused("is not UTF-8"))?.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a request says about its messages beside the event itself; the event's own word counts more.
struct Transport {
    trace_parent: Option<String>,
    trace_state: Option<String>,
    correlation_id: Option<String>,
}

impl Transport {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
        let trace_parent = text("traceparent").filter(|text| is_trace_parent(text));
        Self {
            // The state means nothing without its parent (W3C Trace Context, 3.3).
            trace_state: trace_parent.and(text("tracestate")).map(str::to_owned),
            trace_parent: trace_parent.map(str::to_owned),
            correlation_id: text("x-correlation-id").map(str::to_owned),
        }
    }

    fn fill(&self, message: &mut Message) {
        if message.trace_parent.is_none() {
            message.trace_parent.clone_from(&self.trace_parent);
            message.trace_state.clone_from(&self.trace_state);
        }
        if message.correlation_id.is_none() {
            message.correlation_id.clone_from(&self.correlation_id);
        }
    }
}

/// W3C Trace Context, 3.2: `version-traceid-parentid-flags` in lower-case hex, neither id all zeros. Anything else is
/// ignored, as the recommendation says.
fn is_trace_parent(text: &str) -> bool {
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, len| hex(part, len) && part.bytes().any(|b| b != b'0');
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        ["ff", ..] => false,
        ["00", trace, parent, flags] => id(trace, 32) && id(parent, 16) && hex(flags, 2),
        [version, trace, parent, flags, ..] if *version != "00" => {
            hex(version, 2) && id(trace, 32) && id(parent, 16) && hex(flags, 2)
        }
        _ => false,
    }
}

/// The key, if what it is taken from is there.
fn key(from: &KeyFrom, headers: &HeaderMap, body: &Body) -> Option<Bytes> {
    match from {
        KeyFrom::Header(name) => headers.get(name.as_str()).map(|value| Bytes::copy_from_slice(value.as_bytes())),
        KeyFrom::Pointer(pointer) => match body.json().ok()?.pointer(pointer)? {
            Value::String(text) => Some(Bytes::from(text.clone())),
            Value::Number(number) => Some(Bytes::from(number.to_string())),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        },
    }
    .filter(|key| !key.is_empty())
}

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;
