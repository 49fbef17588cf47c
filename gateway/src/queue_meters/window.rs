//! Counts and times of the last minute, in slots of ten seconds.

use std::time::Duration;

/// Over which rates and percentiles are.
pub const WINDOW: Duration = Duration::from_secs(60);

const SLOT_SECS: u64 = 10;
/// Those of the window and the one that is being filled.
const SLOTS: usize = (WINDOW.as_secs() / SLOT_SECS) as usize + 1;
/// Buckets for each doubling of time: a percentile is wrong by 9 % at most.
const PER_OCTAVE: u32 = 4;
/// 1 µs to 2³² µs, over an hour.
const BUCKETS: usize = 32 * PER_OCTAVE as usize;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Messages that went well since the gateway started.
    pub total: u64,
    /// Those that did not.
    pub failed: u64,
    /// Messages that went well, a second, over the window.
    pub per_second: f64,
    /// Share of those that failed over the window, 0 to 1.
    pub error_rate: f64,
    /// Average time over the window, milliseconds.
    pub average_ms: f64,
    /// 95 of 100 took no longer.
    pub p95_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
}

/// Slots in a ring.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: [Slot; SLOTS],
    total: u64,
    failed: u64,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    /// Number of the ten seconds it is for.
    period: u64,
    done: u64,
    failed: u64,
    total_us: u64,
    /// Made with the first message: most queues are idle.
    buckets: Option<Box<[u32; BUCKETS]>>,
}

impl Window {
    /// `now` is counted from when the gateway started.
    pub fn record(&mut self, now: Duration, each: Duration, done: u64, failed: u64) {
        self.total += done;
        self.failed += failed;
        let slot = self.slot(now.as_secs() / SLOT_SECS);
        slot.done += done;
        slot.failed += failed;
        if done > 0 {
            let us = u64::try_from(each.as_micros()).unwrap_or(u64::MAX);
            slot.total_us = slot.total_us.saturating_add(us.saturating_mul(done));
            let buckets = slot.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]));
            let bucket = &mut buckets[bucket_of(us)];
            *bucket = bucket.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
        }
    }

    fn slot(&mut self, period: u64) -> &mut Slot {
        let slot = &mut self.slots[(period % SLOTS as u64) as usize];
        if slot.period != period {
            *slot = Slot { period, ..Slot::default() };
        }
        slot
    }

    /// Whether nothing has been recorded within the window.
    pub fn is_idle(&self, now: Duration) -> bool {
        let period = now.as_secs() / SLOT_SECS;
        !self.slots.iter().any(|slot| slot.done + slot.failed > 0 && slot.is_within(period))
    }

    /// Adds what another has, as if it had been recorded here.
    pub fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.failed += other.failed;
        for theirs in other.slots.iter().filter(|slot| slot.done + slot.failed > 0) {
            let at = (theirs.period % SLOTS as u64) as usize;
            // A slot of an older round has left the window.
            if self.slots[at].period > theirs.period {
                continue;
            }
            let ours = self.slot(theirs.period);
            ours.done += theirs.done;
            ours.failed += theirs.failed;
            ours.total_us = ours.total_us.saturating_add(theirs.total_us);
            if let Some(theirs) = &theirs.buckets {
                let ours = ours.buckets.get_or_insert_with(|| Box::new([0; BUCKETS]));
                ours.iter_mut().zip(theirs.iter()).for_each(|(ours, theirs)| *ours = ours.saturating_add(*theirs));
            }
        }
    }

    pub fn figures(&self, now: Duration) -> Figures {
        let period = now.as_secs() / SLOT_SECS;
        let (mut done, mut failed, mut total_us, mut buckets) = (0, 0, 0_u64, [0_u64; BUCKETS]);
        for slot in self.slots.iter().filter(|slot| slot.is_within(period)) {
            done += slot.done;
            failed += slot.failed;
            total_us = total_us.saturating_add(slot.total_us);
            for (sum, count) in buckets.iter_mut().zip(slot.buckets.iter().flat_map(|buckets| buckets.iter())) {
                *sum += u64::from(*count);
            }
        }
        // The slots cover the full ones and what has passed of the last; never more than since the start.
        let seconds = (now.as_secs_f64() % SLOT_SECS as f64) + WINDOW.as_secs_f64();
        let seconds = seconds.min(now.as_secs_f64()).max(1.0);
        let percentile = |share: f64| {
            let mut left = (share * done as f64).ceil();
            for (index, count) in buckets.iter().enumerate() {
                left -= *count as f64;
                if *count > 0 && left <= 0.0 {
                    return middle_of(index) / 1_000.0;
                }
            }
            0.0
        };
        Figures {
            total: self.total,
            failed: self.failed,
            per_second: done as f64 / seconds,
            error_rate: if done + failed == 0 { 0.0 } else { failed as f64 / (done + failed) as f64 },
            average_ms: if done == 0 { 0.0 } else { total_us as f64 / done as f64 / 1_000.0 },
            p95_ms: percentile(0.95),
            p99_ms: percentile(0.99),
        }
    }
}

impl Slot {
    fn is_within(&self, period: u64) -> bool {
        self.period + SLOTS as u64 > period && self.period <= period
    }
}

fn bucket_of(us: u64) -> usize {
    let place = (us.max(1) as f64).log2() * f64::from(PER_OCTAVE);
    (place as usize).min(BUCKETS - 1)
}

/// The time in the middle of a bucket, microseconds.
fn middle_of(bucket: usize) -> f64 {
    ((bucket as f64 + 0.5) / f64::from(PER_OCTAVE)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_bucket_whose_middle_is_near() {
        for us in [1_u64, 2, 3, 10, 999, 12_345, 1_000_000, 3_600_000_000] {
            let middle = middle_of(bucket_of(us));
            assert!((middle / us as f64 - 1.0).abs() < 0.1, "{us} µs are shown as {middle} µs");
        }
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_old_slot_is_not_taken_for_a_new_one() {
        let mut window = Window::default();
        window.record(Duration::ZERO, Duration::from_millis(1), 5, 0);
        assert_eq!(window.figures(Duration::from_secs(5)).per_second, 1.0);
        let round = Duration::from_secs(SLOT_SECS * SLOTS as u64);
        assert_eq!(window.figures(round).per_second, 0.0);
        assert!(window.is_idle(round) && !window.is_idle(Duration::from_secs(60)));
        window.record(round, Duration::from_millis(1), 7, 0);
        let (mut sum, mut older) = (Window::default(), Window::default());
        older.record(Duration::ZERO, Duration::from_millis(1), 5, 0);
        sum.add(&window);
        sum.add(&older);
        assert_eq!(sum.figures(round).total, 17);
        assert_eq!((sum.figures(round).per_second * 60.0).round(), 7.0);
    }
}
