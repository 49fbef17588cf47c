//! Queues as JSON: their properties as they are asked for, and all of them as they are shown.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_store::queue::{AtLimit, Compression, Kind, Retention, Settings};

use super::error::{ApiCode, ApiError};
use crate::queues::{Backend, KeptQueue, Place};

/// Properties of a queue. What is left out stays as it is (for a new queue: has its default); `null` sets the default, and
/// takes away a limit (`maxBytes`, `maxMessages`, `ttlMs`).
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct QueueForm {
    pub name: Option<String>,
    /// The one that was read; a queue that has been changed since is not changed again.
    pub revision: Option<u64>,
    kind: Option<Kind>,
    retention: Option<RetentionForm>,
    #[serde(deserialize_with = "given")]
    max_message_bytes: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    compression: Option<Option<Compression>>,
    #[serde(deserialize_with = "given")]
    ttl_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    delay_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    pub schema: Option<Option<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct RetentionForm {
    #[serde(deserialize_with = "given")]
    max_age_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    max_bytes: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    max_messages: Option<Option<u64>>,
    #[serde(deserialize_with = "given")]
    at_limit: Option<Option<AtLimit>>,
}

/// Tells `null` from what is left out.
pub(super) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl QueueForm {
    /// `before`, changed as asked for; `default` is what a new queue is like.
    ///
    /// # Errors
    /// Everything that is outside its limits.
    pub fn apply_to(&self, before: &Settings, default: &Settings) -> Result<Settings, ApiError> {
        let mut settings = before.clone();
        if let Some(kind) = self.kind {
            settings.kind = kind;
        }
        if let Some(form) = &self.retention {
            let retention = &mut settings.retention;
            let max_age = form.max_age_ms.map(|age| age.map_or(default.retention.max_age, Duration::from_millis));
            set(&mut retention.max_age, max_age);
            set(&mut retention.max_bytes, form.max_bytes);
            set(&mut retention.max_messages, form.max_messages);
            set(&mut retention.at_limit, form.at_limit.map(Option::unwrap_or_default));
        }
        set(&mut settings.max_message_bytes, self.max_message_bytes.map(|n| n.unwrap_or(default.max_message_bytes)));
        set(&mut settings.compression, self.compression.map(Option::unwrap_or_default));
        set(&mut settings.ttl, self.ttl_ms.map(|ttl| ttl.map(Duration::from_millis)));
        set(&mut settings.delay, self.delay_ms.map(|delay| delay.map(Duration::from_millis)));
        set(&mut settings.schema, self.schema.clone());
        let problems = settings.problems();
        if problems.is_empty() {
            return Ok(settings);
        }
        let listed: Vec<(&str, String)> = problems.into_iter().map(|(what, text)| (member(what), text)).collect();
        let text: Vec<String> = listed.iter().map(|(member, text)| format!("`{member}`: {text}")).collect();
        let errors: Vec<Value> =
            listed.iter().map(|(member, text)| json!({ "member": member, "text": text })).collect();
        Err(ApiError::new(ApiCode::InvalidRequest, format!("the queue cannot be like that: {}", text.join("; ")))
            .with_details(json!({ "errors": errors })))
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// What the API calls a property of the configuration.
fn member(property: &str) -> &str {
    match property {
        "retention.max_age" => "retention.maxAgeMs",
        "retention.max_bytes" => "retention.maxBytes",
        "retention.max_messages" => "retention.maxMessages",
        "max_message" => "maxMessageBytes",
        "ttl" => "ttlMs",
        "delay" => "delayMs",
        same => same,
    }
}

/// All of a queue.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownQueue<'a> {
    name: &'a str,
    backend: &'static str,
    /// Why what it holds is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unavailable: Option<&'a str>,
    kind: &'static str,
    retention: ShownRetention,
    max_message_bytes: Option<u64>,
    compression: &'static str,
    ttl_ms: Option<u64>,
    delay_ms: Option<u64>,
    schema: Option<&'a str>,
    revision: Option<u64>,
    created_at: Option<String>,
    updated_at: Option<String>,
    messages: Option<u64>,
    bytes: Option<u64>,
    scheduled: Option<u64>,
    groups: Option<u64>,
    last_offset: Option<Place>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownRetention {
    max_age_ms: Option<u64>,
    max_bytes: Option<u64>,
    max_messages: Option<u64>,
    at_limit: &'static str,
}

impl<'a> From<&'a KeptQueue> for ShownQueue<'a> {
    fn from(queue: &'a KeptQueue) -> Self {
        let Settings { kind, retention, max_message_bytes, compression, ttl, delay, schema } = &queue.settings;
        let Retention { max_age, max_bytes, max_messages, at_limit } = *retention;
        // A Redis Stream has no such limits.
        let in_store = |limit: u64| match queue.backend {
            Backend::Store => Some(limit),
            Backend::Redis => None,
        };
        let retention = ShownRetention {
            max_age_ms: in_store(millis(max_age)),
            max_bytes,
            max_messages,
            at_limit: at_limit.name(),
        };
        let known = |count| queue.unavailable.is_none().then_some(count);
        Self {
            name: &queue.name,
            backend: queue.backend.name(),
            unavailable: queue.unavailable.as_deref(),
            kind: kind.name(),
            retention,
            max_message_bytes: in_store(*max_message_bytes),
            compression: compression.name(),
            ttl_ms: ttl.map(millis),
            delay_ms: delay.map(millis),
            schema: schema.as_deref(),
            revision: queue.revision,
            created_at: queue.created_at_ms.map(print_time),
            updated_at: queue.updated_at_ms.map(print_time),
            messages: known(queue.messages),
            bytes: queue.bytes,
            scheduled: known(queue.scheduled),
            groups: known(queue.groups),
            last_offset: queue.last_place,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(value: Value) -> QueueForm {
        serde_json::from_value(value).expect("a form")
    }

    #[test]
    fn what_is_left_out_stays_and_null_is_the_default() {
        let before = Settings { ttl: Some(Duration::from_secs(5)), max_message_bytes: 7, ..Settings::default() };
        let after = form(json!({ "retention": { "maxMessages": 10 } }))
            .apply_to(&before, &Settings::default())
            .expect("settings");
        assert_eq!((after.ttl, after.max_message_bytes), (before.ttl, 7));
        assert_eq!(after.retention.max_messages, Some(10));
        let cleared = form(json!({ "ttlMs": null, "maxMessageBytes": null, "retention": { "maxMessages": null } }));
        let cleared = cleared.apply_to(&after, &Settings::default()).expect("settings");
        assert_eq!(cleared.retention.max_messages, None, "as it is shown");
        assert_eq!((cleared.ttl, cleared.max_message_bytes), (None, Settings::default().max_message_bytes));
    }

    #[test]
    fn every_mistake_is_told_under_the_name_the_client_used() {
        let wrong = form(json!({ "ttlMs": 1, "delayMs": 5, "maxMessageBytes": 0, "retention": { "maxAgeMs": 0 } }));
        let text = format!("{:?}", wrong.apply_to(&Settings::default(), &Settings::default()).expect_err("mistakes"));
        for member in ["`ttlMs`", "`delayMs`", "`maxMessageBytes`", "`retention.maxAgeMs`"] {
            assert!(text.contains(member), "{text}");
        }
    }
}
