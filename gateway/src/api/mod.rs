//! The HTTP API, `/api/v1/…`: one file a resource. Answers are JSON; refusals are [`ApiError`]s.

mod dead_letters;
mod error;
mod input;
mod message_form;
mod messages;
mod monitoring;
mod plugins;
mod publish;
mod queue_error;
mod queue_form;
mod queue_messages;
mod queue_schemas;
mod queues;
mod subscriptions;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::map_request;
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::Store;
use sluicegate_store::queue::Queues;
use tokio::sync::watch;

use crate::compiling::Subprocess;
use crate::config::Config;
use crate::identity::Caller;
use crate::queue_meters::QueueMeters;
use crate::server::Snapshot;

pub use error::{ApiCode, ApiError};
pub use input::{Answer, Input, Query, Segments, TextInput};
pub(crate) use message_form::{ShownListed, shown as shown_message};
pub(crate) use queue_form::ShownQueue;
pub use queue_schemas::QueueSchemas;
pub(crate) use subscriptions::shown as shown_group;

/// Largest body of a request to the API.
pub const MAX_API_BODY_BYTES: usize = 4 << 20;

/// What the API works on.
#[derive(Clone)]
pub struct Api {
    /// All state.
    pub store: Arc<Store>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Runs plugins in dry runs.
    pub host: PluginHost,
    /// Compiles uploads.
    pub compiler: Subprocess,
    /// Managed queues.
    pub queues: Queues,
    /// What this gateway measures of them.
    pub meters: Arc<QueueMeters>,
    /// Their schemas, compiled.
    pub schemas: QueueSchemas,
    /// What runs at the moment.
    pub running: watch::Receiver<Arc<Snapshot>>,
}

/// All paths of the API.
pub fn router(api: Api) -> Router {
    let resources: Router<Api> = Router::new().merge(messages::routes()).merge(dead_letters::routes());
    let resources = resources.merge(queues::routes()).merge(queue_messages::routes()).merge(publish::routes());
    let resources = resources.merge(subscriptions::routes()).merge(monitoring::routes()).merge(plugins::routes());
    let unknown = || async { ApiError::new(ApiCode::PathNotFound, "the API has no such path") };
    let wrong_method = || async {
        ApiError::new(ApiCode::MethodNotAllowed, "this path has no such method; the header `Allow` lists those it has")
    };
    Router::new()
        .nest(
            "/api/v1",
            resources.fallback(unknown).method_not_allowed_fallback(wrong_method).layer(map_request(local)),
        )
        .layer(DefaultBodyLimit::max(MAX_API_BODY_BYTES))
        .with_state(api)
}

/// Until there is authentication: whoever reaches the gateway is its operator.
async fn local(mut request: Request) -> Request {
    request.extensions_mut().get_or_insert_with(Caller::local);
    request
}
