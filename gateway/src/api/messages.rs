//! `/api/v1/messages`: what happened to messages.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluicegate_store::StoreError;
use sluicegate_store::receipt::{Ending, Filter, MAX_PAGE_RECEIPTS};

use super::{Answer, Api, ApiCode, ApiError, Query, Segments};
use crate::trace::{FoundReceipt, ShownTally, ShownTrace, Trace, explain_unknown};

/// Receipts on a page unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 50;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/messages", get(search))
        .route("/messages/{id}", get(show))
        .route("/message-statistics", get(count))
}

/// Which receipts; times are RFC 3339.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Wanted {
    correlation_id: Option<String>,
    key: Option<String>,
    pipeline: Option<String>,
    settlement: Option<String>,
    failed: bool,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    messages: Vec<FoundReceipt<'a>>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Statistics<'a> {
    statistics: Vec<ShownTally<'a>>,
}

async fn show(State(api): State<Api>, Segments(id): Segments<String>) -> Result<Response, ApiError> {
    match Trace::find(api.store.reader(), &id).await? {
        Some(trace) => Ok(Answer(ShownTrace::from(&trace)).into_response()),
        None => {
            let config = Arc::clone(&api.config.borrow());
            Err(ApiError::new(ApiCode::MessageNotFound, explain_unknown(&id, Some(&config.receipts))))
        }
    }
}

async fn search(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    let (limit, after) = (wanted.limit.unwrap_or(DEFAULT_LIMIT), wanted.after.clone());
    if !(1..=MAX_PAGE_RECEIPTS).contains(&limit) {
        let text = format!("`limit` is {limit}; it may be 1 to {MAX_PAGE_RECEIPTS}");
        return Err(ApiError::new(ApiCode::InvalidRequest, text));
    }
    let page = api.store.reader().receipts(&wanted.filter()?, limit, after.as_deref()).await.map_err(refusal)?;
    let messages = page.receipts.iter().map(FoundReceipt::from).collect();
    Ok(Answer(Found { messages, next: page.next }).into_response())
}

async fn count(State(api): State<Api>, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    if wanted.limit.is_some() || wanted.after.is_some() {
        return Err(ApiError::new(ApiCode::InvalidRequest, "statistics have one page: leave `limit` and `after` out"));
    }
    let tallies = api.store.reader().tally_receipts(&wanted.filter()?).await?;
    Ok(Answer(Statistics { statistics: tallies.iter().map(ShownTally::from).collect() }).into_response())
}

fn refusal(error: StoreError) -> ApiError {
    match error {
        StoreError::PageToken { .. } => ApiError::new(ApiCode::InvalidRequest, error.to_string()),
        other => other.into(),
    }
}

impl Wanted {
    fn filter(self) -> Result<Filter, ApiError> {
        let ending = self.settlement.as_deref().map(|name| {
            Ending::from_name(name).ok_or_else(|| {
                let names = Ending::ALL.map(Ending::name).join(", ");
                ApiError::new(ApiCode::InvalidRequest, format!("`settlement` is none of {names}"))
            })
        });
        Ok(Filter {
            correlation_id: self.correlation_id,
            key: self.key.map(Into::into),
            pipeline: self.pipeline,
            ending: ending.transpose()?,
            failed: self.failed,
            since_ms: milliseconds("since", self.since.as_deref())?,
            until_ms: milliseconds("until", self.until.as_deref())?,
        })
    }
}

/// Nothing began before 1970.
fn milliseconds(name: &str, time: Option<&str>) -> Result<Option<u64>, ApiError> {
    let Some(text) = time else { return Ok(None) };
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(Some(u64::try_from(time.as_millisecond()).unwrap_or(0))),
        Err(_) => Err(ApiError::new(
            ApiCode::InvalidRequest,
            format!("`{name}` is not a time as RFC 3339 writes it, such as 2026-11-20T16:00:00Z"),
        )),
    }
}

#[cfg(test)]
mod tests;
