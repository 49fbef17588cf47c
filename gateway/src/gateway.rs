//! A running gateway: its pipelines, its server, and how they change and stop.

mod tenants;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use sluicegate_connectors::http::{Ingress, ServerLimits, serve};
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::Store;
use sluicegate_store::queue::Queues;
use sluicegate_store::receipt::StoreReceipts;
use sluicegate_store::tenant::Realm;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{Api, QueueSchemas};
use crate::config::{AuthConfig, Config, Offers, PipelineConfig, ServerConfig};
use crate::fleet::Fleet;
use crate::identity::{Audit, BOOTSTRAP_VARIABLE, Directory, Guard, first_key, keep_up};
use crate::in_force::InForce;
use crate::queues::{AllQueues, Keeping, StoreQueues};
use crate::redriving;
use crate::server::{self, Snapshot, View};
use crate::store_options::store_options;
use crate::tenancy::Tenancy;
use crate::trace;
use crate::workshop::{LoadedPlugins, Workshop};

/// See the module.
pub struct Gateway {
    workshop: Workshop,
    /// Publishes what is scheduled and removes what is old.
    keeping: Keeping,
    config: Config,
    /// Shows the operator's configuration to the API.
    shown: watch::Sender<Arc<Config>>,
    /// Shows whose pipelines run, and how they are configured.
    in_force: watch::Sender<Arc<InForce>>,
    fleet: Fleet,
    tenancy: Tenancy,
    /// Whether the tenants have to be looked at again, whatever they have.
    look_afresh: bool,
    snapshot: watch::Sender<Arc<Snapshot>>,
    server: JoinHandle<()>,
    stop_server: CancellationToken,
    /// Runs redrive jobs.
    redriving: JoinHandle<()>,
    stop_redriving: CancellationToken,
    /// Keeps what is known of keys and tenants up, and the audit within its bounds.
    identity: JoinHandle<()>,
    stop_identity: CancellationToken,
}

/// Longest wait at the end for answers of idempotency keys to be recorded.
const RECORDING_LIMIT: Duration = Duration::from_secs(2);

/// What a reload changed: names of pipelines.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New ones.
    pub added: Vec<String>,
    /// Replaced ones.
    pub replaced: Vec<String>,
    /// Gone ones.
    pub removed: Vec<String>,
    /// Those that went on as they were.
    pub unchanged: usize,
}

impl Gateway {
    /// Builds everything, listens, and only then starts the pipelines. `plugins` are those of the configuration that are
    /// loaded already.
    ///
    /// # Errors
    /// The data folder, a plugin or the listening address cannot be used; nothing was started then.
    pub async fn start(
        config: Config,
        host: PluginHost,
        plugins: LoadedPlugins,
        metrics: Option<PrometheusHandle>,
    ) -> anyhow::Result<Self> {
        let store = Arc::new(Store::open(store_options(&config)).await.context("cannot open the store")?);
        let receipts = Arc::new(StoreReceipts::start(Arc::clone(&store), trace::settings(&config.receipts)));
        let queues = Queues::new(Arc::clone(&store));
        StoreQueues::new(&queues).declare_all(&config.queues).await?;
        let workshop = Workshop { host, ingress: Ingress::default(), store, receipts, queues, meters: Arc::default() };
        let pipelines: Vec<&PipelineConfig> = config.pipelines.iter().collect();
        let assemblies = workshop.build(&config, &pipelines, plugins).await?;

        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen}; is another gateway running? `server.listen` changes the address")
        })?;
        let address = listener.local_addr().unwrap_or(listen);
        let directory = Directory::new(Arc::clone(&workshop.store));
        let audit = Arc::new(Audit::new(Arc::clone(&workshop.store)));
        let guard =
            guard(&config, directory.clone(), Arc::clone(&audit), workshop.ingress.clone(), &workshop.store).await?;
        let mut fleet = Fleet::new(config.server.drain_timeout);
        for (pipeline, assembly) in config.pipelines.iter().cloned().zip(assemblies) {
            fleet.put(pipeline, assembly);
        }
        let (snapshot, seen) = watch::channel(Arc::default());
        let (shown, seen_config) = watch::channel(Arc::new(config.clone()));
        let (in_force, seen_in_force) = watch::channel(Arc::new(InForce::of(Arc::new(config.clone()))));
        let stop_redriving = CancellationToken::new();
        let redriving = redriving::run(Arc::clone(&workshop.store), seen_in_force.clone(), stop_redriving.clone());
        let redriving = tokio::spawn(redriving);
        let declared = seen_config.clone();
        let all_queues = AllQueues::new(&workshop.queues, move || Arc::clone(&declared.borrow().queues));
        let tenancy = Tenancy::new(Arc::clone(&workshop.store), workshop.queues.clone());
        let api = Api {
            store: Arc::clone(&workshop.store),
            config: seen_config,
            in_force: seen_in_force,
            states: tenancy.states(),
            host: workshop.host.clone(),
            queues: all_queues,
            meters: Arc::clone(&workshop.meters),
            schemas: QueueSchemas::default(),
            running: seen.clone(),
        };
        let stop_identity = CancellationToken::new();
        let keep_up = keep_up(directory, audit, api.config.clone(), stop_identity.clone());
        let identity = tokio::spawn(keep_up);
        let app = server::router(View { running: seen, metrics }, api, &workshop.ingress, guard);
        let keeping = Keeping::start(&workshop.queues);
        let stop_server = CancellationToken::new();
        let mut gateway = Self {
            workshop,
            keeping,
            config,
            shown,
            in_force,
            fleet,
            tenancy,
            look_afresh: true,
            snapshot,
            // Until it serves there is nothing to stop.
            server: tokio::spawn(std::future::ready(())),
            stop_server: stop_server.clone(),
            redriving,
            stop_redriving,
            identity,
            stop_identity,
        };
        gateway.follow_tenants().await;
        // The first request that is accepted shall find its path.
        gateway.fleet.listen().await;
        let served = serve(listener, app, limits(&gateway.config.server), stop_server.cancelled_owned());
        gateway.server = tokio::spawn(async move {
            if let Err(error) = served.await {
                error!(%error, "the HTTP server ended");
            }
        });
        gateway.publish(false);
        info!(address = %address, pipelines = gateway.fleet.len(), config_version = %gateway.config.version, "sluicegate runs");
        Ok(gateway)
    }

    /// Takes over a new configuration: builds all that is new first, then swaps pipeline by pipeline. What has not
    /// changed is not touched; what was replaced drains beside its successor, unless both would use the same file or
    /// the pipeline promises an order: then the successor starts once the predecessor has drained.
    ///
    /// # Errors
    /// Something new cannot be built, or a setting changed that only a restart can change; nothing has changed then.
    pub async fn reload(&mut self, config: Config, plugins: LoadedPlugins) -> anyhow::Result<Changes> {
        if config.data_dir != self.config.data_dir {
            anyhow::bail!(
                "data_dir changed from {} to {}; restart the gateway for that",
                self.config.data_dir.display(),
                config.data_dir.display()
            );
        }
        if config.store != self.config.store || config.encryption != self.config.encryption {
            anyhow::bail!("`store` or `encryption` changed; restart the gateway for that");
        }
        if config.server != self.config.server || config.auth != self.config.auth {
            anyhow::bail!("`server` or `auth` changed; restart the gateway for that");
        }
        let (unchanged, changed): (Vec<_>, Vec<_>) = config.pipelines.iter().partition(|p| self.fleet.runs(p));
        let assemblies = self.workshop.build(&config, &changed, plugins).await?;
        if config.queues != self.config.queues {
            StoreQueues::new(&self.workshop.queues).declare_all(&config.queues).await?;
        }

        let mut changes = Changes { unchanged: unchanged.len(), ..Changes::default() };
        let kept: HashSet<&str> = config.pipelines.iter().map(|pipeline| &*pipeline.name).collect();
        changes.removed = self.fleet.keep_only(&Realm::Operator, &kept);
        for (pipeline, assembly) in changed.into_iter().cloned().zip(assemblies) {
            let name = pipeline.name.to_string();
            if self.fleet.put(pipeline, assembly) { changes.replaced.push(name) } else { changes.added.push(name) }
        }
        self.workshop.receipts.set(trace::settings(&config.receipts));
        let shown = Arc::new(config.clone());
        self.in_force.send_modify(|in_force| Arc::make_mut(in_force).operator = Arc::clone(&shown));
        self.shown.send_replace(shown);
        self.config = config;
        // What tenants are granted may be another thing now.
        self.look_afresh = true;
        self.follow_tenants().await;
        self.publish(false);
        info!(config_version = %self.config.version, added = changes.added.join(","), replaced = changes.replaced.join(","),
            removed = changes.removed.join(","), unchanged = changes.unchanged, "configuration reloaded");
        Ok(changes)
    }

    /// What compiles and runs its plugins.
    pub fn host(&self) -> &PluginHost {
        &self.workshop.host
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Waits until every pipeline has come to the end of its input; never, while one of them has a source without end, or
    /// where tenants may make pipelines. Cancel safe.
    pub async fn finished(&self) {
        if self.fleet.len() == 0 || self.config.offers != Offers::default() {
            std::future::pending::<()>().await;
        }
        self.fleet.finished().await;
    }

    /// Stops reading, drains within the drain limit, gives back what is left, closes. Returns how many messages were
    /// given back.
    pub async fn stop(mut self) -> usize {
        info!(drain_limit = ?self.config.server.drain_timeout, "stopping: no more messages are read, those in flight are finished");
        self.publish(true);
        self.stop_redriving.cancel();
        if let Err(error) = (&mut self.redriving).await {
            error!(%error, "the task of redrive jobs failed");
        }
        let abandoned = self.fleet.stop().await;
        // Only now: requests that wait for their outcome have it.
        self.stop_server.cancel();
        if let Err(error) = (&mut self.server).await {
            error!(%error, "the HTTP server's task failed");
        }
        self.stop_identity.cancel();
        if let Err(error) = (&mut self.identity).await {
            error!(%error, "the task of keys and tenants failed");
        }
        // Nothing delivers any more, so what is still to be recorded of requests without clients is so at once.
        if timeout(RECORDING_LIMIT, self.workshop.ingress.finished()).await.is_err() {
            warn!(
                "answers of idempotency keys were not recorded within {RECORDING_LIMIT:?}; repetitions of these requests are delivered again"
            );
        }
        self.workshop.receipts.close().await;
        self.keeping.stop().await;
        self.workshop.store.close().await;
        info!(given_back = abandoned, "stopped");
        abandoned
    }

    fn publish(&self, stopping: bool) {
        let links = self.fleet.links().cloned().collect();
        let config_version = self.config.version.to_string();
        self.snapshot.send_replace(Arc::new(Snapshot { config_version, links, stopping }));
    }
}

/// What stands before the server, as configured. Where keys are asked for and there is none yet, the first one is made and
/// shown on standard error.
async fn guard(
    config: &Config,
    directory: Directory,
    audit: Arc<Audit>,
    ingress: Ingress,
    store: &Store,
) -> anyhow::Result<Guard> {
    if let AuthConfig::Required(required) = &config.auth
        && required.keys
    {
        let given = std::env::var(BOOTSTRAP_VARIABLE).ok();
        if let Some(shown_once) = first_key(store, given.as_deref()).await? {
            // Not through the log: whoever collects logs must not have it.
            eprintln!("{shown_once}");
        }
    }
    Guard::new(&config.auth, config.server.access_log, directory, audit, ingress).await
}

fn limits(config: &ServerConfig) -> ServerLimits {
    ServerLimits {
        max_connections: config.max_connections,
        header_read: config.header_read_timeout,
        body_read: config.body_read_timeout,
        // Everything in flight has been answered by then; who still uploads has waited for the drain already.
        shutdown_grace: Duration::from_secs(2),
        ..ServerLimits::default()
    }
}
