//! The configurations in force: the operator's, and of each tenant its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_store::tenant::{Realm, TenantName};

use crate::config::{Config, PipelineConfig};

/// See the module. A pipeline goes with the configuration it stands in: schemas and plugins have their names there.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The operator's.
    pub operator: Arc<Config>,
    /// Those of tenants that have pipelines.
    pub tenants: BTreeMap<TenantName, Arc<Config>>,
}

impl InForce {
    /// The operator's alone.
    pub fn of(operator: Arc<Config>) -> Self {
        Self { operator, tenants: BTreeMap::new() }
    }

    /// A pipeline by its full name, with its configuration.
    pub fn pipeline(&self, name: &str) -> Option<(&Arc<Config>, &PipelineConfig)> {
        let config = match Realm::of(name) {
            Realm::Operator => &self.operator,
            Realm::Tenant(tenant) => self.tenants.get(&tenant)?,
        };
        config.pipeline(name).map(|pipeline| (config, pipeline))
    }

    /// All pipelines.
    pub fn pipelines(&self) -> impl Iterator<Item = &PipelineConfig> {
        let tenants = self.tenants.values().flat_map(|config| &config.pipelines);
        self.operator.pipelines.iter().chain(tenants)
    }
}
