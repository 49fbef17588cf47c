//! Subscriptions (requirement B4) and routes (E3) as pipelines: both are a pipeline on a queue, in other words.

use serde_json::{Map, Value, json};
use sluicegate_store::resource::ResourceKind;

/// Pipelines of subscriptions and routes are called so, and no others may be.
pub const RESERVED_PREFIXES: [&str; 2] = ["subscription-", "route-"];

/// Name and text of the pipeline that a resource stands for. What cannot be translated stays as it is, and the mistakes in
/// it are told when it is resolved.
pub fn translate(kind: ResourceKind, name: &str, document: String) -> (String, String) {
    let (pipeline, translated) = match kind {
        ResourceKind::Pipeline | ResourceKind::Schema => return (name.to_owned(), document),
        ResourceKind::Subscription => (format!("subscription-{name}"), of_json(&document, subscription)),
        ResourceKind::Route => (format!("route-{name}"), of_json(&document, route)),
    };
    (pipeline.clone(), translated.map_or(document, |translated| format!("{:#}", with_group(translated, &pipeline))))
}

fn of_json(document: &str, translation: fn(&Map<String, Value>) -> Value) -> Option<Value> {
    let value: Value = serde_json::from_str(document).ok()?;
    value.as_object().map(translation)
}

/// Each subscription and each route reads its queue in a group of its own.
fn with_group(mut pipeline: Value, name: &str) -> Value {
    if let Some(queue) = pipeline.pointer_mut("/source/queue").and_then(Value::as_object_mut) {
        queue.insert("group".to_owned(), name.into());
    }
    pipeline
}

/// `queue`, `offsetReset`, `filter`, `transform`, `target`, `maxRetries`, `retryDelay`, `maxRetryDelay`, `batchSize`,
/// `processingTimeout`.
fn subscription(form: &Map<String, Value>) -> Value {
    let mut pipeline = on_queue(form);
    pipeline["source"]["queue"]["start"] = form.get("offsetReset").cloned().unwrap_or_else(|| json!("earliest"));
    pipeline["steps"] = steps(form);
    pipeline["targets"] = json!({ "target": target(form.get("target")) });
    let mut retry = Map::new();
    if let Some(retries) = form.get("maxRetries").and_then(Value::as_u64) {
        retry.insert("max_attempts".to_owned(), retries.saturating_add(1).into());
    }
    for (theirs, ours) in [("retryDelay", "initial_delay"), ("maxRetryDelay", "max_delay")] {
        if let Some(delay) = form.get(theirs) {
            retry.insert(ours.to_owned(), delay.clone());
        }
    }
    pipeline["retry"] = Value::Object(retry);
    for (theirs, ours) in [("batchSize", "max_in_flight"), ("processingTimeout", "handler_timeout")] {
        if let Some(value) = form.get(theirs) {
            pipeline[ours] = value.clone();
        }
    }
    pipeline
}

/// `queue`, `condition` (a jq program), `filter`, `transform`, `destination`.
fn route(form: &Map<String, Value>) -> Value {
    let mut pipeline = on_queue(form);
    let condition =
        form.get("condition").map(|program| json!({ "filter": { "plugin": "jq", "config": { "program": program } } }));
    let mut all: Vec<Value> = condition.into_iter().collect();
    all.extend(steps(form).as_array().into_iter().flatten().cloned());
    pipeline["steps"] = Value::Array(all);
    pipeline["targets"] = json!({ "destination": target(form.get("destination")) });
    pipeline
}

fn on_queue(form: &Map<String, Value>) -> Value {
    json!({ "source": { "queue": { "name": form.get("queue").cloned().unwrap_or_default() } } })
}

fn steps(form: &Map<String, Value>) -> Value {
    let step = |kind: &str| form.get(kind).filter(|step| !step.is_null()).map(|step| json!({ kind: step }));
    ["filter", "transform"].into_iter().filter_map(step).collect()
}

/// `{ "webhook": { … } }`, `{ "queue": … }` or `{ "granted": … }`; a webhook's settings are spelled as in the API.
fn target(target: Option<&Value>) -> Value {
    let Some(webhook) = target.and_then(|target| target.get("webhook")) else {
        return target.cloned().unwrap_or_default();
    };
    let mut settings = Map::new();
    for (key, value) in webhook.as_object().into_iter().flatten() {
        let key = match key.as_str() {
            "signingSecret" => "signing_secret",
            "connectTimeout" => "connect_timeout",
            "maxConcurrent" => "max_concurrent",
            other => other,
        };
        settings.insert(key.to_owned(), value.clone());
    }
    json!({ "http": settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(kind: ResourceKind, document: Value) -> (String, Value) {
        let (name, text) = translate(kind, "s", document.to_string());
        (name, serde_json::from_str(&text).expect("JSON"))
    }

    #[test]
    fn a_subscription_is_a_pipeline_on_its_queue() {
        let (name, pipeline) = translated(
            ResourceKind::Subscription,
            json!({
                "queue": "tasks", "target": { "webhook": { "url": "https://example.org", "signingSecret": "s" } },
                "filter": { "plugin": "jq", "config": { "program": "." } }, "maxRetries": 3, "retryDelay": "2s",
                "batchSize": 10, "processingTimeout": "15s", "offsetReset": "latest",
            }),
        );
        assert_eq!(name, "subscription-s");
        let expected = json!({
            "source": { "queue": { "name": "tasks", "start": "latest", "group": "subscription-s" } },
            "steps": [{ "filter": { "plugin": "jq", "config": { "program": "." } } }],
            "targets": { "target": { "http": { "url": "https://example.org", "signing_secret": "s" } } },
            "retry": { "max_attempts": 4, "initial_delay": "2s" },
            "max_in_flight": 10, "handler_timeout": "15s",
        });
        assert_eq!(pipeline, expected);
    }

    #[test]
    fn a_route_has_a_condition_a_filter_a_transform_and_a_destination() {
        let (name, pipeline) = translated(
            ResourceKind::Route,
            json!({
                "queue": "tasks", "condition": ".amount > 5", "transform": { "plugin": "redact", "config": { "mask": ["/a"] } },
                "destination": { "queue": "large" },
            }),
        );
        assert_eq!(name, "route-s");
        let expected = json!({
            "source": { "queue": { "name": "tasks", "group": "route-s" } },
            "steps": [
                { "filter": { "plugin": "jq", "config": { "program": ".amount > 5" } } },
                { "transform": { "plugin": "redact", "config": { "mask": ["/a"] } } },
            ],
            "targets": { "destination": { "queue": "large" } },
        });
        assert_eq!(pipeline, expected);
    }

    #[test]
    fn what_is_no_object_is_left_for_others_to_explain() {
        assert_eq!(translate(ResourceKind::Route, "s", "[1".to_owned()), ("route-s".to_owned(), "[1".to_owned()));
    }
}
