//! `/api/v1/mq/subscriptions`: consumer groups of queues. A subscription's id is `QUEUE:GROUP`.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::{parse_time, print_time};
use sluicegate_store::queue::{Start, is_name};

use super::queue_form::given;
use super::queues::page_items;
use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::queues::{KeptGroup, KeptPosition, Place};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/mq/subscriptions", get(list).post(create))
        .route("/mq/subscriptions/{id}", get(show).put(update).delete(remove))
        .route("/mq/subscriptions/{id}/pause", post(pause))
        .route("/mq/subscriptions/{id}/resume", post(resume))
        .route("/mq/subscriptions/{id}/reset", post(reset))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}

/// A subscription as JSON.
pub(crate) fn shown(group: &KeptGroup) -> Value {
    json!({
        "id": format!("{}:{}", group.queue, group.name),
        "queue": group.queue,
        "group": group.name,
        "paused": group.paused,
        "lag": group.lag,
        "pending": group.pending,
        "consumers": group.consumers,
        "lost": group.lost,
        "expired": group.expired,
        "createdAt": group.created_at_ms.map(print_time),
        "lastActivityAt": group.last_activity_ms.map(print_time),
    })
}

/// Queue and group of an id. Neither has a colon in its name.
fn parts(id: &str) -> Result<(&str, &str), ApiError> {
    id.split_once(':').filter(|(queue, group)| is_name(queue) && is_name(group)).ok_or_else(|| {
        let text = format!("there is no subscription `{id}`: an id is `QUEUE:GROUP`, as the list shows it");
        ApiError::new(ApiCode::SubscriptionNotFound, text)
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    queue: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Those of one queue, or of a page of queues: `limit` counts queues.
async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Result<Answer<Value>, ApiError> {
    let limit = page_items(query.limit)?;
    let (groups, next) = match &query.queue {
        Some(_) if query.limit.is_some() || query.after.is_some() => {
            return Err(invalid("`limit` and `after` page over queues; leave them out with `queue`"));
        }
        Some(queue) => (api.queues.groups(queue).await?, None),
        None => api.groups(limit, query.after.as_deref()).await?,
    };
    Ok(Answer(json!({ "subscriptions": groups.iter().map(shown).collect::<Vec<_>>(), "next": next })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CreateForm {
    queue: String,
    group: String,
    #[serde(default)]
    offset_reset: OffsetReset,
    #[serde(default)]
    paused: bool,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OffsetReset {
    #[default]
    Earliest,
    Latest,
}

/// 201 for a new group, 200 for one that was there and stays where it is.
async fn create(State(api): State<Api>, Input(form): Input<CreateForm>) -> Result<Response, ApiError> {
    let start = match form.offset_reset {
        OffsetReset::Earliest => Start::Earliest,
        OffsetReset::Latest => Start::Latest,
    };
    let is_new = api.queues.create_group(&form.queue, &form.group, start).await?;
    if is_new && form.paused {
        api.queues.pause(&form.queue, &form.group).await?;
    }
    let answer = Answer(shown(&api.queues.group(&form.queue, &form.group).await?));
    Ok(if is_new { answer.created() } else { answer.into_response() })
}

async fn show(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    Ok(Answer(shown(&api.queues.group(queue, group).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UpdateForm {
    paused: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    position: Option<PositionForm>,
}

/// `earliest`, `latest`, `{"offset": 5}` (in Redis: `{"offset": "1700000000000-0"}`) or `{"time": "2026-11-20T16:00:00Z"}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PositionForm {
    Earliest,
    Latest,
    Offset(Place),
    Time(String),
}

impl PositionForm {
    fn position(self) -> Result<KeptPosition, ApiError> {
        match self {
            Self::Earliest => Ok(KeptPosition::Earliest),
            Self::Latest => Ok(KeptPosition::Latest),
            Self::Offset(Place::Offset(0)) => Err(invalid("`offset` is 0; offsets count from 1")),
            Self::Offset(place) => Ok(KeptPosition::Place(place)),
            Self::Time(time) => {
                parse_time(&time).map(KeptPosition::Time).map_err(|problem| invalid(format!("`time`: {problem}")))
            }
        }
    }
}

async fn update(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    Input(form): Input<UpdateForm>,
) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    let position = form.position.map(PositionForm::position).transpose()?;
    if form.paused == Some(true) {
        api.queues.pause(queue, group).await?;
    }
    if let Some(position) = position {
        api.queues.reset(queue, group, position).await?;
    }
    // Last, so that nothing of the old place is given out.
    if form.paused == Some(false) {
        api.queues.resume(queue, group).await?;
    }
    Ok(Answer(shown(&api.queues.group(queue, group).await?)))
}

async fn remove(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    api.queues.delete_group(queue, group).await?;
    Ok(Answer(json!({ "deleted": id })))
}

async fn pause(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    api.queues.pause(queue, group).await?;
    Ok(Answer(shown(&api.queues.group(queue, group).await?)))
}

async fn resume(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    api.queues.resume(queue, group).await?;
    Ok(Answer(shown(&api.queues.group(queue, group).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetForm {
    position: PositionForm,
}

async fn reset(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    Input(form): Input<ResetForm>,
) -> Result<Answer<Value>, ApiError> {
    let (queue, group) = parts(&id)?;
    api.queues.reset(queue, group, form.position.position()?).await?;
    Ok(Answer(shown(&api.queues.group(queue, group).await?)))
}
