//! The retry decision: one pure function from a failure, the attempt and the policy to what happens next.

use std::time::Duration;

use crate::failure::FailureKind;

/// Waits up to this long are held in flight; longer ones are given back to the source where it can postpone.
pub const HOLD_LIMIT: Duration = Duration::from_secs(1);

/// Lost connections that cost a message nothing. A message that breaks its connection more often than that is suspected
/// of causing it, and further ones count as attempts.
pub const FREE_DISCONNECTS: u32 = 16;

/// When to try again, and when to stop.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Tries in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Longest wait before the second try.
    pub initial_delay: Duration,
    /// Longest wait before any try; also the most a target's own retry-after is honoured.
    pub max_delay: Duration,
    /// How much longer each wait may be than the one before; at least 1.
    pub factor: f64,
    /// No further try once the message has been here this long.
    pub max_age: Option<Duration>,
    /// What happens after the last try.
    pub on_exhausted: Exhausted,
}

/// What happens to a message whose tries are used up, or that never had a chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exhausted {
    /// It becomes a dead letter.
    #[default]
    DeadLetter,
    /// It is dropped, with a log line and a metric.
    Drop,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            factor: 2.0,
            max_age: None,
            on_exhausted: Exhausted::DeadLetter,
        }
    }
}

/// How far a message has come in failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The attempt that just failed, from 1.
    pub attempt: u32,
    /// How often the connection was lost under this message.
    pub disconnects: u32,
    /// How long the message has been here.
    pub age: Duration,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this wait; `costs_attempt` says whether the attempt counts.
    Retry {
        /// The wait.
        after: Duration,
        /// False after a lost connection, which is nobody's attempt.
        costs_attempt: bool,
    },
    /// Give it to the dead letters.
    DeadLetter,
    /// Drop it.
    Drop,
}

impl RetryPolicy {
    /// The longest wait after the failed attempt `attempt` (from 1): `initial_delay × factor^(attempt-1)`, at most
    /// `max_delay`.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let growth = self.factor.max(1.0).powi(i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX));
        Duration::try_from_secs_f64(self.initial_delay.as_secs_f64() * growth)
            .map_or(self.max_delay, |delay| delay.min(self.max_delay))
    }

    /// Decides after a failure. `jitter` in 0..1 picks the wait between zero and the [`ceiling`](Self::ceiling): full
    /// jitter, so that messages that failed together do not come back together.
    pub fn decide(&self, kind: FailureKind, trial: Trial, jitter: f64) -> Decision {
        let ended = match self.on_exhausted {
            Exhausted::DeadLetter => Decision::DeadLetter,
            Exhausted::Drop => Decision::Drop,
        };
        let too_old = |after: Duration| self.max_age.is_some_and(|limit| trial.age + after >= limit);
        let (after, costs_attempt) = match kind {
            FailureKind::Permanent | FailureKind::EndOfInput => return ended,
            FailureKind::Disconnected if trial.disconnects < FREE_DISCONNECTS => (Duration::ZERO, false),
            FailureKind::Disconnected => (self.ceiling(trial.attempt).mul_f64(jitter), true),
            FailureKind::Transient { retry_after } => {
                let backoff = self.ceiling(trial.attempt).mul_f64(jitter);
                (backoff.max(retry_after.unwrap_or_default().min(self.max_delay)), true)
            }
        };
        let exhausted = costs_attempt && trial.attempt >= self.max_attempts;
        if exhausted || too_old(after) { ended } else { Decision::Retry { after, costs_attempt } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSIENT: FailureKind = FailureKind::Transient { retry_after: None };

    fn trial(attempt: u32) -> Trial {
        Trial { attempt, disconnects: 0, age: Duration::ZERO }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let policy = RetryPolicy::default();
        let seconds: Vec<u64> = (1..=8).map(|attempt| policy.ceiling(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.ceiling(u32::MAX), policy.max_delay);
    }

    #[test]
    fn a_permanent_failure_is_never_retried() {
        assert_eq!(RetryPolicy::default().decide(FailureKind::Permanent, trial(1), 0.5), Decision::DeadLetter);
    }

    #[test]
    fn the_last_attempt_ends_in_what_the_policy_says() {
        let policy = RetryPolicy { on_exhausted: Exhausted::Drop, ..RetryPolicy::default() };
        assert_eq!(
            policy.decide(TRANSIENT, trial(4), 1.0),
            Decision::Retry { after: Duration::from_secs(8), costs_attempt: true }
        );
        assert_eq!(policy.decide(TRANSIENT, trial(5), 1.0), Decision::Drop);
    }

    #[test]
    fn the_other_sides_wish_is_honoured_up_to_the_longest_wait() {
        let policy = RetryPolicy::default();
        for (wish, waited) in [(7, 7), (3_600, 60)] {
            let kind = FailureKind::Transient { retry_after: Some(Duration::from_secs(wish)) };
            let after = Duration::from_secs(waited);
            assert_eq!(policy.decide(kind, trial(1), 0.0), Decision::Retry { after, costs_attempt: true });
        }
    }

    #[test]
    fn a_lost_connection_is_free_until_it_looks_like_the_messages_fault() {
        let policy = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        let lost = |disconnects| policy.decide(FailureKind::Disconnected, Trial { disconnects, ..trial(1) }, 0.5);
        assert_eq!(lost(0), Decision::Retry { after: Duration::ZERO, costs_attempt: false });
        assert_eq!(lost(FREE_DISCONNECTS), Decision::DeadLetter);
    }

    proptest! {
        #[test]
        fn every_message_ends(max_attempts in 1_u32..20, factor in 1.0_f64..10.0, jitter in 0.0_f64..1.0) {
            let policy = RetryPolicy { max_attempts, factor, ..RetryPolicy::default() };
            let mut attempt = 1;
            while let Decision::Retry { after, .. } = policy.decide(TRANSIENT, trial(attempt), jitter) {
                prop_assert!(after <= policy.max_delay);
                attempt += 1;
            }
            prop_assert_eq!(attempt, max_attempts);
        }

        #[test]
        fn age_ends_what_attempts_would_not(age_s in 0_u64..200, limit_s in 1_u64..100) {
            let policy = RetryPolicy { max_attempts: u32::MAX, max_age: Some(Duration::from_secs(limit_s)), ..RetryPolicy::default() };
            let old = Trial { age: Duration::from_secs(age_s), ..trial(1) };
            let retried = matches!(policy.decide(TRANSIENT, old, 0.0), Decision::Retry { .. });
            prop_assert_eq!(retried, age_s < limit_s);
        }
    }
}
