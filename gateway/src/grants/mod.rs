//! What stands behind a plugin's grants: the store, HTTP, secrets and metrics in a running gateway; doubles in memory where
//! a message is only tried.

mod doubles;
mod http;
mod metrics;
mod secrets;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context as _;
use sluicegate_connectors::http::outgoing::{Outgoing, OutgoingConfig};
use sluicegate_plugin_host::{Capability, Grants, HttpAccess, MetricsAccess, SecretsAccess, StateAccess};
use sluicegate_store::Store;
use sluicegate_store::state::StateSpace;
use sluicegate_store::tenant::Realm;

use crate::config::{NeededGrant, PluginConfig};

pub use doubles::{Doubles, MemoryState, NoHttp, ScriptedHttp};
pub use metrics::DeclaredMetrics;
pub use secrets::NamedSecrets;
pub use state::StoreState;

/// Makes what stands behind grants.
pub enum Grantor {
    /// The real things.
    Gateway {
        /// Keeps state.
        store: Arc<Store>,
        /// Those in use, so that all pipelines of a plugin share its rate.
        clients: Clients,
    },
    /// State in memory, fresh each time; secrets as configured; nothing is sent and nothing counted.
    Trial,
}

/// Clients by the plugin they are for.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<Arc<str>, Vec<(OutgoingConfig, Weak<Outgoing>)>>>);

impl Grantor {
    /// For a gateway with this store.
    pub fn of(store: Arc<Store>) -> Self {
        Self::Gateway { store, clients: Clients::default() }
    }

    /// What a plugin is granted by its configuration.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn grants(&self, plugin: &PluginConfig) -> anyhow::Result<Grants> {
        let granted = &plugin.grants;
        let http = granted.http.as_ref().map(|config| self.http(&plugin.name, config)).transpose()?;
        let secrets = || Arc::new(NamedSecrets::new(&granted.secrets)) as Arc<dyn SecretsAccess>;
        let metrics = || {
            let counts = matches!(self, Self::Gateway { .. });
            Arc::new(DeclaredMetrics::new(&plugin.name, &granted.metrics, counts)) as Arc<dyn MetricsAccess>
        };
        Ok(Grants {
            state: granted.state_bytes.map(|max_bytes| self.state(&plugin.name, max_bytes)),
            http,
            secrets: (!granted.secrets.is_empty()).then(secrets),
            metrics: (!granted.metrics.is_empty()).then(metrics),
            ..Grants::default()
        })
    }

    fn state(&self, plugin: &Arc<str>, max_bytes: u64) -> Arc<dyn StateAccess> {
        match self {
            Self::Gateway { store, .. } => {
                let realm = Realm::of(plugin);
                let name: Arc<str> = realm.short(plugin).unwrap_or(plugin).into();
                Arc::new(StoreState::new(Arc::clone(store), StateSpace::new(realm, name), max_bytes))
            }
            Self::Trial => Arc::new(MemoryState::new(max_bytes)),
        }
    }

    fn http(&self, plugin: &Arc<str>, config: &OutgoingConfig) -> anyhow::Result<Arc<dyn HttpAccess>> {
        match self {
            Self::Gateway { clients, .. } => Ok(Arc::new(http::OutgoingHttp(clients.get(plugin, config)?))),
            Self::Trial => Ok(Arc::new(NoHttp)),
        }
    }
}

impl Clients {
    fn get(&self, plugin: &Arc<str>, config: &OutgoingConfig) -> anyhow::Result<Arc<Outgoing>> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, of_plugin| {
            of_plugin.retain(|(_, client)| client.strong_count() > 0);
            !of_plugin.is_empty()
        });
        let of_plugin = clients.entry(Arc::clone(plugin)).or_default();
        let found = of_plugin.iter().find(|(known, _)| known == config).and_then(|(_, client)| client.upgrade());
        if let Some(client) = found {
            return Ok(client);
        }
        let client = Outgoing::new(config.clone()).map_err(anyhow::Error::msg);
        let client = Arc::new(client.with_context(|| format!("granting HTTP to plugin `{plugin}`"))?);
        of_plugin.push((config.clone(), Arc::downgrade(&client)));
        Ok(client)
    }
}

/// A capability as the checks of a configuration know it.
pub fn needed(capability: Capability) -> NeededGrant {
    NeededGrant { name: capability.name(), import: capability.import(), example: capability.example() }
}
