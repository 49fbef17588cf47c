//! What has become of tenants' pipelines, for the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_store::resource::ResourceId;

use crate::config::Diagnostics;

/// What has become of a pipeline.
#[derive(Debug, Clone)]
pub enum PipelineState {
    /// It runs.
    Running,
    /// It rests, as was asked.
    Paused,
    /// Its document has mistakes, perhaps since something it names has gone.
    Mistaken(Arc<Diagnostics>),
    /// It could not be built, for this reason. The one before goes on, if there was one.
    NotBuilt(Arc<str>),
}

/// By resource: the revision that was looked at, and what has become of it.
#[derive(Debug, Clone, Default)]
pub struct States(pub BTreeMap<ResourceId, (u64, PipelineState)>);

impl States {
    /// What has become of a resource in this revision or a later one; none while the gateway has not looked at it yet.
    pub fn of(&self, id: &ResourceId, revision: u64) -> Option<&PipelineState> {
        self.0.get(id).filter(|(seen, _)| *seen >= revision).map(|(_, state)| state)
    }
}
