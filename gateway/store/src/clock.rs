//! What time it is, for a store. Whatever a store does at a time goes by its clock, so that tests can set it.
//!
//! A clock that is set forward or back changes when things are due and how old they are, by as much as it was set and no
//! more, and nothing is lost by it. What must not depend on a clock does not: whether a gateway is alive (see
//! [`leases`](crate::leases)), the order of what came in, and how often it is looked for what is due.

use std::time::Duration;

use sluicegate_engine::message::now_ms;

/// Longest sleep toward a time: the clock may be set meanwhile.
pub(crate) const CLOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The system's, unless a test has set it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    #[cfg(feature = "testing")]
    set_by_ms: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Clock {
    /// Milliseconds since the Unix epoch.
    #[cfg(not(feature = "testing"))]
    pub fn now_ms(&self) -> u64 {
        now_ms()
    }

    /// Milliseconds since the Unix epoch.
    #[cfg(feature = "testing")]
    pub fn now_ms(&self) -> u64 {
        now_ms().saturating_add_signed(self.set_by_ms.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Sets it forward by this, or back, counted from the system's time.
    #[cfg(feature = "testing")]
    pub fn set_by(&self, ms: i64) {
        self.set_by_ms.store(ms, std::sync::atomic::Ordering::Relaxed);
    }
}
