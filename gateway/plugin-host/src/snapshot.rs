//! Configured once: the memory of a configured instance as a component of its own, so that every fresh instance starts
//! out configured.

use std::sync::Arc;

use sluicegate_engine::failure::GuestFailure;
use tokio::runtime::Handle;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentNamedList, Instance as WasmInstance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::bindings::sluicegate::plugin::outcomes::Reason;
use crate::cache::EntryId;
use crate::host::blocking;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::plugin::{Code, Loaded};
use crate::state::State;

/// Room for what the snapshot itself does to the guest: wizer grows each memory by a page to write down where it ends.
const PROBE_BYTES: u64 = 1_024 * 1_024;

/// What came of it.
pub(crate) enum Snapshot {
    /// Code whose instances are configured.
    Taken(Code),
    /// The plugin refuses the configuration.
    Refused(Vec<Reason>),
    /// The plugin failed while it was configured.
    Failed(GuestFailure),
    /// This component cannot be used that way; says why.
    Impossible(String),
}

/// Takes a snapshot, or finds it in the cache. Compiles twice, on a blocking thread.
pub(crate) async fn take(plugin: &Arc<Loaded>, config: &str, limits: &Limits) -> Snapshot {
    let (plugin, config, limits) = (Arc::clone(plugin), config.to_owned(), limits.clone());
    let runtime = Handle::current();
    let work = move || compiled_snapshot(&plugin, &config, &limits, &runtime);
    match blocking(work).await {
        Ok(snapshot) => snapshot,
        Err(text) => Snapshot::Impossible(text),
    }
}

fn compiled_snapshot(plugin: &Arc<Loaded>, config: &str, limits: &Limits, runtime: &Handle) -> Snapshot {
    // A configuration that was taken before is taken again: `configure` sees nothing but the configuration, clocks and
    // randomness included, and can call nothing that is granted. Its limits may have changed, but they bind the calls all the same.
    let id = EntryId::of(&[b"snapshot", plugin.digest.as_bytes(), config.as_bytes()]);
    let component = match plugin.host.cached(id) {
        Some(component) => component,
        None => match snapshot(plugin, config, limits, runtime) {
            Ok(bytes) => match plugin.host.compile(id, &bytes) {
                Ok(component) => component,
                Err(error) => return impossible("the snapshot does not compile", &error),
            },
            Err(outcome) => return outcome,
        },
    };
    match Code::link(&plugin.host, &component, &plugin.shape) {
        Ok(code) => Snapshot::Taken(code),
        Err(error) => impossible("the snapshot does not link", &error),
    }
}

/// The bytes of the snapshot, or what came instead of it.
fn snapshot(plugin: &Arc<Loaded>, config: &str, limits: &Limits, runtime: &Handle) -> Result<Vec<u8>, Snapshot> {
    let wizer = Wizer::new();
    let (context, instrumented) = wizer
        .instrument_component(&plugin.component)
        .map_err(|error| impossible("its memory cannot be made readable", &error))?;
    let id = EntryId::of(&[b"instrumented", plugin.digest.as_bytes()]);
    let code = plugin
        .host
        .compile(id, &instrumented)
        .and_then(|component: Component| Code::link(&plugin.host, &component, &plugin.shape))
        .map_err(|error| impossible("it does not compile with its memory readable", &error))?;
    runtime.block_on(async {
        let mut configured = configured_instance(plugin, &code, config, limits).await?;
        let state = configured.store.data_mut();
        // Numbers of handles in the guest's memory would name nothing in another instance.
        if !state.table.is_empty() {
            return Err(Snapshot::Impossible(
                "it still holds host resources after `configure`, such as a standard stream it wrote to".to_owned(),
            ));
        }
        state.memory.allow_more(PROBE_BYTES);
        configured.store.set_hostcall_fuel(usize::MAX);
        let mut probe = Probe { store: &mut configured.store, instance: configured.instance, failed: None };
        let taken = wizer.snapshot_component(&context, &mut probe).await;
        match (taken, probe.failed) {
            (Ok(bytes), None) => Ok(bytes),
            (_, Some(error)) | (Err(error), None) => Err(impossible("its memory cannot be read", &error)),
        }
    })
}

async fn configured_instance(
    plugin: &Arc<Loaded>,
    code: &Code,
    config: &str,
    limits: &Limits,
) -> Result<Instance, Snapshot> {
    let begin = |state: &mut State| state.begin_configure(config, limits);
    let mut instance = Instance::new(&plugin.host, code, &plugin.name, &plugin.metrics, limits, begin)
        .await
        .map_err(Snapshot::Failed)?;
    match instance.configure(code, config, limits).await {
        Ok(Ok(())) => Ok(instance),
        Ok(Err(reasons)) => Err(Snapshot::Refused(reasons)),
        Err(failure) => Err(Snapshot::Failed(failure)),
    }
}

fn impossible(what: &str, error: &wasmtime::Error) -> Snapshot {
    Snapshot::Impossible(format!("{what}: {error:#}"))
}

/// Reads a guest's globals and memories for wizer, whose own reader panics where this one takes note.
struct Probe<'a> {
    store: &'a mut Store<State>,
    instance: WasmInstance,
    failed: Option<wasmtime::Error>,
}

impl Probe<'_> {
    async fn read<R>(&mut self, instance: &str, function: &str) -> Option<R>
    where
        R: Lift + Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        match self.try_read::<R>(instance, function).await {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    async fn try_read<R>(&mut self, instance: &str, function: &str) -> wasmtime::Result<R>
    where
        R: Lift + Send + Sync + 'static,
        (R,): ComponentNamedList + Lift,
    {
        let missing = || wasmtime::Error::msg(format!("no export `{instance}` `{function}`"));
        let outer = self.instance.get_export_index(&mut *self.store, None, instance).ok_or_else(missing)?;
        let inner = self.instance.get_export_index(&mut *self.store, Some(&outer), function).ok_or_else(missing)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, &inner)?;
        Ok(function.call_async(&mut *self.store, ()).await?.0)
    }
}

impl ComponentInstanceState for Probe<'_> {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        match self.read::<WasmList<u8>>(instance, func).await {
            Some(list) => contents(list.as_le_slice(&*self.store)),
            None => contents(&[]),
        }
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.read(instance, func).await.unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.read(instance, func).await.unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.read::<f32>(instance, func).await.unwrap_or_default().to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.read::<f64>(instance, func).await.unwrap_or_default().to_bits()
    }
}
