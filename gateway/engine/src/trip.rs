//! One message's way as it goes: tries, and the one function that decides what a failure leads to. `waiting.rs` has how it
//! waits, `dead_letter.rs` how it is given up.

mod dead_letter;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::dead_letter::Attempt;
use crate::delivery::{Outcome, Settlement};
use crate::failure::{Failure, FailureClass, FailureKind, Reason, StepFailure};
use crate::inbox::{Progress, Waypoint};
use crate::journal::Journal;
use crate::message::{Message, now_ms};
use crate::pipeline::{OnKeyFailure, Order, Pipeline};
use crate::receipt::Happening;
use crate::retry::{Decision, Trial};
use crate::target_driver::TargetLink;

/// A message on its way through a pipeline.
pub(crate) struct Trip<'a> {
    pub pipeline: &'a Pipeline,
    pub origin: Origin,
    /// The message as the gateway received it.
    pub original: &'a Arc<Message>,
    /// The message as it is where its way begins now.
    pub message: &'a Arc<Message>,
    /// How far it had come.
    pub progress: &'a Progress,
    /// Cancelled when the gateway stops: whoever waits gives its message back.
    pub stop: &'a CancellationToken,
    pub began: Instant,
    pub began_at_ms: u64,
    pub journal: Journal,
}

/// Where a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The pipeline's source.
    Source {
        /// Whether it takes messages back for longer waits.
        postpones: bool,
    },
    /// The pipeline's inbox.
    Inbox,
}

/// Where on its way a message is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub message: &'a Arc<Message>,
    pub step: Option<&'a Arc<str>>,
    pub target: Option<&'a TargetLink>,
    /// Whether this is all there is of the delivery: nothing split off, nothing fanned out. Only then may it go back to
    /// where it came from.
    pub alone: bool,
}

/// What went wrong at a place.
pub(crate) enum Fault {
    Step(StepFailure),
    Target(Failure),
}

/// What a place has suffered so far.
struct History {
    trial: Trial,
    attempts: Vec<Attempt>,
}

impl History {
    fn new() -> Self {
        Self { trial: Trial { attempt: 1, disconnects: 0, age: Duration::ZERO }, attempts: Vec::new() }
    }

    fn resumed(progress: &Progress) -> Self {
        let trial = Trial { attempt: progress.attempt.max(1), disconnects: progress.disconnects, age: Duration::ZERO };
        Self { trial, attempts: progress.attempts.clone() }
    }
}

impl Trip<'_> {
    /// Tries `work` until it succeeds or the message's way ends here. Every failure in a pipeline goes through this
    /// function; it maps (failure, attempt, policy) to retry, postpone, park, dead-letter or drop.
    ///
    /// # Errors
    /// How the message's way ended.
    pub async fn attempt<T, F>(&self, place: Place<'_>, mut work: impl FnMut() -> F) -> Result<T, Outcome>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut history = self.history(place);
        loop {
            if place.message.time_to_live().is_some_and(|left| left.is_zero()) {
                return Err(self.expired(place, history).await);
            }
            let ready = match place.target {
                None => Ok(()),
                Some(target) => self.admitted(place, target, &history).await?,
            };
            let fault = match ready {
                Ok(()) => match work().await {
                    Ok(done) => return Ok(done),
                    Err(fault) => fault,
                },
                Err(too_late) => too_late,
            };
            let (after, costs_attempt) = match self.judge(place, &fault, &mut history) {
                Decision::Retry { after, costs_attempt } => (after, costs_attempt),
                Decision::DeadLetter => return Err(self.dead_letter(place, &fault, history).await),
                Decision::Drop => return Err(self.drop_exhausted(place, &fault)),
            };
            if costs_attempt {
                history.trial.attempt = history.trial.attempt.saturating_add(1);
            } else {
                history.trial.disconnects = history.trial.disconnects.saturating_add(1);
            }
            self.wait(place, after, &history, fault.to_string()).await?;
        }
    }

    /// What was suffered at this place already: by a message that goes on here, or, since sources count for the whole
    /// way, by one that comes from its source again.
    fn history(&self, place: Place<'_>) -> History {
        let resumes_here = match &self.progress.waypoint {
            Waypoint::Start => false,
            Waypoint::Step(name) => place.step.is_some_and(|step| step == name),
            Waypoint::Target(name) => place.target.is_some_and(|target| target.name == *name),
        };
        let mut history = if resumes_here { History::resumed(self.progress) } else { History::new() };
        if let Origin::Source { .. } = self.origin {
            history.trial.attempt = self.original.attempt.max(1);
        }
        history
    }

    /// When the gateway received the message.
    pub fn received_at_ms(&self) -> u64 {
        if self.progress.received_at_ms == 0 { self.began_at_ms } else { self.progress.received_at_ms }
    }

    /// How long the gateway has had the message.
    fn age(&self) -> Duration {
        Duration::from_millis(self.began_at_ms.saturating_sub(self.received_at_ms())) + self.began.elapsed()
    }

    fn judge(&self, place: Place<'_>, fault: &Fault, history: &mut History) -> Decision {
        let policy = &self.pipeline.retry;
        history.trial.age = self.age();
        let number = history.trial.attempt;
        if history.attempts.len() < MAX_ATTEMPTS_KEPT {
            history.attempts.push(Attempt { number, at_ms: now_ms(), error: fault.to_string() });
        }
        let mut decision = policy.decide(fault.kind(), history.trial, fastrand::f64());
        let keeps_order = self.pipeline.order == Order::Key(OnKeyFailure::Park) && self.original.key.is_some();
        let old = policy.max_age.is_some_and(|limit| history.trial.age >= limit);
        if keeps_order
            && !old
            && decision == Decision::DeadLetter
            && matches!(fault.kind(), FailureKind::Transient { .. })
        {
            // The key is parked: what follows it must not overtake a message that may still be delivered.
            decision = Decision::Retry { after: policy.max_delay, costs_attempt: true };
        }
        self.journal.note(|| Happening::Failed {
            place: place.name(),
            attempt: number,
            error: fault.to_string(),
            retry_after: match decision {
                Decision::Retry { after, .. } => Some(after),
                Decision::DeadLetter | Decision::Drop => None,
            },
        });
        if let Decision::Retry { after, costs_attempt } = decision {
            self.pipeline.meters.retries.increment(1);
            warn!(
                pipeline = %self.pipeline.name, message.id = %self.original.id, step = place.step.map(|s| &**s), target = place.target.map(|t| &*t.name),
                attempt = number, max_attempts = policy.max_attempts, counted = costs_attempt, delay_ms = after.as_millis() as u64,
                error = %fault, "attempt {number}/{} failed; trying again in {after:?}", policy.max_attempts,
            );
        }
        decision
    }
}

impl Place<'_> {
    /// The step's or target's name.
    fn name(&self) -> Arc<str> {
        match (self.step, self.target) {
            (Some(step), _) => Arc::clone(step),
            (None, Some(target)) => Arc::clone(&target.name),
            (None, None) => Arc::from("start"),
        }
    }
}

/// Attempts kept in a dead letter: a parked key may try for days.
const MAX_ATTEMPTS_KEPT: usize = 100;

/// The end of a message that was dropped on purpose.
pub(crate) fn dropped(reason: Reason) -> Outcome {
    Outcome { settlement: Settlement::Dropped, dropped: vec![reason], ..Outcome::default() }
}

impl Fault {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Step(failure) => failure.kind(),
            Self::Target(failure) => failure.kind,
        }
    }

    fn class(&self) -> FailureClass {
        match self {
            Self::Step(failure) => failure.class(),
            Self::Target(failure) => match failure.kind {
                FailureKind::Permanent | FailureKind::EndOfInput => FailureClass::TargetRefused,
                FailureKind::Transient { .. } | FailureKind::Disconnected => FailureClass::TargetFailed,
            },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(failure) => failure.fmt(f),
            Self::Target(failure) => failure.fmt(f),
        }
    }
}
