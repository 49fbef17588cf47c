//! Dead letters as JSON for clients.

use jiff::Timestamp;
use serde_json::{Value, json};
use sluicegate_engine::message::{Body, Headers, Message};
use sluicegate_store::dead_letter::{Group, KeptEdit, KeptLetter, Summary};

use crate::command::dlq::Content;

/// RFC 3339 in UTC, with milliseconds.
pub(super) fn time(milliseconds: u64) -> Value {
    let time = i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or(Value::Null, |time| format!("{time:.3}").into())
}

pub(super) fn summary(letter: &Summary) -> Value {
    json!({
        "id": letter.id,
        "failedAt": time(letter.failed_at_ms),
        "pipeline": letter.pipeline,
        "step": letter.step,
        "target": letter.target,
        "class": letter.class.name(),
        "error": letter.error,
        "cause": letter.cause,
        "plugin": letter.plugin,
        "pluginDigest": letter.plugin_digest,
        "attempts": letter.attempts,
        "redriveCount": letter.redrive_count,
        "edited": letter.is_edited,
        "messageId": letter.message_id,
        "messageType": letter.message_kind,
        "bodyBytes": letter.body_bytes,
        "traceId": letter.trace_id,
    })
}

pub(super) fn group(group: &Group) -> Value {
    json!({
        "cause": group.cause,
        "count": group.count,
        "firstAt": time(group.first_at_ms),
        "lastAt": time(group.last_at_ms),
        "pipeline": group.pipeline,
        "step": group.step,
        "target": group.target,
        "class": group.class.name(),
        "plugin": group.plugin,
        "pluginDigest": group.plugin_digest,
        "error": group.error,
        "sample": group.sample,
    })
}

pub(super) fn letter(kept: &KeptLetter) -> Value {
    let letter = &kept.letter;
    let schema_errors = letter.schema_errors.iter().map(|e| json!({ "pointer": e.pointer, "error": e.text }));
    let attempts = letter.attempts.iter().map(|a| json!({ "number": a.number, "at": time(a.at_ms), "error": a.error }));
    json!({
        "id": letter.id,
        "failedAt": time(letter.failed_at_ms),
        "pipeline": *letter.pipeline,
        "configVersion": *letter.config_version,
        "step": letter.step.as_deref(),
        "target": letter.target.as_deref(),
        "class": letter.class.name(),
        "error": letter.error,
        "cause": kept.cause,
        "schemaErrors": schema_errors.collect::<Vec<_>>(),
        "plugin": letter.plugin,
        "pluginDigest": letter.plugin_digest,
        "backtrace": letter.backtrace,
        "attempts": attempts.collect::<Vec<_>>(),
        "traceId": letter.trace_id,
        "redriveCount": letter.redrive_count,
        "beingRedriven": kept.is_being_redriven,
        "original": message(&letter.original),
        // Null when it was as received.
        "atFailure": (letter.at_failure != letter.original).then(|| message(&letter.at_failure)),
        "edit": kept.edit.as_ref().map(edit),
    })
}

fn edit(kept: &KeptEdit) -> Value {
    let body = kept.edit.body.clone().map(Body::from);
    json!({
        "at": time(kept.at_ms),
        "by": kept.by,
        "body": body.as_ref().map(Content::from),
        "headers": kept.edit.headers.as_ref().map(headers),
    })
}

fn headers(headers: &Headers) -> Value {
    let header = |(name, value): (&str, &bytes::Bytes)| json!({ "name": name, "value": Content::from(&value[..]) });
    headers.iter().map(header).collect()
}

fn message(message: &Message) -> Value {
    json!({
        "id": message.id,
        "source": message.source,
        "type": message.kind,
        "subject": message.subject,
        "time": time(message.time_ms),
        "contentType": message.content_type,
        "key": message.key.as_deref().map(Content::from),
        "headers": headers(&message.headers),
        "attempt": message.attempt,
        "expiresAt": message.expires_at_ms.map(time),
        "deliverAt": message.deliver_at_ms.map(time),
        "traceparent": message.trace_parent,
        "tracestate": message.trace_state,
        "correlationId": message.correlation_id,
        "bodyBytes": message.body.len(),
        "body": Content::from(&message.body),
    })
}
