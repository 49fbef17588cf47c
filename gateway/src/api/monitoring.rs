//! `/api/v1/mq/metrics…`, `/health`, `/status`: how the queues and the gateway are.
//!
//! Messages, groups, pending and lag are the store's, the same at every gateway; rates and times are this gateway's own,
//! over the last minute.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_engine::link::LinkState;
use sluicegate_engine::message::now_ms;
use sluicegate_store::queue::MAX_PAGE_ITEMS;

use super::queues::{PageQuery, page_items};
use super::{Answer, Api, ApiError, Query, subscriptions};
use crate::queue_meters::{Figures, Flow, WINDOW};
use crate::queues::{Backend, KeptGroup, KeptQueue, QueuesError};

/// How long the database may take to answer before it counts as ill.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/mq/metrics", get(metrics))
        .route("/mq/metrics/topics", get(topics))
        .route("/mq/metrics/consumers", get(consumers))
        .route("/mq/health", get(health))
        .route("/mq/status", get(status))
}

impl Api {
    /// The groups of a page of queues, and where the next page begins.
    pub(super) async fn groups(
        &self,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<KeptGroup>, Option<String>), ApiError> {
        let page = self.queues.list(limit, after).await?;
        let mut groups = Vec::new();
        for queue in page.items.iter().filter(|queue| queue.groups > 0) {
            groups.extend(self.groups_of(queue).await?);
        }
        Ok((groups, page.next))
    }

    /// None, if the queue has been deleted meanwhile or its backend cannot be asked any more.
    async fn groups_of(&self, queue: &KeptQueue) -> Result<Vec<KeptGroup>, ApiError> {
        match self.queues.groups(&queue.name).await {
            Ok(groups) => Ok(groups),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(QueuesError::Redis { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything together.
#[derive(Debug, Default)]
struct Census {
    streams: u64,
    /// Those whose backend cannot be asked: nothing of them is counted.
    unavailable: u64,
    groups: u64,
    messages: u64,
    bytes: u64,
    scheduled: u64,
    lag: u64,
    pending: u64,
    consumers: u64,
    paused: u64,
    lost: u64,
    expired: u64,
}

impl Census {
    async fn take(api: &Api) -> Result<Self, ApiError> {
        let (mut census, mut after) = (Self::default(), None);
        loop {
            let page = api.queues.list(MAX_PAGE_ITEMS, after.as_deref()).await?;
            for queue in &page.items {
                census.streams += 1;
                census.unavailable += u64::from(queue.unavailable.is_some());
                census.messages += queue.messages;
                census.bytes += queue.bytes.unwrap_or_default();
                census.scheduled += queue.scheduled;
                if queue.groups > 0 {
                    api.groups_of(queue).await?.iter().for_each(|group| census.count(group));
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(census);
            }
        }
    }

    fn count(&mut self, group: &KeptGroup) {
        self.groups += 1;
        self.lag += group.lag.unwrap_or_default();
        self.pending += group.pending;
        self.consumers += group.consumers;
        self.paused += u64::from(group.paused);
        self.lost += group.lost.unwrap_or_default();
        self.expired += group.expired.unwrap_or_default();
    }

    fn shown(&self) -> Value {
        json!({
            "streams": self.streams,
            "unavailableStreams": self.unavailable,
            "groups": self.groups,
            "pausedGroups": self.paused,
            "messages": self.messages,
            "bytes": self.bytes,
            "scheduled": self.scheduled,
            "pending": self.pending,
            "lag": self.lag,
            "activeConsumers": self.consumers,
            "lost": self.lost,
            "expired": self.expired,
        })
    }
}

fn figures(figures: Figures) -> Value {
    let Figures { total, failed, per_second, error_rate, average_ms, p95_ms, p99_ms } = figures;
    json!({
        "total": total,
        "failed": failed,
        "perSecond": rounded(per_second),
        "errorRate": rounded(error_rate),
        "latencyMs": { "average": rounded(average_ms), "p95": rounded(p95_ms), "p99": rounded(p99_ms) },
    })
}

/// To a thousandth.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

pub(super) async fn metrics(State(api): State<Api>) -> Result<Answer<Value>, ApiError> {
    let mut shown = Census::take(&api).await?.shown();
    shown["at"] = json!(print_time(now_ms()));
    shown["windowSeconds"] = json!(WINDOW.as_secs());
    shown["published"] = figures(api.meters.total(Flow::Published));
    shown["consumed"] = figures(api.meters.total(Flow::Consumed));
    Ok(Answer(shown))
}

/// What pipelines read from Redis is measured by pipeline, in `/metrics`, and not by queue.
fn consumed(api: &Api, queue: &str, backend: Backend) -> Value {
    match backend {
        Backend::Store => figures(api.meters.figures(queue, Flow::Consumed)),
        Backend::Redis => Value::Null,
    }
}

async fn topics(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Answer<Value>, ApiError> {
    let page = api.queues.list(page_items(query.limit)?, query.after.as_deref()).await?;
    let mut topics = Vec::with_capacity(page.items.len());
    for queue in &page.items {
        let mut census = Census::default();
        if queue.groups > 0 {
            api.groups_of(queue).await?.iter().for_each(|group| census.count(group));
        }
        topics.push(json!({
            "name": queue.name,
            "backend": queue.backend.name(),
            "kind": queue.settings.kind.name(),
            "unavailable": queue.unavailable,
            "messages": queue.messages,
            "bytes": queue.bytes,
            "scheduled": queue.scheduled,
            "lastOffset": queue.last_place,
            "groups": queue.groups,
            "activeConsumers": census.consumers,
            "pending": census.pending,
            "lag": census.lag,
            "published": figures(api.meters.figures(&queue.name, Flow::Published)),
            "consumed": consumed(&api, &queue.name, queue.backend),
        }));
    }
    Ok(Answer(json!({ "windowSeconds": WINDOW.as_secs(), "topics": topics, "next": page.next })))
}

async fn consumers(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Answer<Value>, ApiError> {
    let (groups, next) = api.groups(page_items(query.limit)?, query.after.as_deref()).await?;
    let consumer = |group: &KeptGroup| {
        let mut shown = subscriptions::shown(group);
        // Of the queue, by this gateway: its groups' together.
        shown["consumed"] = consumed(&api, &group.queue, group.backend);
        shown
    };
    let consumers: Vec<Value> = groups.iter().map(consumer).collect();
    Ok(Answer(json!({ "windowSeconds": WINDOW.as_secs(), "consumers": consumers, "next": next })))
}

/// Whether the database answers, and how fast.
async fn database(api: &Api) -> (bool, Value) {
    let started = tokio::time::Instant::now();
    let probed = tokio::time::timeout(PROBE_LIMIT, api.queues.store().list(1, None)).await;
    let latency = rounded(started.elapsed().as_secs_f64() * 1_000.0);
    match probed {
        Ok(Ok(_)) => (true, json!({ "status": "up", "latencyMs": latency })),
        Ok(Err(error)) => (false, json!({ "status": "down", "latencyMs": latency, "error": error.to_string() })),
        Err(_) => (false, json!({ "status": "down", "error": format!("no answer within {PROBE_LIMIT:?}") })),
    }
}

/// Pipelines' connections: how many, and those that are missing.
fn connections(api: &Api) -> (bool, Value) {
    let snapshot = Arc::clone(&api.running.borrow());
    let missing: Vec<Value> = snapshot
        .links
        .iter()
        .filter_map(|link| match &*link.state.borrow() {
            LinkState::Connected | LinkState::Stopped => None,
            LinkState::Connecting(error) => {
                Some(json!({ "pipeline": *link.pipeline, "name": *link.name, "system": link.system, "error": error }))
            }
        })
        .collect();
    let total = snapshot.links.len();
    (missing.is_empty(), json!({ "total": total, "connected": total - missing.len(), "missing": missing }))
}

/// 200 while the database answers, 503 when it does not. Brokers that are away make it `degraded`: queues work on.
pub(super) async fn health(State(api): State<Api>) -> Response {
    let (is_up, database) = database(&api).await;
    let (all_connected, connections) = connections(&api);
    let stopping = api.running.borrow().stopping;
    let (status, word) = match (is_up && !stopping, all_connected) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "down"),
        (true, false) => (StatusCode::OK, "degraded"),
        (true, true) => (StatusCode::OK, "up"),
    };
    let shown = json!({ "status": word, "stopping": stopping, "database": database, "connections": connections });
    let mut response = Answer(shown).into_response();
    *response.status_mut() = status;
    response
}

pub(super) async fn status(State(api): State<Api>) -> Result<Answer<Value>, ApiError> {
    let census = Census::take(&api).await?;
    let (_, database) = database(&api).await;
    let (_, connections) = connections(&api);
    let pipelines: Vec<Value> = api.config.borrow().pipelines.iter().map(|pipeline| json!(*pipeline.name)).collect();
    let snapshot = Arc::clone(&api.running.borrow());
    Ok(Answer(json!({
        "at": print_time(now_ms()),
        "version": env!("CARGO_PKG_VERSION"),
        "configVersion": snapshot.config_version,
        "stopping": snapshot.stopping,
        "uptimeSeconds": api.meters.uptime().as_secs(),
        "database": database,
        "connections": connections,
        "pipelines": pipelines,
        "queues": census.shown(),
    })))
}
