//! Publishing: `/api/v1/mq/publish…`, `/api/v1/mq/topics/{name}/publish`, and tasks, which are messages one asks after.
//!
//! Every way publishes all it is given in one transaction, or nothing, and answers 201 once that is on the disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_connectors::json_text;
use sluicegate_store::queue::{Kind, MAX_BATCH_MESSAGES, Once, Publication, QueueError};
use tokio::time::Instant;

use super::message_form::{MAX_TEXT_BYTES, MessageForm, MessageType};
use super::queue_error::publishing;
use super::queue_messages::task;
use super::{Answer, Api, ApiCode, ApiError, Segments, TextInput};
use crate::queue_meters::Flow;
use crate::queues::{KeptBatch, KeptPublished, Place, QueuesError};

/// How long an idempotency key is known.
const KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Says that nothing was published now: the same request was answered so before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/mq/publish", post(single))
        .route("/mq/publish/batch", post(batch))
        .route("/mq/publish/delayed", post(delayed))
        .route("/mq/publish/scheduled", post(scheduled))
        .route("/mq/topics/{name}/publish", post(to_topic))
        .route("/mq/queues/{name}/tasks", post(tasks))
        .route("/mq/queues/{name}/tasks/{id}", get(task))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}

/// A queue's name from a member that has to be there.
fn queue_of(queue: Option<String>) -> Result<String, ApiError> {
    queue.filter(|queue| !queue.is_empty()).ok_or_else(|| invalid("`queue` is missing: say where to publish"))
}

async fn single(
    State(api): State<Api>,
    headers: HeaderMap,
    TextInput { form, text }: TextInput<MessageForm>,
) -> Result<Response, ApiError> {
    refuse(form.message_type.is_some(), "messageType", "it is for `/topics/{name}/publish`")?;
    refuse(form.at.is_some(), "at", "it is for `/publish/scheduled`")?;
    one(&api, &headers, form, &text, "publish").await
}

async fn delayed(
    State(api): State<Api>,
    headers: HeaderMap,
    TextInput { form, text }: TextInput<MessageForm>,
) -> Result<Response, ApiError> {
    refuse(form.message_type.is_some(), "messageType", "it is for `/topics/{name}/publish`")?;
    refuse(form.at.is_some(), "at", "it is for `/publish/scheduled`")?;
    if form.delay_ms.is_none() {
        return Err(invalid("`delayMs` is missing: say for how long to hold the message, 0 to 2592000000 (30 days)"));
    }
    one(&api, &headers, form, &text, "publish/delayed").await
}

async fn scheduled(
    State(api): State<Api>,
    headers: HeaderMap,
    TextInput { form, text }: TextInput<MessageForm>,
) -> Result<Response, ApiError> {
    refuse(form.message_type.is_some(), "messageType", "it is for `/topics/{name}/publish`")?;
    refuse(form.delay_ms.is_some(), "delayMs", "it is for `/publish/delayed`")?;
    if form.at.is_none() {
        return Err(invalid("`at` is missing: say when, as RFC 3339, at most 30 days ahead"));
    }
    one(&api, &headers, form, &text, "publish/scheduled").await
}

async fn to_topic(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    TextInput { mut form, text }: TextInput<MessageForm>,
) -> Result<Response, ApiError> {
    if form.queue.as_ref().is_some_and(|queue| *queue != name) {
        return Err(invalid("`queue` differs from the URL's topic; leave it out"));
    }
    form.check_type()?;
    let message_type = form.message_type;
    if let Some(message_type) = message_type {
        let kind = api.queues.settings(&name).await.map_err(unknown_topic)?.kind;
        let fits = match (message_type, kind) {
            (MessageType::Normal, Kind::Normal)
            | (MessageType::Ordered, Kind::Ordered)
            | (MessageType::Delayed, Kind::Delay) => true,
            // A normal queue holds what brings its own time.
            (MessageType::Delayed, Kind::Normal) if form.delay_ms.is_some() || form.at.is_some() => true,
            (MessageType::Delayed, Kind::Normal) => {
                return Err(invalid("`messageType` is `delayed`: say for how long with `delayMs`, or when with `at`"));
            }
            (MessageType::Normal, Kind::Ordered | Kind::Delay)
            | (MessageType::Ordered, Kind::Normal | Kind::Delay)
            | (MessageType::Delayed, Kind::Ordered) => false,
        };
        if !fits {
            let text =
                format!("the topic `{name}` is of the kind `{}`, which takes no such `messageType`", kind.name());
            return Err(invalid(text));
        }
    }
    form.queue = Some(name);
    one(&api, &headers, form, &text, "topic").await
}

/// A topic is a queue.
fn unknown_topic(error: QueuesError) -> ApiError {
    match error {
        QueuesError::Queue(QueueError::NotFound { queue }) => {
            let text = format!("there is no topic `{queue}`: topics are queues; create it with POST /api/v1/mq/queues");
            ApiError::new(ApiCode::QueueNotFound, text).with_details(json!({ "queue": queue }))
        }
        error => publishing(error),
    }
}

async fn one(
    api: &Api,
    headers: &HeaderMap,
    mut form: MessageForm,
    text: &Bytes,
    path: &str,
) -> Result<Response, ApiError> {
    let queue = queue_of(form.queue.take())?;
    let once = once(headers, form.idempotency_key.take(), path, text)?;
    let publications = vec![form.publication(&queue, text)?];
    let batch = publish(api, &queue, publications, once).await.map_err(alone)?;
    let shown = batch.published.first().map(|published| shown(&queue, published)).unwrap_or_default();
    Ok(answer(shown, batch.repeated))
}

/// A batch of one has no place in a batch.
fn alone(error: ApiError) -> ApiError {
    error.without_place("messages[0]: ")
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BatchForm {
    queue: String,
    messages: Vec<MessageForm>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

async fn batch(
    State(api): State<Api>,
    headers: HeaderMap,
    TextInput { form, text }: TextInput<BatchForm>,
) -> Result<Response, ApiError> {
    let once = once(&headers, form.idempotency_key, "batch", &text)?;
    let publications = all(&form.queue, form.messages, "messages", &text)?;
    let batch = publish(&api, &form.queue, publications, once).await?;
    let messages: Vec<Value> = batch.published.iter().map(|published| shown(&form.queue, published)).collect();
    Ok(answer(json!({ "queue": form.queue, "messages": messages }), batch.repeated))
}

/// The publications of a list of forms; `member` is where it stands in `text`.
fn all(queue: &str, forms: Vec<MessageForm>, member: &str, text: &[u8]) -> Result<Vec<Publication>, ApiError> {
    let count = forms.len();
    if !(1..=MAX_BATCH_MESSAGES).contains(&count) {
        return Err(invalid(format!("`{member}` has {count}; publish 1 to {MAX_BATCH_MESSAGES} at once")));
    }
    let texts = json_text::elements(json_text::member(text, member).unwrap_or_default());
    let publication = |(index, (form, text)): (usize, (MessageForm, &[u8]))| {
        refuse(form.queue.is_some(), "queue", "it stands once beside the list")
            .and_then(|()| refuse(form.idempotency_key.is_some(), "idempotencyKey", "it stands once beside the list"))
            .and_then(|()| refuse(form.message_type.is_some(), "messageType", "it is for `/topics/{name}/publish`"))
            .and_then(|()| form.publication(queue, text))
            .map_err(|error| error.within(format_args!("{member}[{index}]")).with_detail("index", index.into()))
    };
    forms.into_iter().zip(texts).enumerate().map(publication).collect()
}

fn refuse(is_there: bool, member: &str, why: &str) -> Result<(), ApiError> {
    if is_there { Err(invalid(format!("`{member}` is not taken here: {why}"))) } else { Ok(()) }
}

/// One task, or `tasks`, a list of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TasksForm {
    tasks: Vec<MessageForm>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

async fn tasks(
    State(api): State<Api>,
    Segments(queue): Segments<String>,
    headers: HeaderMap,
    TextInput { form, text }: TextInput<Value>,
) -> Result<Response, ApiError> {
    let is_list = form.get("tasks").is_some();
    let unfit = |error: serde_path_to_error::Error<serde_json::Error>| {
        invalid(format!("the request's body does not fit at `{}`: {}", error.path(), error.inner()))
    };
    let (publications, once) = if is_list {
        let form: TasksForm = serde_path_to_error::deserialize(form).map_err(unfit)?;
        let once = once(&headers, form.idempotency_key, "tasks", &text)?;
        (all(&queue, form.tasks, "tasks", &text)?, once)
    } else {
        let mut form: MessageForm = serde_path_to_error::deserialize(form).map_err(unfit)?;
        refuse(form.queue.is_some(), "queue", "the URL names it")?;
        refuse(form.message_type.is_some(), "messageType", "it is for `/topics/{name}/publish`")?;
        let once = once(&headers, form.idempotency_key.take(), "tasks", &text)?;
        (vec![form.publication(&queue, &text)?], once)
    };
    let batch = publish(&api, &queue, publications, once).await?;
    let task = |published: &KeptPublished| {
        let (state, at) = state(published);
        json!({ "taskId": published.id, "state": state, "offset": published.place, "runAt": at })
    };
    let mut tasks: Vec<Value> = batch.published.iter().map(task).collect();
    let shown = match (is_list, tasks.pop()) {
        (false, Some(task)) => task,
        (_, last) => {
            tasks.extend(last);
            json!({ "queue": queue, "tasks": tasks })
        }
    };
    Ok(answer(shown, batch.repeated))
}

/// Checks against the queue's schema, publishes, measures.
async fn publish(
    api: &Api,
    queue: &str,
    publications: Vec<Publication>,
    once: Option<Once>,
) -> Result<KeptBatch, ApiError> {
    let started = Instant::now();
    let settings = api.queues.settings(queue).await.map_err(unknown_topic)?;
    let count = publications.len();
    let published = async {
        let publications = match &settings.schema {
            None => publications,
            Some(schema) => {
                let config = Arc::clone(&api.config.borrow());
                api.schemas.check(config, schema, publications).await?
            }
        };
        api.queues.publish_all(queue, publications, once).await.map_err(publishing)
    };
    let published = published.await;
    let (done, failed) = match &published {
        Ok(batch) if batch.repeated => (0, 0),
        Ok(_) => (count, 0),
        Err(_) => (0, count),
    };
    api.meters.record(queue, Flow::Published, started.elapsed(), done, failed);
    published
}

/// The key of the request's header or body.
fn once(headers: &HeaderMap, member: Option<String>, path: &str, text: &[u8]) -> Result<Option<Once>, ApiError> {
    let header = match headers.get("idempotency-key").map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) => Some(key.trim().to_owned()),
        Some(Err(_)) => return Err(invalid("the header `Idempotency-Key` has other characters than ASCII")),
    };
    let key = match (header, member) {
        (Some(header), Some(member)) if header != member => {
            return Err(invalid("`idempotencyKey` differs from the header `Idempotency-Key`; give one of them"));
        }
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => return Ok(None),
    };
    if key.is_empty() || key.len() > MAX_TEXT_BYTES {
        let text = format!("the idempotency key has {} bytes; 1 to {MAX_TEXT_BYTES} are allowed", key.len());
        return Err(invalid(text));
    }
    let mut fingerprint = Sha256::new();
    fingerprint.update(path);
    fingerprint.update([0]);
    fingerprint.update(text);
    Ok(Some(Once { key: key.into(), fingerprint: fingerprint.finalize().into(), ttl: KEY_TTL }))
}

fn state(published: &KeptPublished) -> (&'static str, Option<String>) {
    match published.place {
        Some(Place::Offset(_) | Place::Entry(_)) => ("ready", None),
        None => ("scheduled", published.deliver_at_ms.map(print_time)),
    }
}

fn shown(queue: &str, published: &KeptPublished) -> Value {
    let (state, deliver_at) = state(published);
    json!({ "id": published.id, "queue": queue, "state": state, "offset": published.place, "deliverAt": deliver_at })
}

fn answer(shown: Value, repeated: bool) -> Response {
    let mut response = Answer(shown).created();
    if repeated {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
