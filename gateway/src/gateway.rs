//! A running gateway: its pipelines, its server, and how they change and stop.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use sluicegate_connectors::http::{Ingress, ServerLimits, serve};
use sluicegate_connectors::registry::SourceConfig;
use sluicegate_engine::link::{Link, LinkState};
use sluicegate_engine::pipeline::{Assembly, Ended, Order};
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::Store;
use sluicegate_store::queue::Queues;
use sluicegate_store::receipt::StoreReceipts;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{Api, QueueSchemas};
use crate::config::{AuthConfig, Config, PipelineConfig, ServerConfig};
use crate::grants::Grantor;
use crate::identity::{Audit, BOOTSTRAP_VARIABLE, Directory, Guard, first_key, keep_up};
use crate::queues::{AllQueues, Keeping, StoreQueues};
use crate::redriving;
use crate::server::{self, Snapshot, View};
use crate::store_options::store_options;
use crate::trace;
use crate::workshop::{LoadedPlugins, Workshop};

/// See the module.
pub struct Gateway {
    workshop: Workshop,
    /// Publishes what is scheduled and removes what is old.
    keeping: Keeping,
    config: Config,
    /// Shows the configuration in force to the API.
    in_force: watch::Sender<Arc<Config>>,
    running: Vec<Running>,
    /// Pipelines that were replaced or removed and still drain.
    retiring: JoinSet<usize>,
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

/// A pipeline that runs.
struct Running {
    config: PipelineConfig,
    links: Vec<Link>,
    stop: CancellationToken,
    /// Cancelled when the task has come to its end and nothing failed.
    done: CancellationToken,
    task: JoinHandle<Ended>,
}

/// Longest wait at the end for answers of idempotency keys to be recorded.
const RECORDING_LIMIT: Duration = Duration::from_secs(2);

/// An HTTP source connects to nothing outside the gateway.
const SOURCE_START_LIMIT: Duration = Duration::from_secs(1);

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
        let workshop = Workshop {
            host,
            ingress: Ingress::default(),
            grantor: Grantor::of(Arc::clone(&store)),
            store,
            receipts,
            queues,
            meters: Arc::default(),
        };
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
        let drain_limit = config.server.drain_timeout;
        let start = |(pipeline, assembly)| Running::start(pipeline, assembly, drain_limit);
        let running: Vec<Running> = config.pipelines.iter().cloned().zip(assemblies).map(start).collect();
        // The first request that is accepted shall find its path.
        for running in running.iter().filter(|running| running.config.source.system() == "http") {
            running.wait_for_source().await;
        }
        let (snapshot, seen) = watch::channel(Arc::default());
        let (in_force, shown) = watch::channel(Arc::new(config.clone()));
        let stop_redriving = CancellationToken::new();
        let redriving = redriving::run(Arc::clone(&workshop.store), shown.clone(), stop_redriving.clone());
        let redriving = tokio::spawn(redriving);
        let declared = shown.clone();
        let all_queues = AllQueues::new(&workshop.queues, move || Arc::clone(&declared.borrow().queues));
        let api = Api {
            store: Arc::clone(&workshop.store),
            config: shown,
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
        let stop_server = CancellationToken::new();
        let served = serve(listener, app, limits(&config.server), stop_server.clone().cancelled_owned());
        let server = tokio::spawn(async move {
            if let Err(error) = served.await {
                error!(%error, "the HTTP server ended");
            }
        });
        let keeping = Keeping::start(&workshop.queues);
        let gateway = Self {
            workshop,
            keeping,
            config,
            in_force,
            running,
            retiring: JoinSet::new(),
            snapshot,
            server,
            stop_server,
            redriving,
            stop_redriving,
            identity,
            stop_identity,
        };
        gateway.publish(false);
        info!(address = %address, pipelines = gateway.running.len(), config_version = %gateway.config.version, "sluicegate runs");
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
        let is_running = |pipeline: &&PipelineConfig| {
            self.running
                .iter()
                .any(|r| r.config.name == pipeline.name && r.config.fingerprint() == pipeline.fingerprint())
        };
        let (unchanged, changed): (Vec<_>, Vec<_>) = config.pipelines.iter().partition(is_running);
        let assemblies = self.workshop.build(&config, &changed, plugins).await?;
        if config.queues != self.config.queues {
            StoreQueues::new(&self.workshop.queues).declare_all(&config.queues).await?;
        }

        let mut changes = Changes { unchanged: unchanged.len(), ..Changes::default() };
        let kept: HashSet<&str> = config.pipelines.iter().map(|pipeline| &*pipeline.name).collect();
        for gone in self.running.extract_if(.., |running| !kept.contains(&*running.config.name)) {
            changes.removed.push(gone.config.name.to_string());
            gone.retire(&mut self.retiring);
        }
        let drain_limit = config.server.drain_timeout;
        for (pipeline, assembly) in changed.into_iter().cloned().zip(assemblies) {
            let name = pipeline.name.to_string();
            match self.running.iter().position(|running| running.config.name == pipeline.name) {
                None => {
                    changes.added.push(name);
                    self.running.push(Running::start(pipeline, assembly, drain_limit));
                }
                Some(at) => {
                    changes.replaced.push(name);
                    let predecessor = self.running.swap_remove(at);
                    self.running.push(predecessor.replace(pipeline, assembly, drain_limit, &mut self.retiring));
                }
            }
        }
        self.workshop.receipts.set(trace::settings(&config.receipts));
        self.in_force.send_replace(Arc::new(config.clone()));
        self.config = config;
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

    /// Waits until every pipeline has come to the end of its input; never, while one of them has a source without end.
    /// Cancel safe.
    pub async fn finished(&self) {
        for running in &self.running {
            running.done.cancelled().await;
        }
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
        for running in &self.running {
            running.stop.cancel();
        }
        let mut abandoned = 0;
        for running in self.running.drain(..) {
            abandoned += running.ended().await;
        }
        while let Some(given_back) = self.retiring.join_next().await {
            abandoned += given_back.unwrap_or_default();
        }
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
        let links = self.running.iter().flat_map(|running| running.links.iter().cloned()).collect();
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

impl Running {
    fn start(config: PipelineConfig, assembly: Assembly, drain_limit: Duration) -> Self {
        Self::start_after(None, config, assembly, drain_limit)
    }

    /// Starts once `predecessor`, which is stopping, has ended. Waiting is the new pipeline's, not the reload's: a
    /// predecessor that drains slowly holds up nothing else.
    fn start_after(
        predecessor: Option<Self>,
        config: PipelineConfig,
        assembly: Assembly,
        drain_limit: Duration,
    ) -> Self {
        let (links, stop, done) = (assembly.links(), CancellationToken::new(), CancellationToken::new());
        let (run, finished) = (assembly.run(stop.clone(), drain_limit), done.clone());
        let announce = announcement(&config);
        let task = tokio::spawn(async move {
            if let Some(predecessor) = predecessor {
                predecessor.ended().await;
            }
            announce();
            let ended = run.await;
            // A pipeline that failed has not finished: the gateway goes on, not ready, until someone looks.
            if !ended.failed {
                finished.cancel();
            }
            ended
        });
        Self { config, links, stop, done, task }
    }

    /// Waits until the source is connected, for at most a second.
    async fn wait_for_source(&self) {
        let Some(mut state) = self.links.first().map(|link| link.state.clone()) else { return };
        let connected = state.wait_for(|state| *state == LinkState::Connected);
        if timeout(SOURCE_START_LIMIT, connected).await.is_err() {
            warn!(pipeline = %self.config.name, "the source has not started yet; its path is answered 404 until it has");
        }
    }

    /// Starts the successor, before or after this one has drained.
    fn replace(
        self,
        config: PipelineConfig,
        assembly: Assembly,
        drain_limit: Duration,
        retiring: &mut JoinSet<usize>,
    ) -> Self {
        if self.must_end_before_its_successor() || config.order != Order::None {
            self.stop.cancel();
            return Self::start_after(Some(self), config, assembly, drain_limit);
        }
        let successor = Self::start(config, assembly, drain_limit);
        self.retire(retiring);
        successor
    }

    /// Two readers of one file would each keep its checkpoint; two pipelines would mix up the order of a key.
    fn must_end_before_its_successor(&self) -> bool {
        let reads_alone = match self.config.source {
            SourceConfig::File(_) | SourceConfig::Stdio(_) | SourceConfig::Generate(_) => true,
            SourceConfig::Http(_) | SourceConfig::Rabbitmq(_) | SourceConfig::Redis(_) | SourceConfig::Queue(_) => {
                false
            }
        };
        reads_alone || self.config.order != Order::None
    }

    fn retire(self, retiring: &mut JoinSet<usize>) {
        self.stop.cancel();
        retiring.spawn(self.ended());
    }

    async fn ended(self) -> usize {
        let name = self.config.name;
        match self.task.await {
            Ok(Ended { abandoned: 0, failed: false }) => {
                info!(pipeline = %name, "pipeline ended");
                0
            }
            Ok(Ended { abandoned, failed }) => {
                warn!(pipeline = %name, given_back = abandoned, failed, "pipeline ended with messages given back to its source");
                abandoned
            }
            Err(error) => {
                error!(pipeline = %name, %error, "the pipeline's task failed; its source delivers again what was in flight");
                0
            }
        }
    }
}

/// Says what starts, when it does.
fn announcement(config: &PipelineConfig) -> impl FnOnce() + Send + 'static {
    let (name, source) = (Arc::clone(&config.name), config.source.system());
    let targets: Vec<&str> = config.targets.iter().map(|(name, _)| &**name).collect();
    let steps: Vec<String> = config.steps.iter().map(|step| format!("{} {}", step.kind(), step.subject())).collect();
    let (targets, steps) = (targets.join(","), steps.join(" -> "));
    move || info!(pipeline = %name, source, steps, targets, "pipeline starts")
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
