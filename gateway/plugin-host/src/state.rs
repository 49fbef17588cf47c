//! What the host keeps beside an instance: its meters, and all that belongs to the call it is in.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::message::Message;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;

use crate::grants::HostCalls;
use crate::limits::{Limits, MAX_HANDLES};
use crate::log::{Captured, LogBudget};
use crate::meter::{MemoryMeter, OutputMeter};
use crate::replay::{Clock, Randomness};

/// How long a guest runs at a stretch before it gives way to others; the grain of CPU limits.
pub const SLICE: Duration = Duration::from_millis(4);

/// The data of a store.
pub(crate) struct State {
    /// The plugin's configured name, for log lines.
    pub plugin: Arc<str>,
    /// Drafts, streams and pollables the guest holds.
    pub table: ResourceTable,
    pub memory: MemoryMeter,
    /// Nothing is ever in it: the guest's standard library wants a file system, and finds none.
    pub files: WasiFilesystemCtx,
    /// Made when the guest first asks for a standard stream, which most never do.
    pub captured: Option<Captured>,
    /// What it may ask of the gateway, and what it has.
    pub host_calls: HostCalls,
    pub call: Call,
}

/// What belongs to one call.
pub(crate) struct Call {
    /// None while the guest is configured.
    pub message: Option<Arc<Message>>,
    /// Which call of this instance it is, so that a draft of an earlier call is told from one of this.
    pub number: u64,
    pub drafts: usize,
    pub output: OutputMeter,
    pub log: LogBudget,
    pub clock: Clock,
    pub random: Randomness,
    pub slices_left: u64,
}

impl State {
    pub fn new(plugin: Arc<str>, memory_limit_bytes: u64, host_calls: HostCalls) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            plugin,
            table,
            memory: MemoryMeter::new(memory_limit_bytes),
            files: WasiFilesystemCtx::default(),
            captured: None,
            host_calls,
            call: Call {
                message: None,
                number: 0,
                drafts: 0,
                output: OutputMeter::default(),
                log: LogBudget::default(),
                clock: Clock::default(),
                random: Randomness::default(),
                slices_left: 0,
            },
        }
    }

    /// Sets up a call on a message.
    pub fn begin(&mut self, message: &Arc<Message>, limits: &Limits) {
        self.call.clock = Clock::at_ms(message.time_ms);
        self.call.random = Randomness::of_message(message);
        self.call.message = Some(Arc::clone(message));
        self.start(limits);
    }

    /// Sets up a call without a message; `seed` is what its randomness is derived from.
    pub fn begin_configure(&mut self, seed: &str, limits: &Limits) {
        self.call.clock = Clock::default();
        self.call.random = Randomness::of_text(seed);
        self.call.message = None;
        self.start(limits);
    }

    fn start(&mut self, limits: &Limits) {
        self.memory.refused = false;
        self.host_calls.begin();
        self.call.number += 1;
        self.call.output = OutputMeter::new(limits.output_bytes);
        self.call.log = LogBudget::new(limits);
        self.call.slices_left = slices(limits.cpu);
    }

    /// What the guest wrote to its standard streams in this call.
    pub fn take_captured(&mut self) -> String {
        self.captured.as_ref().map(Captured::take).unwrap_or_default()
    }
}

/// Slices that make up at least `cpu`. The first one of a call is cut short by whenever the next tick comes, so it does
/// not count.
fn slices(cpu: Duration) -> u64 {
    u64::try_from(cpu.as_nanos().div_ceil(SLICE.as_nanos())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_rounded_up_to_whole_slices() {
        assert_eq!(slices(Duration::from_nanos(1)), 1);
        assert_eq!(slices(SLICE), 1);
        assert_eq!(slices(Duration::from_millis(50)), 13);
    }
}
