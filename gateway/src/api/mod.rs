//! The HTTP API, `/api/v1/…`: one file a resource. Answers are JSON; refusals are [`ApiError`]s.

mod dead_letters;
mod error;
mod input;
mod messages;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::Store;
use tokio::sync::watch;

use crate::config::Config;

pub use error::{ApiCode, ApiError};
pub use input::{Answer, Input, Query};

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
}

/// All paths of the API.
pub fn router(api: Api) -> Router {
    let resources: Router<Api> = Router::new().merge(messages::routes()).merge(dead_letters::routes());
    let unknown = || async { ApiError::new(ApiCode::PathNotFound, "the API has no such path") };
    Router::new()
        .nest("/api/v1", resources.fallback(unknown))
        .layer(DefaultBodyLimit::max(MAX_API_BODY_BYTES))
        .with_state(api)
}
