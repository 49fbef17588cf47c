//! The dead letter as JSON, for programs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Value;
use sluicegate_engine::dead_letter::Attempt;
use sluicegate_engine::failure::SchemaError;
use sluicegate_engine::message::{Body, Headers, Message};
use sluicegate_store::StoreError;
use sluicegate_store::dead_letter::{KeptEdit, KeptLetter, Summary};

use super::text::time;

/// A line of `dlq list --json`.
#[derive(Serialize)]
pub(super) struct ListedLetter<'a> {
    id: &'a str,
    failed_at: String,
    pipeline: &'a str,
    step: Option<&'a str>,
    target: Option<&'a str>,
    class: &'static str,
    /// At most [`MAX_SUMMARY_ERROR_CHARS`](sluicegate_store::dead_letter::MAX_SUMMARY_ERROR_CHARS).
    error: &'a str,
    plugin: Option<&'a str>,
    attempts: u32,
    redrive_count: u32,
    message_id: &'a str,
    message_type: &'a str,
    body_bytes: u64,
    trace_id: Option<&'a str>,
}

impl<'a> From<&'a Summary> for ListedLetter<'a> {
    fn from(letter: &'a Summary) -> Self {
        Self {
            id: &letter.id,
            failed_at: time(letter.failed_at_ms, 3),
            pipeline: &letter.pipeline,
            step: letter.step.as_deref(),
            target: letter.target.as_deref(),
            class: letter.class.name(),
            error: &letter.error,
            plugin: letter.plugin.as_deref(),
            attempts: letter.attempts,
            redrive_count: letter.redrive_count,
            message_id: &letter.message_id,
            message_type: &letter.message_kind,
            body_bytes: letter.body_bytes,
            trace_id: letter.trace_id.as_deref(),
        }
    }
}

/// All of `dlq show --json`.
#[derive(Serialize)]
pub(super) struct LetterRecord<'a> {
    id: &'a str,
    failed_at: String,
    pipeline: &'a str,
    config_version: &'a str,
    step: Option<&'a str>,
    target: Option<&'a str>,
    class: &'static str,
    error: &'a str,
    schema_errors: Vec<ShownSchemaError<'a>>,
    plugin: Option<&'a str>,
    plugin_digest: Option<&'a str>,
    backtrace: &'a [String],
    attempts: Vec<ShownAttempt<'a>>,
    trace_id: Option<&'a str>,
    redrive_count: u32,
    original: ShownMessage<'a>,
    /// Null when it was as received.
    at_failure: Option<ShownMessage<'a>>,
    /// Why the bodies are not shown, if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    bodies_hidden: Option<String>,
    cause: &'a str,
    being_redriven: bool,
    /// Null when nobody has edited it.
    edit: Option<ShownEdit<'a>>,
}

#[derive(Serialize)]
struct ShownEdit<'a> {
    at: String,
    by: &'a str,
    body: Option<Content<'a>>,
    headers: Option<Vec<ShownHeader<'a>>>,
}

#[derive(Serialize)]
struct ShownSchemaError<'a> {
    pointer: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct ShownAttempt<'a> {
    number: u32,
    at: String,
    error: &'a str,
}

#[derive(Serialize)]
struct ShownMessage<'a> {
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    subject: Option<&'a str>,
    time: String,
    content_type: Option<&'a str>,
    key: Option<Content<'a>>,
    headers: Vec<ShownHeader<'a>>,
    attempt: u32,
    expires_at: Option<String>,
    deliver_at: Option<String>,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
    correlation_id: Option<&'a str>,
    /// Null when it is not known, because the body cannot be read.
    body_bytes: Option<u64>,
    /// Null when it cannot be read.
    body: Option<Content<'a>>,
}

#[derive(Serialize)]
struct ShownHeader<'a> {
    name: &'a str,
    value: Content<'a>,
}

/// Bytes in the most readable form that loses none of them.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content<'a> {
    /// JSON whose compact text is exactly the bytes.
    Json(&'a Value),
    /// UTF-8.
    Text(&'a str),
    /// Everything else.
    Base64(String),
}

impl<'a> From<&'a [u8]> for Content<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Base64(BASE64.encode(bytes)), Self::Text)
    }
}

impl<'a> From<&'a Body> for Content<'a> {
    fn from(body: &'a Body) -> Self {
        match body.json() {
            Ok(value) if value.to_string().as_bytes() == &body.bytes()[..] => Self::Json(value),
            Ok(_) | Err(_) => Self::from(&body.bytes()[..]),
        }
    }
}

impl<'a> LetterRecord<'a> {
    /// `hidden`: why its bodies cannot be read; the original one has `body_bytes`.
    pub fn new(kept: &'a KeptLetter, hidden: Option<&StoreError>, body_bytes: u64) -> Self {
        let mut record = Self::from(kept);
        if let Some(hidden) = hidden {
            record.bodies_hidden = Some(hidden.to_string());
            record.original = record.original.without_body(Some(body_bytes));
            record.at_failure = record.at_failure.map(|message| message.without_body(None));
            record.edit = record.edit.map(|edit| ShownEdit { body: None, ..edit });
        }
        record
    }
}

impl<'a> From<&'a KeptLetter> for LetterRecord<'a> {
    fn from(kept: &'a KeptLetter) -> Self {
        let letter = &kept.letter;
        Self {
            bodies_hidden: None,
            cause: &kept.cause,
            being_redriven: kept.is_being_redriven,
            edit: kept.edit.as_ref().map(ShownEdit::from),
            id: &letter.id,
            failed_at: time(letter.failed_at_ms, 3),
            pipeline: &letter.pipeline,
            config_version: &letter.config_version,
            step: letter.step.as_deref(),
            target: letter.target.as_deref(),
            class: letter.class.name(),
            error: &letter.error,
            schema_errors: letter.schema_errors.iter().map(ShownSchemaError::from).collect(),
            plugin: letter.plugin.as_deref(),
            plugin_digest: letter.plugin_digest.as_deref(),
            backtrace: &letter.backtrace,
            attempts: letter.attempts.iter().map(ShownAttempt::from).collect(),
            trace_id: letter.trace_id.as_deref(),
            redrive_count: letter.redrive_count,
            original: ShownMessage::from(&*letter.original),
            at_failure: (letter.at_failure != letter.original).then(|| ShownMessage::from(&*letter.at_failure)),
        }
    }
}

impl<'a> From<&'a KeptEdit> for ShownEdit<'a> {
    fn from(kept: &'a KeptEdit) -> Self {
        let headers = |headers: &'a Headers| headers.iter().map(ShownHeader::from).collect();
        Self {
            at: time(kept.at_ms, 3),
            by: &kept.by,
            body: kept.edit.body.as_deref().map(Content::from),
            headers: kept.edit.headers.as_ref().map(headers),
        }
    }
}

impl<'a> From<(&'a str, &'a bytes::Bytes)> for ShownHeader<'a> {
    fn from((name, value): (&'a str, &'a bytes::Bytes)) -> Self {
        Self { name, value: Content::from(&value[..]) }
    }
}

impl<'a> From<&'a SchemaError> for ShownSchemaError<'a> {
    fn from(error: &'a SchemaError) -> Self {
        Self { pointer: &error.pointer, error: &error.text }
    }
}

impl<'a> From<&'a Attempt> for ShownAttempt<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        Self { number: attempt.number, at: time(attempt.at_ms, 3), error: &attempt.error }
    }
}

impl ShownMessage<'_> {
    fn without_body(self, body_bytes: Option<u64>) -> Self {
        Self { body_bytes, body: None, ..self }
    }
}

impl<'a> From<&'a Message> for ShownMessage<'a> {
    fn from(message: &'a Message) -> Self {
        Self {
            id: &message.id,
            source: &message.source,
            r#type: &message.kind,
            subject: message.subject.as_deref(),
            time: time(message.time_ms, 3),
            content_type: message.content_type.as_deref(),
            key: message.key.as_deref().map(Content::from),
            headers: message.headers.iter().map(ShownHeader::from).collect(),
            attempt: message.attempt,
            expires_at: message.expires_at_ms.map(|ms| time(ms, 3)),
            deliver_at: message.deliver_at_ms.map(|ms| time(ms, 3)),
            traceparent: message.trace_parent.as_deref(),
            tracestate: message.trace_state.as_deref(),
            correlation_id: message.correlation_id.as_deref(),
            body_bytes: Some(message.body.len() as u64),
            body: Some(Content::from(&message.body)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_only_where_that_keeps_every_byte() {
        let compact = Body::from(&br#"{"b":1,"a":[true,null]}"#[..]);
        assert!(matches!(Content::from(&compact), Content::Json(_)));
        for kept_as_text in [r#"{ "a": 1 }"#, r#"{"a":1,"a":2}"#, r#"{"a":1.0e2}"#, "plain", ""] {
            let body = Body::from(kept_as_text.as_bytes());
            assert_eq!(Content::from(&body), Content::Text(kept_as_text));
        }
        let binary = Body::from(&[0xff_u8, 0x00][..]);
        assert_eq!(Content::from(&binary), Content::Base64("/wA=".to_owned()));
    }
}
