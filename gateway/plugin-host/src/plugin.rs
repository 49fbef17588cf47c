//! A loaded plugin, not yet configured.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::bindings::exports::sluicegate::plugin::{filtering, lifecycle, routing, transforming};
use crate::cache::{EntryId, hex};
use crate::component::{Role, Shape, inspect};
use crate::configured::ConfiguredPlugin;
use crate::error::{ConfigureError, LoadError};
use crate::grants::Capability;
use crate::host::{Host, blocking};
use crate::instance::Instance;
use crate::isolation::Settings;
use crate::limits::{Limits, MAX_CONFIG_BYTES};
use crate::measure::PluginMetrics;
use crate::state::State;

/// A component that was checked and compiled. Clones share it.
#[derive(Clone)]
pub struct Plugin(Arc<Loaded>);

/// What the configurations of a plugin share.
pub(crate) struct Loaded {
    pub host: Arc<Host>,
    pub name: Arc<str>,
    pub digest: String,
    pub component: Bytes,
    pub code: Code,
    pub metrics: PluginMetrics,
    pub shape: Shape,
    config_schema: Value,
}

/// Compiled code, linked, its exports looked up.
pub(crate) struct Code {
    pub pre: InstancePre<State>,
    pub exports: Exports,
}

/// Where the exports are.
pub(crate) struct Exports {
    pub lifecycle: lifecycle::GuestIndices,
    pub filtering: Option<filtering::GuestIndices>,
    pub transforming: Option<transforming::GuestIndices>,
    pub routing: Option<routing::GuestIndices>,
}

impl Plugin {
    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// SHA-256 of the component, as in `sha256:9f2c…`.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// Length of the component.
    pub fn size_bytes(&self) -> u64 {
        self.0.component.len() as u64
    }

    /// What it can do; never empty.
    pub fn roles(&self) -> &[Role] {
        &self.0.shape.roles
    }

    /// Everything it imports, as it names it.
    pub fn imports(&self) -> &[String] {
        &self.0.shape.imports
    }

    /// The capabilities that it imports, so that it has to be granted them before it can be configured.
    pub fn capabilities(&self) -> &[Capability] {
        self.0.capabilities()
    }

    /// JSON Schema of its configuration, an object or a boolean.
    pub fn config_schema(&self) -> &Value {
        &self.0.config_schema
    }

    /// Configures it: runs `configure` once, and under [`Isolation::Message`](crate::Isolation::Message) and
    /// [`Isolation::Batch`](crate::Isolation::Batch) makes a snapshot of the configured memory and compiles that, off
    /// the runtime's workers (the first time; the cache keeps it). Cancel safe.
    ///
    /// # Errors
    /// Every mistake that the plugin finds in `config`, or how it failed, or that `settings` ask for more than the host
    /// has, or that they do not grant what it imports.
    pub async fn configure(&self, config: &Value, settings: Settings) -> Result<ConfiguredPlugin, ConfigureError> {
        ConfiguredPlugin::new(Arc::clone(&self.0), config, settings).await
    }

    pub(crate) async fn load(host: Arc<Host>, name: &str, component: Bytes) -> Result<Self, LoadError> {
        let plugin = name.to_owned();
        let unusable = |text: String| LoadError::Compile { plugin: name.to_owned(), text };
        let (shape, digest, compiled) = {
            let (host, component) = (Arc::clone(&host), component.clone());
            let work = move || {
                let shape = inspect(&plugin, &component, host.config.max_component_bytes)?;
                let digest = Sha256::digest(&component);
                let compiled = host.compile(EntryId::of(&[b"component", &digest]), &component);
                Ok((shape, format!("sha256:{}", hex(&digest)), compiled))
            };
            blocking(work).await.map_err(unusable)??
        };
        let compiled = compiled.map_err(|error| unusable(format!("{error:#}")))?;
        let code = Code::link(&host, &compiled, &shape)
            .map_err(|error| LoadError::Contract { plugin: name.to_owned(), text: mismatch(&error) })?;
        let name: Arc<str> = Arc::from(name);
        let metrics = PluginMetrics::new(&name);
        let config_schema = ask_for_schema(&host, &code, &name, &metrics).await?;
        Ok(Self(Arc::new(Loaded { host, name, digest, component, code, metrics, shape, config_schema })))
    }
}

impl Code {
    /// Links what the component imports and nothing else.
    pub fn link(host: &Host, component: &Component, shape: &Shape) -> wasmtime::Result<Self> {
        let pre = if shape.capabilities.is_empty() {
            host.linker.instantiate_pre(component)?
        } else {
            let mut linker = host.linker.clone();
            for capability in &shape.capabilities {
                capability.link(&mut linker)?;
            }
            linker.instantiate_pre(component)?
        };
        let has = |role| shape.roles.contains(&role);
        let exports = Exports {
            lifecycle: lifecycle::GuestIndices::new(&pre)?,
            filtering: has(Role::Filter).then(|| filtering::GuestIndices::new(&pre)).transpose()?,
            transforming: has(Role::Transform).then(|| transforming::GuestIndices::new(&pre)).transpose()?,
            routing: has(Role::Route).then(|| routing::GuestIndices::new(&pre)).transpose()?,
        };
        Ok(Self { pre, exports })
    }
}

impl Loaded {
    pub fn roles(&self) -> &[Role] {
        &self.shape.roles
    }

    pub fn capabilities(&self) -> &[Capability] {
        &self.shape.capabilities
    }
}

fn mismatch(error: &wasmtime::Error) -> String {
    format!("its imports or exports do not fit the contract: {error:#}; rebuild it with the current sluicegate-plugin")
}

/// Makes an instance for nothing but this, under the default limits: whoever loads a plugin has none for it yet.
async fn ask_for_schema(
    host: &Arc<Host>,
    code: &Code,
    name: &Arc<str>,
    metrics: &PluginMetrics,
) -> Result<Value, LoadError> {
    let failed = |text: String| LoadError::ConfigSchema { plugin: name.to_string(), text };
    let limits = Limits::default().for_configure();
    let begin = |state: &mut State| state.begin_configure("config-schema", &limits);
    let mut instance = Instance::new(host, code, name, metrics, &limits, begin)
        .await
        .map_err(|failure| failed(failure.to_string()))?;
    instance
        .check_types(code)
        .map_err(|error| LoadError::Contract { plugin: name.to_string(), text: mismatch(&error) })?;
    let text = instance.config_schema(code, &limits).await.map_err(|failure| failed(failure.to_string()))?;
    if text.len() > MAX_CONFIG_BYTES {
        return Err(failed(format!("it has {} bytes, more than the limit of {MAX_CONFIG_BYTES}", text.len())));
    }
    let schema = sluicegate_engine::message::parse_json(text.as_bytes())
        .map_err(|error| failed(format!("the answer is not JSON: {error}")))?;
    if schema.is_object() || schema.is_boolean() {
        Ok(schema)
    } else {
        Err(failed("the answer is no JSON Schema: it is neither an object nor a boolean".to_owned()))
    }
}
