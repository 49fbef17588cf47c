//! The stored form of a receipt.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluicegate_engine::failure::{FailureClass, Reason};
use sluicegate_engine::inbox::Waypoint;
use sluicegate_engine::receipt::{Event, Happening, Receipt, StepResult};

use super::Ending;
use crate::database::Value;

/// Most events of one receipt; of more, those in the middle are left out.
pub const MAX_EVENTS: usize = 200;

/// Longest text of an event, in characters; a dead letter has all of its error.
pub const MAX_TEXT_CHARS: usize = 1_000;

/// A receipt on its way to the store: without the message's body, which must not be kept in memory for it.
#[derive(Debug)]
pub(super) struct Kept {
    message_id: String,
    source: String,
    kind: String,
    correlation_id: Option<String>,
    key: Option<Bytes>,
    trace_id: Option<String>,
    body_bytes: u64,
    pipeline: Arc<str>,
    config_version: Arc<str>,
    ending: Ending,
    failures: u64,
    received_at_ms: u64,
    began_at_ms: u64,
    ended_at_ms: u64,
    events: Vec<Event>,
    left_out: usize,
    /// About how much it takes, in memory and on the disk.
    pub size_bytes: usize,
}

/// In the order of [`Kept::values`].
pub(super) const COLUMNS: [&str; 16] = [
    "message_id",
    "source",
    "kind",
    "correlation_id",
    "message_key",
    "trace_id",
    "body_bytes",
    "pipeline",
    "config_version",
    "settlement",
    "failures",
    "received_at_ms",
    "began_at_ms",
    "ended_at_ms",
    "events",
    "events_left_out",
];

impl Kept {
    pub fn new(receipt: Receipt) -> Self {
        let Receipt { message, mut events, .. } = receipt;
        let failures = events.iter().filter(|event| matches!(event.what, Happening::Failed { .. })).count();
        let left_out = events.len().saturating_sub(MAX_EVENTS);
        if left_out > 0 {
            events.drain(MAX_EVENTS / 2..MAX_EVENTS / 2 + left_out);
        }
        let mut size_bytes = size_of::<Self>() + events.len() * size_of::<Event>();
        for event in &mut events {
            if let Some(text) = text(&mut event.what) {
                cut(text);
                size_bytes += text.len();
            }
        }
        size_bytes += message.id.len() + message.source.len() + message.kind.len();
        size_bytes +=
            message.correlation_id.as_ref().map_or(0, String::len) + message.key.as_ref().map_or(0, Bytes::len);
        Self {
            message_id: message.id.clone(),
            source: message.source.clone(),
            kind: message.kind.clone(),
            correlation_id: message.correlation_id.clone(),
            // A copy: it may be a part of the buffer that the message was read from.
            key: message.key.as_deref().map(Bytes::copy_from_slice),
            trace_id: message.trace_id().map(str::to_owned),
            body_bytes: message.body.len() as u64,
            pipeline: receipt.pipeline,
            config_version: receipt.config_version,
            ending: receipt.settlement.into(),
            failures: failures as u64,
            received_at_ms: receipt.received_at_ms,
            began_at_ms: receipt.began_at_ms,
            ended_at_ms: receipt.ended_at_ms,
            events,
            left_out,
            size_bytes,
        }
    }

    /// A row of [`COLUMNS`].
    ///
    /// # Errors
    /// None that is known: every event has a JSON form.
    pub fn values(self) -> Result<[Value; COLUMNS.len()], serde_json::Error> {
        let events = encode(&self.events)?;
        Ok([
            self.message_id.into(),
            self.source.into(),
            self.kind.into(),
            self.correlation_id.into(),
            self.key.into(),
            self.trace_id.into(),
            self.body_bytes.into(),
            self.pipeline.into(),
            self.config_version.into(),
            self.ending.name().into(),
            self.failures.into(),
            self.received_at_ms.into(),
            self.began_at_ms.into(),
            self.ended_at_ms.into(),
            events.into(),
            (self.left_out as u64).into(),
        ])
    }
}

/// The text of an event that others than the gateway have written.
fn text(what: &mut Happening) -> Option<&mut String> {
    match what {
        Happening::Failed { error: text, .. }
        | Happening::DeadLettered { error: text, .. }
        | Happening::Parked { why: text, .. }
        | Happening::Step { result: StepResult::Dropped(Reason { text, .. }), .. } => Some(text),
        Happening::Step { result: StepResult::Passed | StepResult::Made { .. } | StepResult::Routed(_), .. }
        | Happening::Resumed { .. }
        | Happening::Delivered { .. } => None,
    }
}

fn cut(text: &mut String) {
    // Bytes are counted first: most texts are short, and this is on a message's way.
    if text.len() > MAX_TEXT_CHARS
        && let Some((at, _)) = text.char_indices().nth(MAX_TEXT_CHARS)
    {
        text.truncate(at);
        text.shrink_to_fit();
    }
}

/// Events as JSON.
pub(super) fn encode(events: &[Event]) -> Result<String, serde_json::Error> {
    let events: Vec<StoredEvent<'_>> = events.iter().map(StoredEvent::from).collect();
    serde_json::to_string(&events)
}

/// Events of that JSON.
///
/// # Errors
/// What makes no sense in it.
pub(super) fn decode(json: &str) -> Result<Vec<Event>, String> {
    let events: Vec<StoredEvent<'_>> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    events.into_iter().map(StoredEvent::into_event).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEvent<'a> {
    at_ms: u64,
    what: StoredHappening<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredHappening<'a> {
    Resumed { place: StoredWaypoint<'a>, attempt: u32 },
    Step { step: Cow<'a, str>, digest: Option<Cow<'a, str>>, result: StoredResult<'a> },
    Failed { place: Cow<'a, str>, attempt: u32, error: Cow<'a, str>, retry_after_ms: Option<u64> },
    Parked { place: StoredWaypoint<'a>, until_ms: u64, why: Cow<'a, str> },
    Delivered { target: Cow<'a, str> },
    DeadLettered { id: Cow<'a, str>, class: Cow<'a, str>, error: Cow<'a, str> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredWaypoint<'a> {
    Start,
    Step(Cow<'a, str>),
    Target(Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredResult<'a> {
    Passed,
    Made(usize),
    Dropped { code: Cow<'a, str>, text: Cow<'a, str> },
    Routed(Vec<Cow<'a, str>>),
}

impl<'a> From<&'a Event> for StoredEvent<'a> {
    fn from(event: &'a Event) -> Self {
        let what = match &event.what {
            Happening::Resumed { waypoint, attempt } => {
                StoredHappening::Resumed { place: waypoint.into(), attempt: *attempt }
            }
            Happening::Step { step, plugin_digest, result } => StoredHappening::Step {
                step: Cow::Borrowed(step),
                digest: plugin_digest.as_deref().map(Cow::Borrowed),
                result: result.into(),
            },
            Happening::Failed { place, attempt, error, retry_after } => StoredHappening::Failed {
                place: Cow::Borrowed(place),
                attempt: *attempt,
                error: Cow::Borrowed(error),
                retry_after_ms: retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            },
            Happening::Parked { waypoint, until_ms, why } => {
                StoredHappening::Parked { place: waypoint.into(), until_ms: *until_ms, why: Cow::Borrowed(why) }
            }
            Happening::Delivered { target } => StoredHappening::Delivered { target: Cow::Borrowed(target) },
            Happening::DeadLettered { id, class, error } => StoredHappening::DeadLettered {
                id: Cow::Borrowed(id),
                class: Cow::Borrowed(class.name()),
                error: Cow::Borrowed(error),
            },
        };
        Self { at_ms: event.at_ms, what }
    }
}

impl StoredEvent<'_> {
    fn into_event(self) -> Result<Event, String> {
        let what = match self.what {
            StoredHappening::Resumed { place, attempt } => Happening::Resumed { waypoint: place.into(), attempt },
            StoredHappening::Step { step, digest, result } => {
                Happening::Step { step: step.into(), plugin_digest: digest.map(Arc::from), result: result.into() }
            }
            StoredHappening::Failed { place, attempt, error, retry_after_ms } => Happening::Failed {
                place: place.into(),
                attempt,
                error: error.into_owned(),
                retry_after: retry_after_ms.map(Duration::from_millis),
            },
            StoredHappening::Parked { place, until_ms, why } => {
                Happening::Parked { waypoint: place.into(), until_ms, why: why.into_owned() }
            }
            StoredHappening::Delivered { target } => Happening::Delivered { target: target.into() },
            StoredHappening::DeadLettered { id, class, error } => Happening::DeadLettered {
                id: id.into_owned(),
                class: FailureClass::from_name(&class)
                    .ok_or_else(|| format!("`{class}` is not a class of failures"))?,
                error: error.into_owned(),
            },
        };
        Ok(Event { at_ms: self.at_ms, what })
    }
}

impl<'a> From<&'a Waypoint> for StoredWaypoint<'a> {
    fn from(waypoint: &'a Waypoint) -> Self {
        match waypoint {
            Waypoint::Start => Self::Start,
            Waypoint::Step(name) => Self::Step(Cow::Borrowed(name)),
            Waypoint::Target(name) => Self::Target(Cow::Borrowed(name)),
        }
    }
}

impl From<StoredWaypoint<'_>> for Waypoint {
    fn from(stored: StoredWaypoint<'_>) -> Self {
        match stored {
            StoredWaypoint::Start => Self::Start,
            StoredWaypoint::Step(name) => Self::Step(name.into()),
            StoredWaypoint::Target(name) => Self::Target(name.into()),
        }
    }
}

impl<'a> From<&'a StepResult> for StoredResult<'a> {
    fn from(result: &'a StepResult) -> Self {
        match result {
            StepResult::Passed => Self::Passed,
            StepResult::Made { messages } => Self::Made(*messages),
            StepResult::Dropped(Reason { code, text }) => {
                Self::Dropped { code: Cow::Borrowed(code), text: Cow::Borrowed(text) }
            }
            StepResult::Routed(targets) => Self::Routed(targets.iter().map(|name| Cow::Borrowed(&**name)).collect()),
        }
    }
}

impl From<StoredResult<'_>> for StepResult {
    fn from(stored: StoredResult<'_>) -> Self {
        match stored {
            StoredResult::Passed => Self::Passed,
            StoredResult::Made(messages) => Self::Made { messages },
            StoredResult::Dropped { code, text } => Self::Dropped(Reason::new(code, text)),
            StoredResult::Routed(targets) => Self::Routed(targets.into_iter().map(Arc::from).collect()),
        }
    }
}
