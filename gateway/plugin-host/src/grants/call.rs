//! What host calls have in common: whether they may be made now, what they come to, and how long they are waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Capability, Grants};
use crate::state::State;

/// Kept of a text that a guest is told, in bytes.
pub(super) const TOLD_BYTES: usize = 512;

/// Host calls of an instance.
pub(crate) struct HostCalls {
    /// None while it belongs to no configuration.
    pub grants: Option<Arc<Grants>>,
    /// Counts the host's slices.
    ticks: Arc<AtomicU64>,
    /// A slice ended while the guest waited: the next time it is told so, it has not used that slice.
    waited_over_tick: bool,
    used: Used,
}

/// What one call of the guest has used.
#[derive(Debug, Default)]
struct Used {
    calls: u32,
    metric_calls: u32,
    bytes: u64,
    waited: Duration,
}

/// Why a host call is not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The guest is in `configure` or `config-schema`.
    TooEarly,
    /// The message has used up something.
    Limit(String),
}

impl HostCalls {
    pub fn new(ticks: Arc<AtomicU64>) -> Self {
        Self { grants: None, ticks, waited_over_tick: false, used: Used::default() }
    }

    /// Sets up a further call of the guest.
    pub fn begin(&mut self) {
        self.used = Used::default();
        self.waited_over_tick = false;
    }

    /// Whether the slice that ended was not the guest's. Says so once.
    pub fn take_waited_over_tick(&mut self) -> bool {
        std::mem::take(&mut self.waited_over_tick)
    }

    fn count(&mut self, capability: Capability, grants: &Grants) -> Result<(), Refusal> {
        let (used, limit) = match capability {
            Capability::State | Capability::Http | Capability::Secrets => (&mut self.used.calls, grants.limits.calls),
            Capability::Metrics => (&mut self.used.metric_calls, grants.limits.metric_calls),
        };
        if *used >= limit {
            return Err(Refusal::Limit(format!("this message has made all of its {limit} host calls")));
        }
        *used += 1;
        Ok(())
    }
}

impl State {
    /// Allows a host call that takes `bytes` along, and hands out the grants.
    pub(super) fn admit(&mut self, capability: Capability, bytes: usize) -> Result<Arc<Grants>, Refusal> {
        if self.call.message.is_none() {
            return Err(Refusal::TooEarly);
        }
        let grants = self.host_calls.grants.clone().ok_or(Refusal::TooEarly)?;
        self.host_calls.count(capability, &grants)?;
        self.take_bytes(bytes)?;
        Ok(grants)
    }

    /// Counts bytes that are handed over.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), Refusal> {
        let limit = self.host_calls.grants.as_ref().map_or(0, |grants| grants.limits.bytes);
        let wanted = self.host_calls.used.bytes.saturating_add(bytes as u64);
        if wanted > limit {
            return Err(Refusal::Limit(format!("this message has handed over all of its {limit} bytes")));
        }
        self.host_calls.used.bytes = wanted;
        Ok(())
    }

    /// Waits within what is left of the message's time for waiting; none if it is over.
    pub(super) async fn wait<T>(&mut self, answer: impl Future<Output = T> + Send) -> Option<T> {
        let limit = self.host_calls.grants.as_ref().map_or(Duration::ZERO, |grants| grants.limits.wait);
        let left = limit.saturating_sub(self.host_calls.used.waited);
        let (started, tick) = (Instant::now(), self.host_calls.ticks.load(Ordering::Relaxed));
        let answered = tokio::time::timeout(left, answer).await;
        self.host_calls.used.waited += started.elapsed();
        self.host_calls.waited_over_tick |= self.host_calls.ticks.load(Ordering::Relaxed) != tick;
        answered.ok()
    }

    /// Counts a host call; `outcome` is one of a closed set.
    pub(super) fn count_call(&self, capability: Capability, outcome: &'static str) {
        metrics::counter!(
            "sluicegate_plugin_host_calls_total",
            "plugin" => Arc::clone(&self.plugin), "capability" => capability.name(), "outcome" => outcome
        )
        .increment(1);
    }
}
