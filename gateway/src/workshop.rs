//! From a resolved configuration to pipelines that can run: the only place where settings become parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sluicegate_connectors::http::Ingress;
use sluicegate_connectors::queue::Access;
use sluicegate_connectors::registry::BuildContext;
use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_engine::deduplication::Deduplication;
use sluicegate_engine::pipeline::{Assembly, Blueprint, Order, State, TargetPart};
use sluicegate_engine::source::Source;
use sluicegate_engine::step::{Action, Step};
use sluicegate_engine::target::Target;
use sluicegate_engine::target_driver::TargetSettings;
use sluicegate_plugin_host::{ConfiguredPlugin, Grants, Isolation, Limits, Plugin, PluginHost, Settings};
use sluicegate_store::Store;
use sluicegate_store::deduplication::StoreDeduplication;
use sluicegate_store::inbox::StoreInbox;
use sluicegate_store::queue::Queues;
use sluicegate_store::receipt::StoreReceipts;

use crate::bundled;
use crate::config::{self, ComponentConfig, Config, PipelineConfig, PluginConfig, StepConfig};
use crate::dead_letters::StoreAndBroker;
use crate::grants::Grantor;
use crate::queue_meters::{MeasuredBackend, QueueMeters};
use crate::queues::StoreQueues;
use crate::spool::StoreSpool;
use crate::validation::SchemaStep;

/// Everything parts are made with.
pub struct Workshop {
    /// Compiles and runs plugins.
    pub host: PluginHost,
    /// Where HTTP sources take their paths.
    pub ingress: Ingress,
    /// What stands behind grants of plugins.
    pub grantor: Grantor,
    /// Keeps dead letters.
    pub store: Arc<Store>,
    /// Keeps receipts.
    pub receipts: Arc<StoreReceipts>,
    /// The store's queues.
    pub queues: Queues,
    /// What is measured of them.
    pub meters: Arc<QueueMeters>,
}

impl Workshop {
    /// Builds `pipelines` of `config`: compiles and configures their plugins unless they are among `plugins`, connects
    /// nothing.
    ///
    /// # Errors
    /// The first part that cannot be made, with the pipeline and step it is for.
    pub async fn build(
        &self,
        config: &Config,
        pipelines: &[&PipelineConfig],
        mut plugins: LoadedPlugins,
    ) -> anyhow::Result<Vec<Assembly>> {
        let mut assemblies = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            let steps = steps(&self.host, &self.grantor, &mut plugins, config, pipeline).await?;
            assemblies.push(Assembly::new(self.blueprint(config, pipeline, steps)));
        }
        Ok(assemblies)
    }

    fn blueprint(&self, config: &Config, pipeline: &PipelineConfig, steps: Vec<Step>) -> Blueprint {
        let context = BuildContext {
            pipeline: Arc::clone(&pipeline.name),
            base_dir: pipeline.base_dir.clone(),
            data_dir: config.data_dir.clone(),
            ingress: self.ingress.clone(),
            spool: Some(Arc::new(StoreSpool(Arc::clone(&self.store)))),
            ordered: pipeline.order != Order::None,
            queues: Access {
                backend: Some(Arc::new(MeasuredBackend::new(
                    Arc::new(StoreQueues::new(&self.queues)),
                    Arc::clone(&self.meters),
                ))),
                declared: Arc::clone(&config.queues),
            },
        };
        let settings = TargetSettings {
            max_in_flight: share(pipeline.max_in_flight, pipeline.targets.len()),
            publish_timeout: PUBLISH_TIMEOUT,
            ..TargetSettings::default()
        };
        let targets = pipeline.targets.iter().map(|(name, target)| TargetPart {
            name: Arc::clone(name),
            system: target.system(),
            target: target.build(&context),
            settings: settings.clone(),
        });
        let broker = pipeline.dead_letter.as_ref().map(|broker| broker.build(&pipeline.source, &context));
        let store: Arc<dyn DeadLetters> = self.store.clone();
        let parts = Parts {
            source_system: pipeline.source.system(),
            source: pipeline.source.build(&context),
            targets: targets.collect(),
            dead_letters: Arc::new(StoreAndBroker::new(store, broker)),
            state: self.state(pipeline),
        };
        blueprint(config, pipeline, steps, parts)
    }

    /// What the store keeps for a pipeline.
    fn state(&self, pipeline: &PipelineConfig) -> State {
        let deduplication = pipeline.deduplicate.map(|window| {
            let deduplication = StoreDeduplication::new(Arc::clone(&self.store), &pipeline.name, window);
            Arc::new(deduplication) as Arc<dyn Deduplication>
        });
        let inbox = StoreInbox::new(Arc::clone(&self.store), &pipeline.name);
        State { inbox: Some(Arc::new(inbox)), receipts: Some(self.receipts.clone()), deduplication }
    }
}

/// How many of a pipeline's messages in flight one of its targets may hold: a target that hangs shall leave room for the
/// others.
fn share(max_in_flight: usize, targets: usize) -> usize {
    (max_in_flight / targets.max(1)).max(MIN_SHARE).min(max_in_flight)
}

/// Fewer than this would slow every target down.
const MIN_SHARE: usize = 16;

/// The last resort against a target that never answers. Longer than any connector's own timeout, which says more: a
/// webhook may be given up to 300 s.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(330);

/// The ends of a pipeline: real ones, or in memory for `sluicegate test`.
pub struct Parts {
    /// The source's system.
    pub source_system: &'static str,
    /// The source.
    pub source: Box<dyn Source>,
    /// The targets.
    pub targets: Vec<TargetPart>,
    /// Where dead letters go.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// What the gateway keeps for the pipeline.
    pub state: State,
}

/// Puts a pipeline's settings, steps and ends together.
pub fn blueprint(config: &Config, pipeline: &PipelineConfig, steps: Vec<Step>, parts: Parts) -> Blueprint {
    Blueprint {
        name: Arc::clone(&pipeline.name),
        config_version: Arc::clone(&config.version),
        source_system: parts.source_system,
        source: parts.source,
        steps,
        targets: parts.targets,
        retry: pipeline.retry.clone(),
        dead_letters: parts.dead_letters,
        max_in_flight: pipeline.max_in_flight,
        order: pipeline.order,
        handler_timeout: pipeline.handler_timeout,
        state: parts.state,
    }
}

/// A target of a name and system for [`Parts`].
pub fn target_part(name: &Arc<str>, system: &'static str, target: Box<dyn Target>) -> TargetPart {
    TargetPart { name: Arc::clone(name), system, target, settings: TargetSettings::default() }
}

/// Plugins that are loaded already, by name.
pub type LoadedPlugins = HashMap<Arc<str>, Plugin>;

/// Makes a pipeline's steps: schemas compiled, plugins loaded and configured.
///
/// # Errors
/// The first step that cannot be made.
pub async fn steps(
    host: &PluginHost,
    grantor: &Grantor,
    plugins: &mut LoadedPlugins,
    config: &Config,
    pipeline: &PipelineConfig,
) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(pipeline.steps.len());
    for (index, step) in pipeline.steps.iter().enumerate() {
        let made = action(host, grantor, plugins, config, step).await;
        let (action, plugin_digest) = made.with_context(|| {
            format!("pipeline `{}`, step {} ({} {})", pipeline.name, index + 1, step.kind(), step.subject())
        })?;
        let mut name = format!("{} {}", step.kind(), step.subject());
        if steps.iter().any(|earlier: &Step| *earlier.name == *name) {
            name = format!("{name} {}", index + 1);
        }
        steps.push(Step { name: name.into(), plugin_digest, action });
    }
    Ok(steps)
}

async fn action(
    host: &PluginHost,
    grantor: &Grantor,
    plugins: &mut LoadedPlugins,
    config: &Config,
    step: &StepConfig,
) -> anyhow::Result<(Action, Option<Arc<str>>)> {
    let mut digest = None;
    let configured = match step.plugin() {
        None => None,
        Some((plugin, plugin_config)) => {
            let loaded = load(host, plugins, plugin).await?;
            digest = Some(Arc::from(loaded.digest()));
            Some(loaded.configure(plugin_config, settings(plugin, grantor.grants(plugin)?)).await?)
        }
    };
    let lacks = |plugin: &ConfiguredPlugin, role: &str| {
        anyhow::anyhow!("plugin `{}` is no {role}; it can be: {}", step.subject(), roles(plugin))
    };
    let action = match (step, &configured) {
        (StepConfig::Validate { schema }, _) => {
            let schema = SchemaStep::build(&schema.name, &config.schemas).map_err(|mistakes| {
                let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                anyhow::anyhow!("schema `{}`: {}", schema.name, texts.join("; "))
            })?;
            Action::Validate(Arc::new(schema))
        }
        (StepConfig::Filter { .. }, Some(plugin)) => {
            Action::Filter(plugin.filter().ok_or_else(|| lacks(plugin, "filter"))?)
        }
        (StepConfig::Transform { .. }, Some(plugin)) => {
            Action::Transform(plugin.transform().ok_or_else(|| lacks(plugin, "transform"))?)
        }
        (StepConfig::Route { unroutable, .. }, Some(plugin)) => {
            Action::Route(plugin.route().ok_or_else(|| lacks(plugin, "router"))?, unroutable.clone())
        }
        (StepConfig::Filter { .. } | StepConfig::Transform { .. } | StepConfig::Route { .. }, None) => {
            bail!("it names no plugin")
        }
    };
    Ok((action, digest))
}

fn roles(plugin: &ConfiguredPlugin) -> String {
    let roles =
        [plugin.filter().map(|_| "filter"), plugin.transform().map(|_| "transform"), plugin.route().map(|_| "router")];
    roles.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Loads a plugin, once for each name.
///
/// # Errors
/// It cannot be loaded, or is not the one that was pinned.
pub async fn load(host: &PluginHost, plugins: &mut LoadedPlugins, plugin: &PluginConfig) -> anyhow::Result<Plugin> {
    if let Some(loaded) = plugins.get(&plugin.name) {
        return Ok(loaded.clone());
    }
    let component = match &plugin.component {
        ComponentConfig::File { bytes, .. } => bytes.clone(),
        ComponentConfig::Builtin(name) => {
            bundled::component(name).with_context(|| format!("there is no built-in plugin `{name}`"))?
        }
    };
    let loaded = host.load(&plugin.name, component).await?;
    if let Some(pin) = &plugin.pinned_sha256
        && loaded.digest() != format!("sha256:{pin}")
    {
        bail!("plugin `{}` is {}, not the pinned sha256:{pin}", plugin.name, loaded.digest());
    }
    plugins.insert(Arc::clone(&plugin.name), loaded.clone());
    Ok(loaded)
}

fn settings(plugin: &PluginConfig, grants: Grants) -> Settings {
    Settings {
        grants,
        isolation: match plugin.isolation {
            config::Isolation::Message => Isolation::Message,
            config::Isolation::Batch => Isolation::Batch,
            config::Isolation::Reuse => Isolation::Reuse,
        },
        limits: Limits {
            cpu: plugin.limits.cpu,
            memory_bytes: plugin.limits.memory_bytes,
            output_bytes: plugin.limits.output_bytes,
            ..Limits::default()
        },
    }
}
