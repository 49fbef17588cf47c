//! The gateway's HTTP server: `/health`, `/ready`, `/metrics`, and the paths of HTTP sources.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use sluicegate_connectors::http::Ingress;
use sluicegate_engine::link::{End, Link, LinkState};
use sluicegate_store::tenant::Realm;
use tokio::sync::watch;

use crate::api::{self, Api};
use crate::identity::Guard;

/// What the server shows of the gateway.
#[derive(Clone)]
pub struct View {
    /// The connections of all running pipelines, and the configuration's version.
    pub running: watch::Receiver<Arc<Snapshot>>,
    /// The metrics, if they are recorded.
    pub metrics: Option<PrometheusHandle>,
}

/// What runs at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The configuration's version.
    pub config_version: String,
    /// All connections.
    pub links: Vec<Link>,
    /// Whether the gateway is stopping.
    pub stopping: bool,
}

/// The whole server, with `guard` before it.
pub fn router(view: View, api: Api, ingress: &Ingress, guard: Guard) -> Router {
    let open = Router::new()
        .route("/health", get(|| async { document(StatusCode::OK, &json!({ "status": "ok" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(view)
        .merge(api::router(api));
    guard.before(open.fallback_service(ingress.router()))
}

/// 200 when every source and target of the operator's pipelines is connected, 503 with the same document otherwise: a gateway that cannot reach
/// one of its brokers works, but not for everybody.
async fn ready(State(view): State<View>) -> Response {
    let snapshot = Arc::clone(&view.running.borrow());
    // A tenant's broken webhook is the tenant's, and nobody else's to see.
    let links: Vec<&Link> = snapshot.links.iter().filter(|link| Realm::of(&link.pipeline) == Realm::Operator).collect();
    let ready = !snapshot.stopping && links.iter().all(|link| usable(link));
    let links: Vec<Value> = links.into_iter().map(describe).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = json!({
        "ready": ready,
        "stopping": snapshot.stopping,
        "configVersion": snapshot.config_version,
        "links": links,
    });
    document(status, &answer)
}

fn document(status: StatusCode, answer: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

fn usable(link: &Link) -> bool {
    // A source that has come to its end, such as a file, is not missing.
    matches!(*link.state.borrow(), LinkState::Connected | LinkState::Stopped)
}

fn describe(link: &Link) -> Value {
    let (state, error) = match &*link.state.borrow() {
        LinkState::Connected => ("connected", None),
        LinkState::Stopped => ("stopped", None),
        LinkState::Connecting(error) => ("connecting", error.clone()),
    };
    let end = match link.end {
        End::Source => "source",
        End::Target => "target",
    };
    json!({ "pipeline": *link.pipeline, "end": end, "name": *link.name, "system": link.system, "state": state, "error": error })
}

async fn metrics(State(view): State<View>) -> Response {
    match view.metrics {
        Some(handle) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "metrics are not recorded").into_response(),
    }
}
