//! `/api/v1/dead-letters…`: what could not be delivered, its repair and its redelivery. Jobs are in `redrives.rs`.

mod forms;
mod redrives;
mod shown;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_store::StoreError;
use sluicegate_store::dead_letter::{Changed, Filter, MAX_PAGE_GROUPS, MAX_PAGE_LETTERS};

use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use forms::{EditForm, FilterForm};

/// Letters on a page, unless another number is asked for.
const DEFAULT_PAGE_LETTERS: usize = 50;
/// Letters read at a time for an export.
const EXPORT_PAGE_LETTERS: usize = 100;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/groups", get(groups))
        .route("/dead-letters/export", get(export))
        .route("/dead-letters/purge", post(purge))
        .route("/dead-letters/redrive", post(redrives::create))
        .route("/dead-letters/{id}", get(show).patch(edit).delete(delete))
        .merge(redrives::routes())
}

/// A refusal of the store about one letter, one job or a page token; else the store cannot answer.
fn refused(error: StoreError) -> ApiError {
    let code = match &error {
        StoreError::NotFound { .. } => ApiCode::DeadLetterNotFound,
        StoreError::NoJob { .. } => ApiCode::RedriveNotFound,
        StoreError::Ambiguous { .. } | StoreError::PageToken { .. } => ApiCode::InvalidRequest,
        other if other.is_transient() => return ApiError::from(error),
        _other => ApiCode::Internal,
    };
    ApiError::new(code, error.to_string())
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListQuery {
    pipeline: Option<String>,
    class: Option<String>,
    step: Option<String>,
    target: Option<String>,
    plugin_digest: Option<String>,
    message_id: Option<String>,
    cause: Option<String>,
    since: Option<String>,
    until: Option<String>,
    text: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl ListQuery {
    /// What to look for, how many, and where to go on.
    fn read(self, max: usize) -> Result<(Filter, usize, Option<String>), ApiError> {
        let Self { pipeline, class, step, target, plugin_digest, message_id, cause, since, until, text, limit, after } =
            self;
        let form = FilterForm { pipeline, class, step, target, plugin_digest, message_id, cause, since, until, text };
        let limit = limit.unwrap_or(DEFAULT_PAGE_LETTERS);
        if !(1..=max).contains(&limit) {
            return Err(ApiError::new(ApiCode::InvalidRequest, format!("`limit` is {limit}; it may be 1 to {max}")));
        }
        Ok((form.filter()?, limit, after))
    }
}

async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Result<Answer<Value>, ApiError> {
    let (filter, limit, after) = query.read(MAX_PAGE_LETTERS)?;
    let page = api.store.reader().list(&filter, limit, after.as_deref()).await.map_err(refused)?;
    let letters: Vec<Value> = page.letters.iter().map(shown::summary).collect();
    Ok(Answer(json!({ "deadLetters": letters, "next": page.next })))
}

async fn groups(State(api): State<Api>, Query(query): Query<ListQuery>) -> Result<Answer<Value>, ApiError> {
    let (filter, limit, after) = query.read(MAX_PAGE_GROUPS)?;
    let page = api.store.reader().groups(&filter, limit, after.as_deref()).await.map_err(refused)?;
    let groups: Vec<Value> = page.groups.iter().map(shown::group).collect();
    Ok(Answer(json!({ "groups": groups, "next": page.next })))
}

async fn show(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let letter = api.store.reader().find(&id).await.map_err(refused)?;
    Ok(Answer(shown::letter(&letter)))
}

async fn edit(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    Input(form): Input<EditForm>,
) -> Result<Answer<Value>, ApiError> {
    let id = complete(&api, &id).await?;
    let (edit, by) = form.read()?;
    let changed = api.store.edit_letter(&id, edit, &by).await.map_err(refused)?;
    made(changed, &id, "edited")?;
    let letter = api.store.reader().find(&id).await.map_err(refused)?;
    Ok(Answer(shown::letter(&letter)))
}

async fn delete(State(api): State<Api>, Segments(id): Segments<String>) -> Result<StatusCode, ApiError> {
    let id = complete(&api, &id).await?;
    let changed = api.store.delete_letter(&id).await.map_err(refused)?;
    made(changed, &id, "deleted")?;
    Ok(StatusCode::NO_CONTENT)
}

/// The whole id of the letter whose id begins so.
async fn complete(api: &Api, beginning: &str) -> Result<String, ApiError> {
    Ok(api.store.reader().find(beginning).await.map_err(refused)?.letter.id)
}

fn made(changed: Changed, id: &str, done: &str) -> Result<(), ApiError> {
    match changed {
        Changed::Done => Ok(()),
        Changed::BeingRedriven => {
            let text = format!("dead letter `{id}` cannot be {done}: it is being redriven; wait for its outcome");
            Err(ApiError::new(ApiCode::Conflict, text))
        }
        Changed::NotFound => {
            let text = format!("dead letter `{id}` cannot be {done}: it is gone");
            Err(ApiError::new(ApiCode::DeadLetterNotFound, text))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeForm {
    /// `{}` for all.
    filter: FilterForm,
}

async fn purge(State(api): State<Api>, Input(form): Input<PurgeForm>) -> Result<Answer<Value>, ApiError> {
    let filter = form.filter.filter()?;
    // Small steps that a client who goes away must not stop half-way unseen: it runs to its end.
    let store = api.store.clone();
    let purging = tokio::spawn(async move { store.purge_letters(&filter).await });
    let deleted = purging.await.map_err(|error| ApiError::new(ApiCode::Internal, error.to_string()))?;
    Ok(Answer(json!({ "deleted": deleted.map_err(refused)? })))
}

/// One letter a line, read page by page as the client takes them. A failure in the middle breaks the answer off.
async fn export(State(api): State<Api>, Query(query): Query<ListQuery>) -> Result<Response, ApiError> {
    if query.limit.is_some() {
        let text = "an export has all that match: leave `limit` out, or ask for `/dead-letters`";
        return Err(ApiError::new(ApiCode::InvalidRequest, text));
    }
    let (filter, _, after) = query.read(MAX_PAGE_LETTERS)?;
    // The first page before the status is said.
    let first = api.store.reader().letters(&filter, EXPORT_PAGE_LETTERS, after.as_deref()).await.map_err(refused)?;
    let pages = stream::try_unfold(Some((None, Some(first))), move |state| {
        let (store, filter) = (api.store.clone(), filter.clone());
        async move {
            let Some((after, page)) = state else { return Ok::<_, StoreError>(None) };
            let page = match page {
                Some(page) => page,
                None => {
                    let after: Option<String> = after;
                    store.reader().letters(&filter, EXPORT_PAGE_LETTERS, after.as_deref()).await?
                }
            };
            let mut lines = String::new();
            for letter in &page.letters {
                lines.push_str(&shown::letter(letter).to_string());
                lines.push('\n');
            }
            Ok(Some((lines, page.next.map(|next| (Some(next), None)))))
        }
    });
    Ok(([(http::header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response())
}
