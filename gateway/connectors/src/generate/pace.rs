//! When which message is due: by the clock since the start, so that a late one does not delay those after it.

use std::time::Duration;

use tokio::time::Instant;

/// A steady rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    start: Instant,
    messages_a_second: f64,
}

impl Pace {
    /// Begins now; 0 is as fast as possible.
    pub(super) fn new(messages_a_second: f64) -> Self {
        Self { start: Instant::now(), messages_a_second }
    }

    /// How many messages were due by now, the first one at once.
    pub(super) fn due(&self) -> u64 {
        if self.messages_a_second == 0.0 {
            return u64::MAX;
        }
        (self.start.elapsed().as_secs_f64() * self.messages_a_second + 1e-6) as u64 + 1
    }

    /// Waits until message number `n`, from 1, is due. Cancel safe.
    pub(super) async fn wait_for(&self, n: u64) {
        if self.messages_a_second > 0.0 {
            let after = (n - 1) as f64 / self.messages_a_second;
            // A wait beyond what a duration can say is one without end.
            match Duration::try_from_secs_f64(after).ok().and_then(|after| self.start.checked_add(after)) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_does_not_drift() {
        for rate in [1.0, 3.0, 7.5, 999.0] {
            let (pace, start) = (Pace::new(rate), Instant::now());
            for n in 1..=1_000 {
                pace.wait_for(n).await;
                assert!(pace.due() >= n, "{n} at {rate}");
            }
            let (took, expected) = (start.elapsed().as_secs_f64(), 999.0 / rate);
            // A timer may be late by its resolution of a millisecond, once and not a thousand times.
            assert!((expected..expected + 0.002).contains(&took), "{took} instead of {expected}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_is_due_at_once() {
        let pace = Pace::new(10.0);
        assert_eq!(pace.due(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pace.due(), 21);
    }
}
