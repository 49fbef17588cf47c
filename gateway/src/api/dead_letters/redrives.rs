//! Redrive jobs: `POST /dead-letters/redrive` creates one, `/redrives…` shows and controls them.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_store::StoreError;
use sluicegate_store::redrive::{
    Controlled, Created, DEFAULT_MAX_REDRIVES, DEFAULT_RATE_PER_SECOND, From as RedriveFrom, Item, ItemState, Job,
    MAX_JOB_IDS, MAX_PAGE_ITEMS, MAX_RATE_PER_SECOND, NewJob, Selection,
};

use super::forms::{FilterForm, by, invalid};
use super::{complete, refused, shown};
use crate::api::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::forecast::{BodyChange, DEFAULT_FORECASTS, Forecast, Forecaster, Letters, MAX_FORECASTS};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/redrives", get(list))
        .route("/redrives/{id}", get(show))
        .route("/redrives/{id}/items", get(items))
        .route("/redrives/{id}/pause", post(pause))
        .route("/redrives/{id}/resume", post(resume))
        .route("/redrives/{id}/cancel", post(cancel))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RedriveForm {
    /// `{}` for all.
    filter: Option<FilterForm>,
    ids: Option<Vec<String>>,
    #[serde(default)]
    from: FromForm,
    rate_per_second: Option<u32>,
    /// JSON merge patch (RFC 7396) of the body.
    patch: Option<Value>,
    max_redrives: Option<u32>,
    by: Option<String>,
    #[serde(default)]
    dry_run: bool,
    /// Of a dry run.
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum FromForm {
    #[default]
    FailedStep,
    Start,
}

/// 201 with the job, or 200 with what would happen.
pub(super) async fn create(State(api): State<Api>, Input(form): Input<RedriveForm>) -> Result<Response, ApiError> {
    let selection = match (form.filter, form.ids) {
        (Some(filter), None) => Selection::Filter(Box::new(filter.filter()?)),
        (None, Some(beginnings)) => {
            if beginnings.is_empty() || beginnings.len() > MAX_JOB_IDS {
                return Err(invalid(format!("`ids` has {} members; it may have 1 to {MAX_JOB_IDS}", beginnings.len())));
            }
            let mut ids = Vec::with_capacity(beginnings.len());
            for beginning in &beginnings {
                let id = complete(&api, beginning).await?;
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            Selection::Ids(ids)
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("give either `ids` or a `filter` (`{}` for all dead letters)".to_owned()));
        }
    };
    let from = match form.from {
        FromForm::FailedStep => RedriveFrom::FailedStep,
        FromForm::Start => RedriveFrom::Start,
    };
    let max_redrives = form.max_redrives.unwrap_or(DEFAULT_MAX_REDRIVES);
    if form.dry_run {
        let limit = form.limit.unwrap_or(DEFAULT_FORECASTS);
        if !(1..=MAX_FORECASTS).contains(&limit) {
            return Err(invalid(format!("`limit` is {limit}; it may be 1 to {MAX_FORECASTS}")));
        }
        let forecaster = Forecaster::new(api.in_force.borrow().clone(), api.host.clone());
        let mut forecasts = Vec::new();
        let mut letters = Letters::new(selection, limit);
        while let Some(page) = letters.next(&api.store).await.map_err(refused)? {
            for letter in &page {
                let forecast = forecaster.forecast(letter, from, form.patch.as_ref(), max_redrives).await;
                forecasts.push(show_forecast(&forecast));
            }
        }
        return Ok(Answer(json!({ "dryRun": true, "forecasts": forecasts })).into_response());
    }
    if form.limit.is_some() {
        // Taken for a limit of the job it would let all the others go, too.
        let text = "`limit` is for a dry run; a job takes all that match: give `ids`, or a narrower `filter`";
        return Err(invalid(text.to_owned()));
    }
    let rate_per_second = form.rate_per_second.unwrap_or(DEFAULT_RATE_PER_SECOND);
    if !(1..=MAX_RATE_PER_SECOND).contains(&rate_per_second) {
        let text = format!("`ratePerSecond` is {rate_per_second}; it may be 1 to {MAX_RATE_PER_SECOND}");
        return Err(invalid(text));
    }
    let by = by(form.by)?;
    let job = NewJob { selection, from, rate_per_second, patch: form.patch, max_redrives, by };
    match api.store.create_redrive(job).await.map_err(refused)? {
        Created::Job { id, .. } => {
            let job = api.store.reader().redrive(&id).await.map_err(refused)?;
            let location = [(http::header::LOCATION, format!("/api/v1/redrives/{id}"))];
            Ok((StatusCode::CREATED, location, Answer(show_job(&job))).into_response())
        }
        Created::NothingMatches => {
            Err(ApiError::new(ApiCode::DeadLetterNotFound, "no dead letter matches; there is nothing to redrive"))
        }
        Created::NotFound(id) => {
            Err(ApiError::new(ApiCode::DeadLetterNotFound, format!("dead letter `{id}` is gone; leave it out")))
        }
        Created::BeingRedriven(id) => {
            let text = format!("dead letter `{id}` is being redriven already; wait for its outcome or leave it out");
            Err(ApiError::new(ApiCode::Conflict, text))
        }
        Created::TooMany(count) => Err(invalid(format!("{count} ids are more than {MAX_JOB_IDS}; use a `filter`"))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PageQuery {
    state: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl PageQuery {
    fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=MAX_PAGE_ITEMS => Ok(limit),
            limit => Err(invalid(format!("`limit` is {limit}; it may be 1 to {MAX_PAGE_ITEMS}"))),
        }
    }
}

async fn list(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Answer<Value>, ApiError> {
    if query.state.is_some() {
        return Err(invalid("`state` is of a job's items: ask for `/redrives/{id}/items`".to_owned()));
    }
    let page = api.store.reader().redrives(query.limit()?, query.after.as_deref()).await.map_err(refused)?;
    let jobs: Vec<Value> = page.jobs.iter().map(show_job).collect();
    Ok(Answer(json!({ "redrives": jobs, "next": page.next })))
}

async fn show(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    Ok(Answer(show_job(&api.store.reader().redrive(&id).await.map_err(refused)?)))
}

async fn items(
    State(api): State<Api>,
    Segments(id): Segments<String>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Value>, ApiError> {
    let known = || ItemState::ALL.map(ItemState::name).join(", ");
    let state = query.state.as_deref().map(|name| {
        ItemState::from_name(name).ok_or_else(|| invalid(format!("`{name}` is no state; there are {}", known())))
    });
    let (state, limit) = (state.transpose()?, query.limit()?);
    let page = api.store.reader().redrive_items(&id, state, limit, query.after.as_deref()).await.map_err(refused)?;
    let items: Vec<Value> = page.items.iter().map(show_item).collect();
    Ok(Answer(json!({ "items": items, "next": page.next })))
}

async fn pause(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let controlled = api.store.pause_redrive(&id).await.map_err(refused)?;
    answer(&api, &id, controlled, "paused").await
}

async fn resume(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let controlled = api.store.resume_redrive(&id).await.map_err(refused)?;
    answer(&api, &id, controlled, "resumed").await
}

async fn cancel(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Answer<Value>, ApiError> {
    let controlled = api.store.cancel_redrive(&id).await.map_err(refused)?;
    answer(&api, &id, controlled, "cancelled").await
}

async fn answer(api: &Api, id: &str, controlled: Controlled, done: &str) -> Result<Answer<Value>, ApiError> {
    match controlled {
        Controlled::Done => Ok(Answer(show_job(&api.store.reader().redrive(id).await.map_err(refused)?))),
        Controlled::Ended(state) => {
            let text = format!("redrive job `{id}` cannot be {done}: it is {} already", state.name());
            Err(ApiError::new(ApiCode::Conflict, text))
        }
        Controlled::NotFound => Err(refused(StoreError::NoJob { id: id.to_owned() })),
    }
}

fn show_job(job: &Job) -> Value {
    let count = |state| job.counts.of(state);
    json!({
        "id": job.id,
        "state": job.state.name(),
        "selection": job.selection,
        "from": match job.from { RedriveFrom::FailedStep => "failedStep", RedriveFrom::Start => "start" },
        "ratePerSecond": job.rate_per_second,
        "patch": job.patch,
        "maxRedrives": job.max_redrives,
        "by": job.by,
        "createdAt": shown::time(job.created_at_ms),
        "endedAt": job.ended_at_ms.map(shown::time),
        "counts": {
            "total": job.counts.total(),
            "pending": count(ItemState::Pending),
            "sent": count(ItemState::Sent),
            "delivered": count(ItemState::Delivered),
            "filtered": count(ItemState::Filtered),
            "deadLettered": count(ItemState::DeadLettered),
            "skipped": count(ItemState::Skipped),
            "failed": count(ItemState::Failed),
        },
    })
}

fn show_item(item: &Item) -> Value {
    json!({
        "number": item.number,
        "deadLetter": item.letter,
        "state": item.state.name(),
        "outcome": item.outcome,
        "at": item.at_ms.map(shown::time),
    })
}

fn show_forecast(forecast: &Forecast) -> Value {
    let changes: Vec<Value> = forecast.changes.iter().map(BodyChange::to_json).collect();
    json!({
        "deadLetter": forecast.letter,
        "pipeline": *forecast.pipeline,
        "recorded": forecast.recorded.to_json(),
        "expected": forecast.expected.to_json(),
        "same": forecast.expected.is_same_as(&forecast.recorded),
        "bodyChanges": changes,
        "moreBodyChanges": forecast.more_changes,
    })
}
