//! `/api/v1/queue/…`: the queue service as a whole, by the paths of requirement C2. Restarts are not among them: consumers
//! and producers are pipelines' connections, which the gateway opens anew by itself.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_engine::message::now_ms;

use super::queues::page_items;
use super::{Answer, Api, ApiCode, ApiError, Query, monitoring};
use crate::queues::KeptGroup;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/queue/status", get(monitoring::status))
        .route("/queue/health", get(monitoring::health))
        .route("/queue/metrics", get(metrics))
        .route("/queue/consumer/lag", get(lag))
}

/// Per second, times and error rates of what was produced and consumed, over the window, and for how many queues.
async fn metrics(State(api): State<Api>) -> Result<Answer<Value>, ApiError> {
    let Answer(all) = monitoring::metrics(State(api)).await?;
    let of = |flow: &str| {
        json!({
            "total": all[flow]["total"],
            "failed": all[flow]["failed"],
            "perSecond": all[flow]["perSecond"],
            "errorRate": all[flow]["errorRate"],
            "latencyMs": all[flow]["latencyMs"],
        })
    };
    Ok(Answer(json!({
        "at": all["at"],
        "windowSeconds": all["windowSeconds"],
        "produced": of("published"),
        "consumed": of("consumed"),
        "depth": all["messages"],
        "lag": all["lag"],
        "pending": all["pending"],
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LagQuery {
    queue: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// How far behind the groups of one queue are, or of a page of queues: `limit` counts queues.
async fn lag(State(api): State<Api>, Query(query): Query<LagQuery>) -> Result<Answer<Value>, ApiError> {
    let limit = page_items(query.limit)?;
    let (groups, next) = match &query.queue {
        Some(_) if query.limit.is_some() || query.after.is_some() => {
            let text = "`limit` and `after` page over queues; leave them out with `queue`";
            return Err(ApiError::new(ApiCode::InvalidRequest, text));
        }
        Some(queue) => (api.queues.groups(queue).await?, None),
        None => api.groups(limit, query.after.as_deref()).await?,
    };
    let mut queues: Vec<Value> = Vec::new();
    // Groups come by queue.
    for of_one in groups.chunk_by(|a, b| a.queue == b.queue) {
        let lag = of_one.iter().map(|group| group.lag).try_fold(0_u64, |most, lag| Some(most.max(lag?)));
        queues.push(json!({
            "queue": of_one.first().map(|group| group.queue.as_str()),
            "lag": lag,
            "pending": of_one.iter().map(|group| group.pending).sum::<u64>(),
            "consumers": of_one.iter().map(|group| group.consumers).sum::<u64>(),
            "groups": of_one.iter().map(shown).collect::<Vec<_>>(),
        }));
    }
    Ok(Answer(json!({ "at": print_time(now_ms()), "queues": queues, "next": next })))
}

fn shown(group: &KeptGroup) -> Value {
    json!({
        "group": group.name,
        "lag": group.lag,
        "pending": group.pending,
        "consumers": group.consumers,
        "paused": group.paused,
        "lastActivityAt": group.last_activity_ms.map(print_time),
    })
}
