//! `/api/v1/mq/queues`: making, showing, changing and removing queues.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_store::queue::{MAX_PAGE_ITEMS, is_name};

use super::queue_form::{QueueForm, ShownQueue};
use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::queues::defaults;

/// Items of a page when the request does not say how many.
pub(super) const DEFAULT_PAGE_ITEMS: usize = 100;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/mq/queues", get(list).post(create))
        .route("/mq/queues/{name}", get(show).put(update).delete(delete))
        .route("/mq/queues/{name}/purge", post(purge))
        // A topic is a queue.
        .route("/mq/topics", get(topics).post(create))
        .route("/mq/topics/{name}", get(show).put(update).delete(delete))
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    pub limit: Option<usize>,
    pub after: Option<String>,
}

/// The page's size.
///
/// # Errors
/// Out of its limits.
pub(super) fn page_items(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit {
        None => Ok(DEFAULT_PAGE_ITEMS),
        Some(limit) if (1..=MAX_PAGE_ITEMS).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::new(
            ApiCode::InvalidRequest,
            format!("`limit` is {limit}; a page has 1 to {MAX_PAGE_ITEMS} items"),
        )),
    }
}

async fn list(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Answer<Value>, ApiError> {
    page_as("queues", &api, &query).await
}

async fn topics(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Answer<Value>, ApiError> {
    page_as("topics", &api, &query).await
}

async fn page_as(name: &str, api: &Api, query: &PageQuery) -> Result<Answer<Value>, ApiError> {
    let page = api.queues.list(page_items(query.limit)?, query.after.as_deref()).await?;
    let queues: Vec<ShownQueue<'_>> = page.items.iter().map(ShownQueue::from).collect();
    Ok(Answer(json!({ name: queues, "next": page.next })))
}

async fn create(State(api): State<Api>, Input(form): Input<QueueForm>) -> Result<Response, ApiError> {
    let Some(name) = &form.name else {
        return Err(ApiError::new(ApiCode::InvalidRequest, "`name` is missing: a new queue needs one"));
    };
    if !is_name(name) {
        return Err(ApiError::new(
            ApiCode::InvalidRequest,
            "`name` is not usable: a queue's name has 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`",
        ));
    }
    if form.revision.is_some() {
        return Err(ApiError::new(ApiCode::InvalidRequest, "`revision` is for updates: a new queue has none yet"));
    }
    let default = defaults(&api.config.borrow().queue_defaults);
    let settings = form.apply_to(&default, &default)?;
    refuse_unknown_schema(&api, &form)?;
    if api.config.borrow().queues.get(name).is_some_and(|declaration| declaration.redis().is_some()) {
        let text =
            format!("the queue `{name}` is declared in the configuration and kept in Redis; choose another name");
        return Err(ApiError::new(ApiCode::QueueExists, text));
    }
    let queue = api.queues.create(name, &settings).await?;
    Ok(Answer(ShownQueue::from(&queue)).created())
}

async fn show(State(api): State<Api>, Segments(name): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let queue = api.queues.get(&name).await?;
    Ok(Answer(json!(ShownQueue::from(&queue))))
}

async fn update(
    State(api): State<Api>,
    Segments(name): Segments<String>,
    Input(form): Input<QueueForm>,
) -> Result<Answer<Value>, ApiError> {
    if form.name.as_ref().is_some_and(|new| *new != name) {
        return Err(ApiError::new(ApiCode::InvalidRequest, "`name` differs from the URL's: a queue keeps its name"));
    }
    refuse_declared(&api, &name, "changed")?;
    let before = api.queues.get(&name).await?;
    let settings = form.apply_to(&before.settings, &defaults(&api.config.borrow().queue_defaults))?;
    refuse_unknown_schema(&api, &form)?;
    let revision = form.revision.or(before.revision).unwrap_or_default();
    let queue = api.queues.update(&name, revision, &settings).await?;
    Ok(Answer(json!(ShownQueue::from(&queue))))
}

async fn delete(State(api): State<Api>, Segments(name): Segments<String>) -> Result<Answer<Value>, ApiError> {
    refuse_declared(&api, &name, "deleted")?;
    api.queues.delete(&name).await?;
    api.meters.forget(&name);
    Ok(Answer(json!({ "deleted": name })))
}

async fn purge(State(api): State<Api>, Segments(name): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let purged = api.queues.purge(&name).await?;
    Ok(Answer(json!({ "queue": name, "purged": purged })))
}

/// What the configuration says of a queue is set again at every start.
fn refuse_declared(api: &Api, name: &str, what: &str) -> Result<(), ApiError> {
    if !api.config.borrow().queues.contains_key(name) {
        return Ok(());
    }
    let text = format!("the queue `{name}` is declared in the configuration, under `queues`; it is {what} there");
    Err(ApiError::new(ApiCode::Conflict, text))
}

/// A queue whose schema nobody knows would refuse every message.
fn refuse_unknown_schema(api: &Api, form: &QueueForm) -> Result<(), ApiError> {
    let Some(Some(schema)) = &form.schema else { return Ok(()) };
    let config = api.config.borrow();
    if config.schemas.iter().any(|known| *known.name == **schema) {
        return Ok(());
    }
    let names: Vec<&str> = config.schemas.iter().map(|schema| &*schema.name).collect();
    let known =
        if names.is_empty() { "none is configured".to_owned() } else { format!("there are {}", names.join(", ")) };
    let text = format!("`schema`: `{schema}` is none of the configured `schemas`; {known}");
    Err(ApiError::new(ApiCode::InvalidRequest, text))
}
