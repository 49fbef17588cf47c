//! The HTTP API, `/api/v1/…`: one file a resource. Answers are JSON; refusals are [`ApiError`]s.

mod audit;
mod dead_letters;
mod error;
mod input;
mod keys;
mod message_form;
mod messages;
mod monitoring;
mod publish;
mod queue_error;
mod queue_form;
mod queue_messages;
mod queue_schemas;
mod queues;
mod resources;
mod service;
mod subscriptions;
mod tenants;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::Store;
use tokio::sync::watch;

use crate::config::Config;
use crate::in_force::InForce;
use crate::queue_meters::QueueMeters;
use crate::queues::AllQueues;
use crate::server::Snapshot;
use crate::tenancy::States;

pub use error::{ApiCode, ApiError};
pub use input::{Answer, Input, Query, Segments, TextInput};
pub(crate) use keys::{shown as shown_key, shown_once as shown_key_once};
pub(crate) use message_form::{ShownListed, shown as shown_message};
pub(crate) use queue_form::ShownQueue;
pub use queue_schemas::QueueSchemas;
pub(crate) use subscriptions::shown as shown_group;
pub(crate) use tenants::shown as shown_tenant;

/// Largest body of a request to the API.
pub const MAX_API_BODY_BYTES: usize = 4 << 20;

/// What the API works on.
#[derive(Clone)]
pub struct Api {
    /// All state.
    pub store: Arc<Store>,
    /// The operator's configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// All configurations in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// What has become of tenants' pipelines.
    pub states: watch::Receiver<Arc<States>>,
    /// Runs plugins in dry runs.
    pub host: PluginHost,
    /// Managed queues.
    pub queues: AllQueues,
    /// What this gateway measures of them.
    pub meters: Arc<QueueMeters>,
    /// Their schemas, compiled.
    pub schemas: QueueSchemas,
    /// What runs at the moment.
    pub running: watch::Receiver<Arc<Snapshot>>,
}

/// All paths of the API: `/api/v1/…`, and `/internal/mq/…` with the queues for services.
pub fn router(api: Api) -> Router {
    let unknown = || async { ApiError::new(ApiCode::PathNotFound, "the API has no such path") };
    let wrong_method = || async {
        ApiError::new(ApiCode::MethodNotAllowed, "this path has no such method; the header `Allow` lists those it has")
    };
    let resources: Router<Api> = Router::new().merge(messages::routes()).merge(dead_letters::routes()).merge(mq());
    let resources =
        resources.merge(tenants::routes()).merge(keys::routes()).merge(audit::routes()).merge(service::routes());
    let resources = resources.merge(resources::routes());
    Router::new()
        .nest("/api/v1", resources.fallback(unknown).method_not_allowed_fallback(wrong_method))
        .nest("/internal", mq().fallback(unknown).method_not_allowed_fallback(wrong_method))
        .layer(DefaultBodyLimit::max(MAX_API_BODY_BYTES))
        .with_state(api)
}

/// Everything about queues.
fn mq() -> Router<Api> {
    let queues = Router::new().merge(queues::routes()).merge(queue_messages::routes()).merge(publish::routes());
    queues.merge(subscriptions::routes()).merge(monitoring::routes())
}
