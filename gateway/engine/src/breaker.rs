//! The circuit breaker of one target: after enough failures nothing is sent for a while, then one message probes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// Opens when at least this share of the results in the window failed.
    pub failure_share: f64,
    /// Results needed in the window before it may open.
    pub min_results: u32,
    /// How far back results count.
    pub window: Duration,
    /// How long it stays open before a probe.
    pub open_for: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failure_share: 0.7, min_results: 10, window: Duration::from_secs(10), open_for: Duration::from_secs(5) }
    }
}

/// What a breaker is doing, as its gauge shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything passes. Gauge 0.
    Closed,
    /// One message probes. Gauge 1.
    HalfOpen,
    /// Nothing passes. Gauge 2.
    Open,
}

/// How long those wait who find a probe under way.
const PROBE_WAIT: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    circuit: Circuit,
    /// Results of the window, a slice per tenth of it: when it began, successes, failures.
    slices: VecDeque<(Instant, u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open {
        until: Instant,
    },
    /// A probe is under way; if its result never comes (the task was aborted) another may go at `until`.
    Probing {
        until: Instant,
    },
}

impl Breaker {
    /// A closed one.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, inner: Mutex::new(Inner { circuit: Circuit::Closed, slices: VecDeque::new() }) }
    }

    /// Asks to send one message. Whoever is admitted must [`record`](Self::record) a result.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn admit(&self) -> Result<(), Duration> {
        let mut inner = self.lock();
        if inner.circuit == Circuit::Closed {
            return Ok(());
        }
        let now = Instant::now();
        match inner.circuit {
            Circuit::Closed => Ok(()),
            Circuit::Open { until } if now < until => Err(until - now),
            Circuit::Probing { until } if now < until => Err(PROBE_WAIT),
            Circuit::Open { .. } | Circuit::Probing { .. } => {
                inner.circuit = Circuit::Probing { until: now + self.policy.open_for };
                Ok(())
            }
        }
    }

    /// Takes in results; returns the new state if it changed.
    pub fn record(&self, successes: u32, failures: u32) -> Option<BreakerState> {
        let mut inner = self.lock();
        let now = Instant::now();
        match inner.circuit {
            Circuit::Closed => {
                inner.count(now, self.policy.window, successes, failures);
                let (ok, failed) = inner.totals();
                let results = ok + failed;
                let tripped = results >= self.policy.min_results
                    && f64::from(failed) >= f64::from(results) * self.policy.failure_share;
                tripped.then(|| inner.open(now + self.policy.open_for))
            }
            Circuit::Probing { .. } if successes > 0 => {
                inner.circuit = Circuit::Closed;
                inner.slices.clear();
                Some(BreakerState::Closed)
            }
            Circuit::Probing { .. } if failures > 0 => Some(inner.open(now + self.policy.open_for)),
            // Late results of messages sent before it opened say nothing new.
            Circuit::Probing { .. } | Circuit::Open { .. } => None,
        }
    }

    /// Whether it is open and a probe would be admitted now.
    pub fn may_probe(&self) -> bool {
        match self.lock().circuit {
            Circuit::Open { until } | Circuit::Probing { until } => Instant::now() >= until,
            Circuit::Closed => false,
        }
    }

    /// What it is doing now.
    pub fn state(&self) -> BreakerState {
        match self.lock().circuit {
            Circuit::Closed => BreakerState::Closed,
            Circuit::Open { .. } => BreakerState::Open,
            Circuit::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing panics while holding it, and counts are sound even if something did.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(BreakerPolicy::default())
    }
}

impl Inner {
    fn count(&mut self, now: Instant, window: Duration, successes: u32, failures: u32) {
        while self.slices.front().is_some_and(|(began, ..)| now.duration_since(*began) > window) {
            self.slices.pop_front();
        }
        match self.slices.back_mut() {
            Some((began, ok, failed)) if now.duration_since(*began) < window / 10 => {
                *ok = ok.saturating_add(successes);
                *failed = failed.saturating_add(failures);
            }
            _ => self.slices.push_back((now, successes, failures)),
        }
    }

    fn totals(&self) -> (u32, u32) {
        self.slices
            .iter()
            .fold((0, 0), |(ok, failed), (_, o, f)| (u32::saturating_add(ok, *o), u32::saturating_add(failed, *f)))
    }

    fn open(&mut self, until: Instant) -> BreakerState {
        self.circuit = Circuit::Open { until };
        self.slices.clear();
        BreakerState::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_share_of_failures_and_not_before_enough_results() {
        let breaker = Breaker::new(BreakerPolicy::default());
        assert_eq!(breaker.record(0, 9), None, "nine results are not enough");
        assert_eq!(breaker.record(0, 1), Some(BreakerState::Open));

        let breaker = Breaker::new(BreakerPolicy::default());
        assert_eq!(breaker.record(4, 6), None, "60 % is not enough");
        assert_eq!(breaker.record(0, 4), Some(BreakerState::Open), "10 of 14 is");
        assert!(breaker.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_are_forgotten() {
        let breaker = Breaker::new(BreakerPolicy::default());
        assert_eq!(breaker.record(0, 9), None);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(breaker.record(0, 9), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_while_one_message_probes_and_its_result_decides() {
        let breaker = Breaker::new(BreakerPolicy::default());
        breaker.record(0, 10);
        assert_eq!(breaker.admit(), Err(Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(breaker.admit(), Ok(()), "the probe");
        assert!(breaker.admit().is_err(), "nobody else");
        assert_eq!(breaker.record(0, 1), Some(BreakerState::Open));

        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(breaker.admit(), Ok(()));
        assert_eq!(breaker.record(1, 0), Some(BreakerState::Closed));
        assert_eq!(breaker.admit(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_probe_does_not_block_for_ever() {
        let breaker = Breaker::new(BreakerPolicy::default());
        breaker.record(0, 10);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(breaker.admit(), Ok(()));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(breaker.admit(), Ok(()), "the first probe's result never came");
    }
}
