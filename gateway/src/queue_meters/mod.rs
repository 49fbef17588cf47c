//! What this gateway measures of its queues: how many messages, how fast, how many failed, over the last minute.
//!
//! Kept in memory and for this gateway alone; what all gateways share (messages, groups, lag) is asked of the store.

mod measured;
mod window;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use measured::MeasuredBackend;
pub use window::{Figures, WINDOW};

use window::Window;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From the request to the commit.
    Published,
    /// From the claim to the settlement.
    Consumed,
}

/// Counts and times. Cheap: a lock of a map for each batch.
#[derive(Debug)]
pub struct QueueMeters {
    started: Instant,
    queues: Mutex<HashMap<String, Windows>>,
}

#[derive(Debug, Default)]
struct Windows {
    published: Window,
    consumed: Window,
}

impl Windows {
    fn of(&mut self, flow: Flow) -> &mut Window {
        match flow {
            Flow::Published => &mut self.published,
            Flow::Consumed => &mut self.consumed,
        }
    }
}

/// Queues whose measurements are kept; beyond them, those without traffic in the window are forgotten first.
const SWEPT_QUEUES: usize = 256;

impl Default for QueueMeters {
    fn default() -> Self {
        Self { started: Instant::now(), queues: Mutex::default() }
    }
}

impl QueueMeters {
    /// `done` messages took `each`, `failed` ones were refused or are to come again.
    pub fn record(&self, queue: &str, flow: Flow, each: Duration, done: usize, failed: usize) {
        let now = self.started.elapsed();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues.contains_key(queue) {
            if queues.len() >= SWEPT_QUEUES {
                queues.retain(|_, windows| !(windows.published.is_idle(now) && windows.consumed.is_idle(now)));
            }
            queues.insert(queue.to_owned(), Windows::default());
        }
        if let Some(windows) = queues.get_mut(queue) {
            windows.of(flow).record(now, each, done as u64, failed as u64);
        }
    }

    /// Of one queue, over the last [`WINDOW`].
    pub fn figures(&self, queue: &str, flow: Flow) -> Figures {
        let now = self.started.elapsed();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.get_mut(queue).map_or_else(Figures::default, |windows| windows.of(flow).figures(now))
    }

    /// Of all queues together.
    pub fn total(&self, flow: Flow) -> Figures {
        let now = self.started.elapsed();
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Window::default();
        for windows in queues.values() {
            all.add(match flow {
                Flow::Published => &windows.published,
                Flow::Consumed => &windows.consumed,
            });
        }
        all.figures(now)
    }

    /// How long the gateway has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Forgets a queue that was deleted.
    pub fn forget(&self, queue: &str) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn figures_are_those_of_the_last_minute() {
        let meters = QueueMeters::default();
        for _ in 0..60 {
            meters.record("a", Flow::Published, Duration::from_millis(2), 9, 1);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let figures = meters.figures("a", Flow::Published);
        assert!((8.0..=10.0).contains(&figures.per_second), "{figures:?}");
        assert!((figures.error_rate - 0.1).abs() < 1e-9, "{figures:?}");
        assert!((figures.average_ms - 2.0).abs() < 0.01, "{figures:?}");
        assert_eq!(meters.figures("a", Flow::Consumed), Figures::default());
        assert_eq!(meters.figures("b", Flow::Published), Figures::default());
        tokio::time::advance(WINDOW * 2).await;
        let later = meters.figures("a", Flow::Published);
        assert_eq!((later.per_second, later.error_rate, later.p99_ms), (0.0, 0.0, 0.0));
        assert_eq!((later.total, later.failed), (540, 60), "counts since the start stay");
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_has_just_started_shows_its_rate_all_the_same() {
        let meters = QueueMeters::default();
        tokio::time::advance(Duration::from_secs(2)).await;
        meters.record("a", Flow::Consumed, Duration::from_millis(1), 100, 0);
        let figures = meters.figures("a", Flow::Consumed);
        assert!((figures.per_second - 50.0).abs() < 1.0, "{figures:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_total_is_over_all_queues_and_percentiles_are_of_all_messages() {
        let meters = QueueMeters::default();
        meters.record("a", Flow::Published, Duration::from_millis(1), 94, 0);
        meters.record("b", Flow::Published, Duration::from_millis(100), 5, 0);
        meters.record("b", Flow::Published, Duration::from_millis(1_000), 1, 0);
        let total = meters.total(Flow::Published);
        assert_eq!(total.total, 100);
        let near = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 0.15;
        assert!(near(total.p95_ms, 100.0) && near(total.p99_ms, 100.0), "{total:?}");
        assert!(near(meters.figures("a", Flow::Published).p99_ms, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn queues_without_traffic_make_room() {
        let meters = QueueMeters::default();
        for number in 0..SWEPT_QUEUES {
            meters.record(&format!("q{number}"), Flow::Published, Duration::ZERO, 1, 0);
        }
        tokio::time::advance(WINDOW * 2).await;
        meters.record("new", Flow::Published, Duration::ZERO, 1, 0);
        assert_eq!(meters.queues.lock().expect("not poisoned").len(), 1);
    }
}
