//! Deliveries that are to come again, for sources that cannot ask anybody to deliver a second time: a file, standard
//! input, made-up messages.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluicegate_engine::delivery::{Received, Settled, Settlement};
use sluicegate_engine::message::Message;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// How long a requeued message is held, so that one which fails the same way every time does not spin.
const DELAY: Duration = Duration::from_millis(100);

/// Shared by the halves of a connection and kept from one connection to the next. Holds no more messages than the
/// engine has in flight.
#[derive(Debug, Default)]
pub(crate) struct Redelivery {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// With the time from which on they may come, earliest first.
    again: VecDeque<(Instant, Received)>,
    in_flight: usize,
}

impl Redelivery {
    /// That many messages were handed over for the first time.
    pub(crate) fn handed_over(&self, messages: usize) {
        self.state().in_flight += messages;
    }

    /// Takes in settlements. What was requeued comes again after 100 ms, as the next attempt.
    pub(crate) fn settle(&self, batch: &[Settled]) {
        let due = Instant::now() + DELAY;
        let mut state = self.state();
        for settled in batch {
            state.in_flight = state.in_flight.saturating_sub(1);
            match settled.outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {}
                Settlement::Postponed { .. } | Settlement::Requeued => {
                    let attempt = settled.message.attempt.saturating_add(1);
                    let message = Message { attempt, ..Message::clone(&settled.message) };
                    state.again.push_back((due, Received::new(message, settled.token)));
                }
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// At most `max` messages that are to come again by now; they count as in flight.
    pub(crate) fn take(&self, max: usize) -> Vec<Received> {
        let now = Instant::now();
        let mut state = self.state();
        let count = state.again.iter().take(max).take_while(|(due, _)| *due <= now).count();
        state.in_flight += count;
        state.again.drain(..count).map(|(_, received)| received).collect()
    }

    /// Whether nothing is in flight and nothing is to come again.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.in_flight == 0 && state.again.is_empty()
    }

    /// Waits until something was settled since the last wait, or is to come again. Cancel safe; for one waiter.
    pub(crate) async fn changed(&self) {
        let due = self.state().again.front().map(|(due, _)| *due);
        match due {
            Some(due) => tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            None => self.changed.notified().await,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts and queue are whole after every step, so a panic elsewhere does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluicegate_engine::delivery::{Outcome, Token};

    use super::*;

    fn settled(token: u128, outcome: Outcome) -> Settled {
        Settled::new(Token(token), Arc::new(Message::new("s", "t", "body")), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_requeued_comes_again_as_the_next_attempt() {
        let redelivery = Redelivery::default();
        redelivery.handed_over(2);
        redelivery.settle(&[settled(1, Outcome::default()), settled(2, Outcome::requeued("no room"))]);
        redelivery.changed().await;
        assert!(redelivery.take(10).is_empty() && !redelivery.is_idle());
        let before = Instant::now();
        redelivery.changed().await;
        assert!(before.elapsed() >= DELAY);
        let again = redelivery.take(10);
        assert_eq!(again.iter().map(|r| (r.token, r.message.attempt)).collect::<Vec<_>>(), [(Token(2), 2)]);
        assert!(!redelivery.is_idle());
        redelivery.settle(&[settled(2, Outcome::default())]);
        assert!(redelivery.is_idle());
        assert!(redelivery.take(10).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_taken_than_asked_for() {
        let redelivery = Redelivery::default();
        redelivery.handed_over(3);
        redelivery.settle(&[1, 2, 3].map(|token| settled(token, Outcome::requeued("again"))));
        tokio::time::advance(DELAY).await;
        assert_eq!(redelivery.take(2).len(), 2);
        assert_eq!(redelivery.take(2).len(), 1);
    }
}
