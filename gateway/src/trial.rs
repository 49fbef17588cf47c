//! Pipelines and plugins without brokers: what `check` and `test` need of the plugin host.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Resumption, Settlement};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::memory::{MemoryDeadLetters, MemorySource, MemoryTarget};
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::{Assembly, State};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::source::{Connection, Inlet, Source};
use sluicegate_plugin_host::{PluginHost, Role};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::command::test::{PipelineTrial, Trial};
use crate::config::{self, Config, PipelineConfig, PluginConfig, PluginDescription, PluginSchemas};
use crate::grants::{self, Grantor};
use crate::workshop::{self, LoadedPlugins, Parts, target_part};

/// Loads plugins, each once, on behalf of a command.
pub struct Bench {
    host: PluginHost,
    plugins: Mutex<LoadedPlugins>,
}

impl Bench {
    /// `host` may have a cache of compiled code or none.
    pub fn new(host: PluginHost) -> Self {
        Self { host, plugins: Mutex::new(LoadedPlugins::default()) }
    }

    /// The plugins that were loaded on the way, so that nobody loads them again.
    pub fn into_plugins(self) -> LoadedPlugins {
        self.plugins.into_inner()
    }

    async fn describe(&self, plugin: &PluginConfig) -> anyhow::Result<PluginDescription> {
        let loaded = workshop::load(&self.host, &mut *self.plugins.lock().await, plugin).await?;
        let roles = loaded.roles().iter().map(|role| match role {
            Role::Filter => config::Role::Filter,
            Role::Transform => config::Role::Transform,
            Role::Route => config::Role::Route,
        });
        Ok(PluginDescription {
            roles: roles.collect(),
            config_schema: loaded.config_schema().clone(),
            needs: loaded.capabilities().iter().copied().map(grants::needed).collect(),
        })
    }

    /// Runs one message through a pipeline that keeps what it publishes.
    ///
    /// # Errors
    /// The pipeline cannot be built, or one of its steps panicked.
    pub async fn run(&self, config: &Config, pipeline: &PipelineConfig, message: Message) -> anyhow::Result<Trial> {
        self.run_from(config, pipeline, message, None).await
    }

    /// The same for a message that goes on in the middle of its way.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_from(
        &self,
        config: &Config,
        pipeline: &PipelineConfig,
        message: Message,
        resumption: Option<Resumption>,
    ) -> anyhow::Result<Trial> {
        let steps =
            workshop::steps(&self.host, &Grantor::Trial, &mut *self.plugins.lock().await, config, pipeline).await?;
        let source = MemorySource::of([message]);
        let targets: Vec<_> = pipeline.targets.iter().map(|(name, _)| (name, MemoryTarget::default())).collect();
        let parts = Parts {
            source_system: "memory",
            source: Box::new(Resuming { source: source.clone(), resumption }),
            targets: targets
                .iter()
                .map(|(name, target)| target_part(name, "memory", Box::new(target.clone())))
                .collect(),
            dead_letters: Arc::new(MemoryDeadLetters::default()),
            state: State::default(),
        };
        let mut blueprint = workshop::blueprint(config, pipeline, steps, parts);
        // A plugin that asks for a retry would be asked the same again: its clock and randomness come of the message.
        blueprint.retry = RetryPolicy { max_attempts: 1, ..blueprint.retry };
        Assembly::new(blueprint).run(CancellationToken::new(), std::time::Duration::ZERO).await;

        let published = targets.iter().flat_map(|(name, target)| {
            target.published().into_iter().map(|message| (Arc::clone(name), Arc::new(message)))
        });
        let ended =
            source.settled().into_iter().map(|(_, outcome)| outcome).find(|o| o.settlement != Settlement::Requeued);
        let outcome =
            ended.ok_or_else(|| anyhow::anyhow!("the message was not settled: a step of the pipeline panicked"))?;
        Ok(Trial { published: published.collect(), outcome })
    }
}

/// A source in memory whose message has come some of its way already.
struct Resuming {
    source: MemorySource,
    resumption: Option<Resumption>,
}

#[async_trait]
impl Source for Resuming {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let connection = self.source.connect().await?;
        let inlet = Box::new(ResumingInlet { inlet: connection.inlet, resumption: self.resumption.clone() });
        Ok(Connection { inlet, ..connection })
    }
}

struct ResumingInlet {
    inlet: Box<dyn Inlet>,
    resumption: Option<Resumption>,
}

#[async_trait]
impl Inlet for ResumingInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        let mut received = self.inlet.receive(max).await?;
        for received in &mut received {
            received.resumption = self.resumption.clone().map(Box::new);
        }
        Ok(received)
    }
}

/// A bench as `check` asks it, from a thread that may block.
pub struct BlockingBench<'a> {
    /// What is asked.
    pub bench: &'a Bench,
    /// The runtime that loads plugins.
    pub runtime: Handle,
}

impl PluginSchemas for BlockingBench<'_> {
    fn describe(&self, plugin: &PluginConfig) -> Result<PluginDescription, String> {
        self.runtime.block_on(self.bench.describe(plugin)).map_err(|error| format!("{error:#}"))
    }
}

/// A bench with the configuration whose pipelines it tries.
pub struct ConfigBench<'a> {
    /// What runs them.
    pub bench: &'a Bench,
    /// The configuration.
    pub config: &'a Config,
}

#[async_trait]
impl PipelineTrial for ConfigBench<'_> {
    async fn run(&self, pipeline: &PipelineConfig, message: Message) -> Result<Trial, String> {
        self.bench.run(self.config, pipeline, message).await.map_err(|error| format!("{error:#}"))
    }
}
