//! Traces as JSON, for the API and for `--json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use sluicegate_engine::failure::Reason;
use sluicegate_engine::inbox::Waypoint;
use sluicegate_engine::receipt::{Happening, StepResult};
use sluicegate_store::dead_letter::Summary as Letter;
use sluicegate_store::receipt::{Summary, Tally};

use super::{Moment, Trace, Waiting, What};
use crate::command::dlq::text::time;

/// RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(milliseconds: u64) -> String {
    time(milliseconds, 3)
}

/// `GET /api/v1/messages/{id}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownTrace<'a> {
    id: &'a str,
    /// `delivered`, `dropped`, `parked`, `dead_lettered`, `postponed` or `requeued`.
    status: &'static str,
    source: Option<&'a str>,
    r#type: Option<&'a str>,
    correlation_id: Option<&'a str>,
    key: Option<String>,
    /// Instead of `key` when that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    trace_id: Option<&'a str>,
    body_bytes: Option<u64>,
    failures: u64,
    waiting: Vec<ShownWaiting<'a>>,
    events: Vec<ShownEvent<'a>>,
    /// Whether the beginning is missing because there was too much.
    is_cut: bool,
    dead_letters: Vec<ShownLetter<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownWaiting<'a> {
    pipeline: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
    /// Null when it waits for its target or for messages before it.
    until: Option<String>,
    why: &'a str,
}

#[derive(Debug, Default, Serialize)]
struct Place<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// One event; members that say nothing of it are left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownEvent<'a> {
    at: String,
    pipeline: &'a str,
    event: &'static str,
    #[serde(flatten)]
    place: Place<'a>,
    /// Of a failure: the step or target.
    #[serde(rename = "failedAt", skip_serializing_if = "Option::is_none")]
    failed_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin_digest: Option<&'a str>,
    /// Of a step: `passed`, `made`, `dropped` or `routed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    targets: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ShownReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ShownReason<'a> {
    code: &'a str,
    text: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLetter<'a> {
    id: &'a str,
    failed_at: String,
    pipeline: &'a str,
    #[serde(flatten)]
    place: Place<'a>,
    class: &'static str,
    error: &'a str,
    attempts: u32,
    redrive_count: u32,
}

/// A line of `GET /api/v1/messages`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundReceipt<'a> {
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    correlation_id: Option<&'a str>,
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    trace_id: Option<&'a str>,
    body_bytes: u64,
    pipeline: &'a str,
    config_version: &'a str,
    settlement: &'static str,
    failures: u64,
    received_at: String,
    began_at: String,
    ended_at: String,
}

/// A line of `GET /api/v1/message-statistics`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownTally<'a> {
    pipeline: &'a str,
    settlement: &'static str,
    receipts: u64,
    failures: u64,
}

impl<'a> From<&'a Trace> for ShownTrace<'a> {
    fn from(trace: &'a Trace) -> Self {
        let last = trace.trail.stretches.last().map(|stretch| &stretch.summary);
        let (key, key_base64) = last.map_or((None, None), |summary| shown_key(summary.key.as_deref()));
        Self {
            id: &trace.id,
            status: trace.status().name(),
            source: last.map(|summary| &*summary.source),
            r#type: last.map(|summary| &*summary.kind).or(trace.letters.last().map(|letter| &*letter.message_kind)),
            correlation_id: last.and_then(|summary| summary.correlation_id.as_deref()),
            key,
            key_base64,
            trace_id: last.and_then(|summary| summary.trace_id.as_deref()),
            body_bytes: last.map(|summary| summary.body_bytes).or(trace.letters.last().map(|letter| letter.body_bytes)),
            failures: trace.trail.stretches.iter().map(|stretch| stretch.summary.failures).sum(),
            waiting: trace.waiting().into_iter().map(ShownWaiting::from).collect(),
            events: trace.moments().into_iter().map(ShownEvent::from).collect(),
            is_cut: trace.trail.is_cut,
            dead_letters: trace.letters.iter().map(ShownLetter::from).collect(),
        }
    }
}

fn shown_key(key: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match key.map(|key| (key, std::str::from_utf8(key))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text.to_owned()), None),
        Some((key, Err(_))) => (None, Some(BASE64.encode(key))),
    }
}

/// 0 stands for no time.
fn until(milliseconds: u64) -> Option<String> {
    (milliseconds > 0).then(|| rfc3339(milliseconds))
}

impl<'a> From<&'a Waypoint> for Place<'a> {
    fn from(waypoint: &'a Waypoint) -> Self {
        match waypoint {
            Waypoint::Start => Self::default(),
            Waypoint::Step(name) => Self { step: Some(name), target: None },
            Waypoint::Target(name) => Self { step: None, target: Some(name) },
        }
    }
}

impl<'a> From<Waiting<'a>> for ShownWaiting<'a> {
    fn from(waiting: Waiting<'a>) -> Self {
        let Waiting { pipeline, waypoint, until_ms, why } = waiting;
        Self { pipeline, place: waypoint.into(), until: until(until_ms), why }
    }
}

impl<'a> From<Moment<'a>> for ShownEvent<'a> {
    fn from(moment: Moment<'a>) -> Self {
        let base = Self { at: rfc3339(moment.at_ms), pipeline: moment.pipeline, ..Self::default() };
        match moment.what {
            What::Accepted => Self { event: "accepted", ..base },
            What::GivenBack => Self { event: "given_back", ..base },
            What::Postponed => Self { event: "postponed", ..base },
            What::LeftOut(events) => Self { event: "left_out", events: Some(events), ..base },
            What::Noted(Happening::Resumed { waypoint, attempt }) => {
                Self { event: "resumed", place: waypoint.into(), attempt: Some(*attempt), ..base }
            }
            What::Noted(Happening::Step { step, plugin_digest, result }) => {
                let place = Place { step: Some(step), target: None };
                let base = Self { event: "step", place, plugin_digest: plugin_digest.as_deref(), ..base };
                match result {
                    StepResult::Passed => Self { result: Some("passed"), ..base },
                    StepResult::Made { messages } => Self { result: Some("made"), messages: Some(*messages), ..base },
                    StepResult::Dropped(Reason { code, text }) => {
                        Self { result: Some("dropped"), reason: Some(ShownReason { code, text }), ..base }
                    }
                    StepResult::Routed(targets) => {
                        let targets = targets.iter().map(|target| &**target).collect();
                        Self { result: Some("routed"), targets: Some(targets), ..base }
                    }
                }
            }
            What::Noted(Happening::Failed { place, attempt, error, retry_after }) => Self {
                event: "failed",
                failed_at: Some(place),
                attempt: Some(*attempt),
                error: Some(error),
                retry_after_ms: retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                ..base
            },
            What::Noted(Happening::Parked { waypoint, until_ms, why }) => {
                Self { event: "parked", place: waypoint.into(), until: until(*until_ms), why: Some(why), ..base }
            }
            What::Noted(Happening::Delivered { target }) => {
                Self { event: "delivered", place: Place { step: None, target: Some(target) }, ..base }
            }
            What::Noted(Happening::DeadLettered { id, class, error }) => Self {
                event: "dead_lettered",
                dead_letter: Some(id),
                class: Some(class.name()),
                error: Some(error),
                ..base
            },
        }
    }
}

impl<'a> From<&'a Letter> for ShownLetter<'a> {
    fn from(letter: &'a Letter) -> Self {
        Self {
            id: &letter.id,
            failed_at: rfc3339(letter.failed_at_ms),
            pipeline: &letter.pipeline,
            place: Place { step: letter.step.as_deref(), target: letter.target.as_deref() },
            class: letter.class.name(),
            error: &letter.error,
            attempts: letter.attempts,
            redrive_count: letter.redrive_count,
        }
    }
}

impl<'a> From<&'a Summary> for FoundReceipt<'a> {
    fn from(summary: &'a Summary) -> Self {
        let (key, key_base64) = shown_key(summary.key.as_deref());
        Self {
            id: &summary.message_id,
            source: &summary.source,
            r#type: &summary.kind,
            correlation_id: summary.correlation_id.as_deref(),
            key,
            key_base64,
            trace_id: summary.trace_id.as_deref(),
            body_bytes: summary.body_bytes,
            pipeline: &summary.pipeline,
            config_version: &summary.config_version,
            settlement: summary.ending.name(),
            failures: summary.failures,
            received_at: rfc3339(summary.received_at_ms),
            began_at: rfc3339(summary.began_at_ms),
            ended_at: rfc3339(summary.ended_at_ms),
        }
    }
}

impl<'a> From<&'a Tally> for ShownTally<'a> {
    fn from(tally: &'a Tally) -> Self {
        Self {
            pipeline: &tally.pipeline,
            settlement: tally.ending.name(),
            receipts: tally.receipts,
            failures: tally.failures,
        }
    }
}
