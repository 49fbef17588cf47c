//! The pipelines that run, and those that were replaced or removed and still drain.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_connectors::registry::SourceConfig;
use sluicegate_engine::link::{Link, LinkState};
use sluicegate_engine::pipeline::{Assembly, Ended, Order};
use sluicegate_store::tenant::Realm;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::PipelineConfig;

/// An HTTP source connects to nothing outside the gateway.
const SOURCE_START_LIMIT: Duration = Duration::from_secs(1);

/// All pipelines of a gateway. Names are unique: a tenant's bear the tenant's.
pub(crate) struct Fleet {
    running: Vec<Running>,
    retiring: JoinSet<usize>,
    drain_limit: Duration,
}

impl Fleet {
    /// None yet. `drain_limit`: how long a pipeline that is stopped may finish what it has.
    pub fn new(drain_limit: Duration) -> Self {
        Self { running: Vec::new(), retiring: JoinSet::new(), drain_limit }
    }

    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether a pipeline runs that behaves exactly so.
    pub fn runs(&self, pipeline: &PipelineConfig) -> bool {
        let same = |r: &Running| r.config.name == pipeline.name && r.config.fingerprint() == pipeline.fingerprint();
        self.running.iter().any(same)
    }

    /// Starts a pipeline; one of its name that runs drains beside it, unless both would use the same file or the pipeline
    /// promises an order: then the new one starts once the old one has drained. Returns whether there was one.
    pub fn put(&mut self, pipeline: PipelineConfig, assembly: Assembly) -> bool {
        let predecessor = self.running.iter().position(|running| running.config.name == pipeline.name);
        let replaces = predecessor.is_some();
        let started = match predecessor {
            None => Running::start(pipeline, assembly, self.drain_limit),
            Some(at) => {
                let predecessor = self.running.swap_remove(at);
                predecessor.replace(pipeline, assembly, self.drain_limit, &mut self.retiring)
            }
        };
        self.running.push(started);
        replaces
    }

    /// Stops the pipelines of a realm that are not among `kept`; they drain. Returns their names.
    pub fn keep_only(&mut self, realm: &Realm, kept: &HashSet<&str>) -> Vec<String> {
        let mut removed = Vec::new();
        let is_gone =
            |running: &mut Running| Realm::of(&running.config.name) == *realm && !kept.contains(&*running.config.name);
        for gone in self.running.extract_if(.., is_gone) {
            removed.push(gone.config.name.to_string());
            gone.retire(&mut self.retiring);
        }
        removed
    }

    /// The connections of all that run.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.running.iter().flat_map(|running| &running.links)
    }

    /// Waits until the paths of HTTP sources are there, so that the first request finds its own.
    pub async fn listen(&self) {
        for running in self.running.iter().filter(|running| running.config.source.system() == "http") {
            running.wait_for_source().await;
        }
    }

    /// Waits until every pipeline has come to the end of its input; never, while one of them has a source without end.
    /// Cancel safe.
    pub async fn finished(&self) {
        for running in &self.running {
            running.done.cancelled().await;
        }
    }

    /// Stops all, lets them drain, and returns how many messages were given back to their sources.
    pub async fn stop(&mut self) -> usize {
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
        abandoned
    }
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
