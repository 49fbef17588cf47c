//! Wasmtime, set up for many small guests that are not trusted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::limits::{FIBER_STACK_BYTES, GUEST_STACK_BYTES};
use crate::state::SLICE;

/// Core instances of one component: the module and the adapters that its tools put around it.
const MAX_CORE_INSTANCES: u32 = 32;
/// Memories of one component; guests of the usual languages have one.
const MAX_MEMORIES: u32 = 2;
/// Tables of one component: the module's and the adapters'.
const MAX_TABLES: u32 = 8;
/// Kept of a returned memory or table instead of giving it back to the system, where clearing what was written to is
/// cheap (measured in DESIGN section 5).
const KEEP_RESIDENT_BYTES: usize = 256 * 1_024;

/// An engine whose pool has room for exactly `max_instances` instances, whatever components they are of.
pub(crate) fn engine(max_instances: u32, max_memory_bytes: usize) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(max_instances, max_memory_bytes)));
    Engine::new(&config)
}

fn pool(max_instances: u32, max_memory_bytes: usize) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(max_instances)
        .total_stacks(max_instances)
        .total_core_instances(max_instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_memories(max_instances.saturating_mul(MAX_MEMORIES))
        .total_tables(max_instances.saturating_mul(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_memories_per_component(MAX_MEMORIES)
        .max_memories_per_module(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .max_tables_per_module(MAX_TABLES)
        .max_memory_size(max_memory_bytes)
        .pagemap_scan(Enabled::Auto);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.linear_memory_keep_resident(KEEP_RESIDENT_BYTES).table_keep_resident(KEEP_RESIDENT_BYTES);
    }
    pool
}

/// The thread that makes running guests look up every [`SLICE`]. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    ticks: Arc<AtomicU64>,
}

impl Ticker {
    pub fn start(engine: Engine) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ticks);
        let thread = std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(SLICE) {
                counted.fetch_add(1, Ordering::Relaxed);
                engine.increment_epoch();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), ticks })
    }

    /// Counts the slices that have ended.
    pub fn ticks(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.ticks)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The thread wakes at once, since its channel is gone; it cannot have panicked.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the plugin host's ticker thread had panicked");
        }
    }
}
