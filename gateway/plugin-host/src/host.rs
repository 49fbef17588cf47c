//! The host: one engine, one pool of instances and one cache of compiled code for all plugins of the gateway.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::sluicegate::plugin::{log, messages};
use crate::cache::{Cache, EntryId};
use crate::engine::{Ticker, engine};
use crate::error::{HostError, LoadError};
use crate::plugin::Plugin;
use crate::slots::Slots;
use crate::state::State;
use crate::wasi;

/// How the host is set up. All sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// Folder of compiled code and its key; made if missing. Without one every start compiles every plugin again.
    pub cache_dir: Option<PathBuf>,
    /// The cache may hold this much; entries not used for the longest time make room.
    pub max_cache_bytes: u64,
    /// Longest component that is accepted.
    pub max_component_bytes: u64,
    /// Instances alive at the same time, of all plugins. Each reserves some 8 GiB of address space, not memory.
    pub max_instances: u32,
    /// Idle instances that one configuration keeps under [`Isolation::Reuse`](crate::Isolation::Reuse) and
    /// [`Isolation::Batch`](crate::Isolation::Batch).
    pub max_idle_instances: usize,
    /// Largest memory that any plugin's limits may allow.
    pub max_memory_bytes: u64,
    /// How long a call waits for one of the `max_instances` before it fails as `unavailable`.
    pub max_instance_wait: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            max_cache_bytes: 2 * 1_024 * 1_024 * 1_024,
            max_component_bytes: 10 * 1_024 * 1_024,
            max_instances: 1_000,
            max_idle_instances: 2 * std::thread::available_parallelism().map_or(1, usize::from),
            max_memory_bytes: 256 * 1_024 * 1_024,
            max_instance_wait: Duration::from_secs(5),
        }
    }
}

/// Compiles and runs plugins. Clones share everything; the last one dropped ends the ticker thread.
#[derive(Clone)]
pub struct PluginHost(Arc<Host>);

/// What plugins need of their host.
pub(crate) struct Host {
    pub engine: Engine,
    pub linker: Linker<State>,
    pub slots: Slots,
    pub config: HostConfig,
    cache: Option<Cache>,
    /// One compilation at a time: it uses all processors by itself, and messages want some of them.
    compiling: Mutex<()>,
    pub ticker: Ticker,
}

impl PluginHost {
    /// Starts the host. Reads and writes a few files, so call it before messages flow.
    ///
    /// # Errors
    /// When the address space for the instances cannot be had, or the cache folder cannot be used.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let refused = |text: String| HostError::Engine { max_instances: config.max_instances, text };
        let max_memory_bytes = usize::try_from(config.max_memory_bytes).unwrap_or(usize::MAX);
        let engine = engine(config.max_instances, max_memory_bytes).map_err(|error| refused(format!("{error:#}")))?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(|error| refused(format!("{error:#}")))?;
        let cache = match &config.cache_dir {
            Some(folder) => {
                let opened = Cache::open(folder, &engine, config.max_cache_bytes);
                Some(opened.map_err(|error| HostError::Cache { path: folder.clone(), text: error.to_string() })?)
            }
            None => None,
        };
        let ticker = Ticker::start(engine.clone()).map_err(|error| refused(error.to_string()))?;
        Ok(Self(Arc::new(Host {
            slots: Slots::new(config.max_instances, config.max_instance_wait),
            engine,
            linker,
            config,
            cache,
            compiling: Mutex::new(()),
            ticker,
        })))
    }

    /// Takes a component: checks what it is and imports, compiles it on a blocking thread (or takes it from the cache),
    /// and asks it for its configuration schema. `name` is the plugin's configured name, used in errors, logs and
    /// metrics. Cancel safe; a compilation that has begun goes on and ends in the cache.
    ///
    /// # Errors
    /// What is wrong with the component and what to do, see [`LoadError`].
    pub async fn load(&self, name: &str, component: Bytes) -> Result<Plugin, LoadError> {
        Plugin::load(Arc::clone(&self.0), name, component).await
    }
}

fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasi::link(linker)?;
    log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    messages::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl Host {
    /// The component compiled, from the cache if it is there. Blocks, for seconds if it must compile.
    pub fn compile(&self, id: EntryId, component: &[u8]) -> wasmtime::Result<Component> {
        if let Some(component) = self.cached(id) {
            return Ok(component);
        }
        let compiled = {
            let _one_at_a_time = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
            Component::from_binary(&self.engine, component)?
        };
        if let Some(cache) = &self.cache {
            cache.put(&compiled, id);
        }
        Ok(compiled)
    }

    /// The component that was compiled as `id` before, if it still is in the cache. Blocks for milliseconds.
    pub fn cached(&self, id: EntryId) -> Option<Component> {
        self.cache.as_ref().and_then(|cache| cache.get(&self.engine, id))
    }
}

/// Runs `work` off the runtime's workers. A panic in it (a bug of a compiler that is fed by strangers) is an error here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            format!("the host's own code panicked: {text}")
        }
        Err(_) => "the runtime is shutting down".to_owned(),
    })
}
