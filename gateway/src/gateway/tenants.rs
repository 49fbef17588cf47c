//! How the gateway follows what tenants change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sluicegate_store::resource::ResourceId;
use sluicegate_store::tenant::{Realm, TenantName};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Gateway;
use crate::config::{self, Config, Diagnostics, Document, DocumentKind, Loaded, PipelineConfig};
use crate::tenancy::{Changed, PipelineState, States, Wanted};
use crate::trial::{Bench, BlockingBench};
use crate::workshop::LoadedPlugins;

/// A change that no news told of (a queue's, a message lost on the way) is seen within this.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Changes within this time of each other are followed together.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// After the store could not be read.
const PAUSE: Duration = Duration::from_secs(2);

/// News of what tenants have.
pub struct TenantNews {
    resources: watch::Receiver<u64>,
    tenants: watch::Receiver<u64>,
    /// Something has changed, and nobody has been told yet.
    is_pending: bool,
}

impl TenantNews {
    /// Waits until something may have changed, here or at another gateway on the same store. Cancel safe.
    pub async fn changed(&mut self) {
        let wait = if self.is_pending { SETTLE_TIME } else { self.next().await };
        // Dropped from here on, it is told the next time.
        self.is_pending = true;
        sleep(wait).await;
        self.is_pending = false;
        self.resources.mark_unchanged();
        self.tenants.mark_unchanged();
    }

    /// Waits for news, or until it is time to look without; returns how long to wait for more of it.
    async fn next(&mut self) -> Duration {
        let news = async {
            tokio::select! {
                changed = self.resources.changed() => changed,
                changed = self.tenants.changed() => changed,
            }
        };
        match timeout(LOOK_INTERVAL, news).await {
            Ok(Ok(())) => SETTLE_TIME,
            // A store that is closed has no more news.
            Ok(Err(_)) => PAUSE,
            Err(_) => Duration::ZERO,
        }
    }
}

impl Gateway {
    /// What to wait for before [`follow_tenants`](Self::follow_tenants).
    pub fn tenant_news(&self) -> TenantNews {
        let store = &self.workshop.store;
        TenantNews { resources: store.resources_changed(), tenants: store.tenant_news(), is_pending: false }
    }

    /// Runs what tenants have now: builds what is new first, then swaps pipeline by pipeline, as a reload does. What
    /// cannot be built leaves its predecessor running. If the store cannot be read, everything goes on as it is.
    pub async fn follow_tenants(&mut self) {
        let operator = Arc::clone(&self.shown.borrow());
        let changed = match self.tenancy.look(&operator, self.look_afresh).await {
            Ok(changed) => changed,
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "cannot look at what tenants have; their pipelines go on as they are"
                );
                return;
            }
        };
        self.look_afresh = false;
        if changed.is_empty() {
            return;
        }
        let mut states = States::clone(&self.tenancy.states().borrow());
        for changed in changed {
            let tenant = changed.tenant.clone();
            states.0.retain(|id, _| id.tenant != tenant);
            states.0.extend(self.swap_tenant(changed).await);
        }
        self.publish(false);
        // Last: who waits for a change to be live finds it so.
        self.tenancy.show(states);
    }

    async fn swap_tenant(&mut self, changed: Changed) -> BTreeMap<ResourceId, (u64, PipelineState)> {
        let Changed { tenant, loaded, mut mistakes, wanted } = changed;
        let realm = Realm::Tenant(tenant.clone());
        let (plugins, checked) = check_plugins(&loaded, self);
        if let Err(diagnostics) = checked {
            let diagnostics = Arc::new(diagnostics);
            let titles = loaded.config.pipelines.iter().map(title);
            mistakes.extend(
                titles.filter(|title| diagnostics.concern(title)).map(|title| (title, Arc::clone(&diagnostics))),
            );
        }
        let config = Arc::new(loaded.config.clone());
        let mut not_built: BTreeMap<String, Arc<str>> = BTreeMap::new();
        let (mut kept, mut swapped): (HashSet<&str>, usize) = (HashSet::new(), 0);
        for pipeline in config.pipelines.iter().filter(|pipeline| !mistakes.contains_key(&title(pipeline))) {
            kept.insert(&pipeline.name);
            if self.fleet.runs(pipeline) {
                continue;
            }
            match self.workshop.build(&config, &[pipeline], plugins.clone()).await {
                Ok(assemblies) => {
                    for assembly in assemblies {
                        self.fleet.put(pipeline.clone(), assembly);
                        swapped += 1;
                    }
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    warn!(tenant = %tenant, pipeline = %pipeline.name, error = text, "a tenant's pipeline cannot be built");
                    not_built.insert(title(pipeline), text.into());
                }
            }
        }
        let removed = self.fleet.keep_only(&realm, &kept);
        info!(tenant = %tenant, pipelines = kept.len(), swapped, removed = removed.len(), mistaken = mistakes.len(), "tenant's pipelines are up to date");
        self.put_in_force(tenant, config);
        let state = |wanted: &Wanted| match (&wanted.title, wanted.is_resting) {
            (_, true) => PipelineState::Paused,
            (title, false) => match (mistakes.get(title), not_built.get(title)) {
                (Some(diagnostics), _) => PipelineState::Mistaken(Arc::clone(diagnostics)),
                (None, Some(why)) => PipelineState::NotBuilt(Arc::clone(why)),
                (None, None) => PipelineState::Running,
            },
        };
        wanted.into_iter().map(|wanted| (wanted.id.clone(), (wanted.revision, state(&wanted)))).collect()
    }

    fn put_in_force(&self, tenant: TenantName, config: Arc<Config>) {
        self.in_force.send_modify(|in_force| {
            let tenants = &mut Arc::make_mut(in_force).tenants;
            if config.pipelines.is_empty() {
                drop(tenants.remove(&tenant))
            } else {
                drop(tenants.insert(tenant, config))
            }
        });
    }
}

/// What diagnostics call the document of a tenant's pipeline.
fn title(pipeline: &PipelineConfig) -> String {
    let name = pipeline.written_name().to_owned();
    Document { kind: DocumentKind::Pipeline, name, text: Arc::default() }.title()
}

/// Loads the plugins it names, beside the runtime's workers, and keeps those that can be used.
fn check_plugins(loaded: &Loaded, gateway: &Gateway) -> (LoadedPlugins, Result<(), Diagnostics>) {
    let bench = Bench::new(gateway.workshop.host.clone());
    let ask = BlockingBench { bench: &bench, runtime: Handle::current() };
    let checked = block_in_place(|| config::check_plugins(loaded, &ask));
    (bench.into_plugins(), checked)
}
