//! One instance of a component and the calls made to it.

use std::sync::Arc;

use sluicegate_engine::failure::GuestFailure;
use sluicegate_engine::message::Message;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Instance as WasmInstance;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::bindings::exports::sluicegate::plugin::{filtering, routing, transforming};
use crate::bindings::sluicegate::plugin::log::Level;
use crate::bindings::sluicegate::plugin::outcomes::Reason;
use crate::failure;
use crate::grants::HostCalls;
use crate::host::Host;
use crate::limits::{Limits, MAX_HANDLES};
use crate::measure::{Counted, PluginMetrics, Usage};
use crate::plugin::Code;
use crate::state::State;

/// A guest with its memory. Whoever holds it makes one call at a time; a call that does not end well ends the instance.
pub(crate) struct Instance {
    pub store: Store<State>,
    pub instance: WasmInstance,
    /// Calls served.
    pub calls: u32,
    pub filtering: Option<filtering::Guest>,
    pub transforming: Option<transforming::Guest>,
    pub routing: Option<routing::Guest>,
    _counted: Counted,
    /// Given back last.
    _slot: OwnedSemaphorePermit,
}

impl Instance {
    /// Waits for room, then makes an instance. What the guest does while it starts belongs to the call that `begin` sets
    /// up.
    pub async fn new(
        host: &Host,
        code: &Code,
        plugin: &Arc<str>,
        metrics: &PluginMetrics,
        limits: &Limits,
        begin: impl FnOnce(&mut State),
    ) -> Result<Self, GuestFailure> {
        let Some(slot) = host.slots.take().await else {
            return Err(GuestFailure::Unavailable(format!(
                "all {} instances were busy for {:?}; raise `max_instances`",
                host.config.max_instances, host.config.max_instance_wait
            )));
        };
        let host_calls = HostCalls::new(host.ticker.ticks());
        let mut store = Store::new(&host.engine, State::new(Arc::clone(plugin), limits.memory_bytes, host_calls));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.transfer_bytes());
        // The guest's own resources come on top of those of the host.
        store.set_max_component_handles(2 * MAX_HANDLES);
        store.epoch_deadline_callback(give_way);
        store.set_epoch_deadline(1);
        begin(store.data_mut());
        match code.pre.instantiate_async(&mut store).await {
            Ok(instance) => Ok(Self {
                store,
                instance,
                calls: 0,
                filtering: None,
                transforming: None,
                routing: None,
                _counted: metrics.count_instance(),
                _slot: slot,
            }),
            Err(error) => Err(failure::of_error(&error, store.data_mut(), limits)),
        }
    }

    /// Whether the exports have the types of the contract.
    pub fn check_types(&mut self, code: &Code) -> wasmtime::Result<()> {
        let (store, exports) = (&mut self.store, &code.exports);
        exports.lifecycle.load(&mut *store, &self.instance)?;
        exports.filtering.as_ref().map(|role| role.load(&mut *store, &self.instance)).transpose()?;
        exports.transforming.as_ref().map(|role| role.load(&mut *store, &self.instance)).transpose()?;
        exports.routing.as_ref().map(|role| role.load(&mut *store, &self.instance)).transpose()?;
        Ok(())
    }

    /// Sets up a further call.
    pub fn begin(&mut self, message: &Arc<Message>, limits: &Limits) {
        self.store.data_mut().begin(message, limits);
        self.store.set_epoch_deadline(1);
    }

    /// The JSON Schema of the configuration, as text.
    pub async fn config_schema(&mut self, code: &Code, limits: &Limits) -> Result<String, GuestFailure> {
        let answer = match code.exports.lifecycle.load(&mut self.store, &self.instance) {
            Ok(lifecycle) => lifecycle.call_config_schema(&mut self.store).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| failure::of_error(&error, self.store.data_mut(), limits))
    }

    /// Configures the guest; the inner error is its own verdict. Its randomness is derived from `config`.
    pub async fn configure(
        &mut self,
        code: &Code,
        config: &str,
        limits: &Limits,
    ) -> Result<Result<(), Vec<Reason>>, GuestFailure> {
        self.store.data_mut().begin_configure(config, limits);
        self.store.set_epoch_deadline(1);
        let answer = match code.exports.lifecycle.load(&mut self.store, &self.instance) {
            Ok(lifecycle) => lifecycle.call_configure(&mut self.store, config).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| failure::of_error(&error, self.store.data_mut(), limits))
    }

    /// Ends a call, however it went: logs what the guest wrote to its standard streams, lets go of the message.
    pub fn end(&mut self) -> Usage {
        self.calls += 1;
        let state = self.store.data_mut();
        let captured = state.take_captured();
        for line in captured.lines().filter(|line| !line.trim().is_empty()) {
            state.call.log.write(Level::Info, line, &state.plugin, state.call.message.as_deref());
        }
        state.call.message = None;
        state.call.random = Default::default();
        Usage { peak_memory_bytes: state.memory.used_bytes(), log_lines_dropped: state.call.log.dropped() }
    }
}

/// A slice is over: the guest gives way to other tasks of this worker, or its time is up. What it waits for its turn, and
/// the slices that end while it waits for a host call, are not counted.
fn give_way(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    let waited = state.host_calls.take_waited_over_tick();
    let call = &mut state.call;
    if !waited && call.slices_left == 0 {
        return Ok(UpdateDeadline::Interrupt);
    }
    call.slices_left -= u64::from(!waited);
    Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
}
