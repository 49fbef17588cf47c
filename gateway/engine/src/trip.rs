//! One message's way as it goes: tries, waits, and the one function that decides what a failure leads to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::dead_letter::{Attempt, DeadLetter};
use crate::delivery::{Outcome, Settlement};
use crate::failure::{Failure, FailureClass, FailureKind, GuestFailure, Reason, StepFailure};
use crate::message::{Message, now_ms};
use crate::pipeline::{OnKeyFailure, Order, Pipeline};
use crate::retry::{Decision, HOLD_LIMIT, Trial};
use crate::target_driver::TargetLink;

/// A message on its way through a pipeline.
pub(crate) struct Trip<'a> {
    pub pipeline: &'a Pipeline,
    pub original: &'a Arc<Message>,
    /// Whether the source takes the message back for longer waits.
    pub postpones: bool,
    /// Cancelled when the gateway stops: whoever waits gives its message back.
    pub stop: &'a CancellationToken,
    pub began: Instant,
}

/// Where on its way a message is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub message: &'a Arc<Message>,
    pub step: Option<&'a Arc<str>>,
    pub target: Option<&'a TargetLink>,
    /// Whether this is all there is of the delivery: nothing split off, nothing fanned out. Only then may it be
    /// postponed, since a postponed message starts over from the source.
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

impl Trip<'_> {
    /// Tries `work` until it succeeds or the message's way ends here. Every failure in a pipeline goes through this
    /// function; it maps (failure, attempt, policy) to retry, postpone, dead-letter or drop.
    ///
    /// # Errors
    /// How the message's way ended.
    pub async fn attempt<T, F>(&self, place: Place<'_>, mut work: impl FnMut() -> F) -> Result<T, Outcome>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let trial = Trial { attempt: self.original.attempt.max(1), disconnects: 0, age: Duration::ZERO };
        let mut history = History { trial, attempts: Vec::new() };
        loop {
            if place.message.time_to_live().is_some_and(|left| left.is_zero()) {
                return Err(self.expired(place, history).await);
            }
            let ready = match place.target {
                None => Ok(()),
                Some(target) => self.admitted(place, target, history.trial.attempt).await?,
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
            self.wait(place, after, history.trial.attempt).await?;
        }
    }

    /// Waits until the target is connected and its circuit breaker lets a message through. A message that its source
    /// takes back does not wait here for a target that is down: it would hold the place of messages for other targets.
    ///
    /// # Errors
    /// Outer: the message's way ends here. Inner: it has waited as long as it may.
    async fn admitted(
        &self,
        place: Place<'_>,
        target: &TargetLink,
        attempt: u32,
    ) -> Result<Result<(), Fault>, Outcome> {
        let admission = async {
            if self.may_postpone(place) && timeout(HOLD_LIMIT, target.connected()).await.is_err() {
                self.wait(place, TARGET_DOWN_DELAY, attempt).await?;
            }
            tokio::select! {
                biased;
                () = target.connected() => {}
                () = self.stop.cancelled() => return Err(Outcome::requeued(STOPPING)),
            }
            while let Err(after) = target.admit() {
                self.wait(place, after, attempt).await?;
            }
            Ok(())
        };
        let Some(left) = self.patience(place) else { return admission.await.map(Ok) };
        match timeout(left, admission).await {
            Ok(admitted) => admitted.map(Ok),
            Err(_) => {
                let text =
                    format!("target `{}` could not take it before it expired or reached its `max_age`", target.name);
                Ok(Err(Fault::Target(Failure::transient(text))))
            }
        }
    }

    /// How much longer a message may wait for a target, if there is a limit.
    fn patience(&self, place: Place<'_>) -> Option<Duration> {
        let by_age = self.pipeline.retry.max_age.map(|limit| limit.saturating_sub(self.began.elapsed()));
        let by_expiry = place.message.time_to_live();
        by_age.into_iter().chain(by_expiry).min()
    }

    /// Waits before the attempt `attempt`, in flight or, for longer waits, by giving the message back to its source.
    async fn wait(&self, place: Place<'_>, after: Duration, attempt: u32) -> Result<(), Outcome> {
        if after > HOLD_LIMIT && self.may_postpone(place) {
            let settlement = Settlement::Postponed { after, attempt };
            let undecided = Some(format!("attempt {attempt} follows in {after:?}"));
            return Err(Outcome { settlement, undecided, ..Outcome::default() });
        }
        self.hold(after).await
    }

    /// Waits with the message in flight.
    ///
    /// # Errors
    /// The gateway is stopping.
    pub async fn hold(&self, delay: Duration) -> Result<(), Outcome> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Outcome::requeued(STOPPING)),
            () = sleep(delay) => Ok(()),
        }
    }

    fn may_postpone(&self, place: Place<'_>) -> bool {
        self.postpones && place.alone && self.pipeline.order == Order::None
    }

    fn judge(&self, place: Place<'_>, fault: &Fault, history: &mut History) -> Decision {
        let policy = &self.pipeline.retry;
        history.trial.age = self.began.elapsed();
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

    async fn expired(&self, place: Place<'_>, history: History) -> Outcome {
        let text = "the message expired before it could be delivered".to_owned();
        self.record(self.letter(place, FailureClass::Expired, text, history)).await
    }

    fn drop_exhausted(&self, place: Place<'_>, fault: &Fault) -> Outcome {
        let class = fault.class();
        self.pipeline.meters.failed(class);
        warn!(pipeline = %self.pipeline.name, message.id = %self.original.id, step = place.step.map(|s| &**s), target = place.target.map(|t| &*t.name),
            class = class.name(), error = %fault, "message dropped after its last attempt, as `on_exhausted: drop` asks");
        dropped(Reason::new(class.name(), fault.to_string()))
    }

    async fn dead_letter(&self, place: Place<'_>, fault: &Fault, history: History) -> Outcome {
        let mut letter = self.letter(place, fault.class(), fault.to_string(), history);
        if let Fault::Step(failure) = fault {
            explain(&mut letter, failure);
        }
        self.record(letter).await
    }

    fn letter(&self, place: Place<'_>, class: FailureClass, error: String, history: History) -> DeadLetter {
        DeadLetter {
            id: uuid::Uuid::now_v7().to_string(),
            failed_at_ms: now_ms(),
            pipeline: Arc::clone(&self.pipeline.name),
            config_version: Arc::clone(&self.pipeline.config_version),
            original: Arc::clone(self.original),
            at_failure: Arc::clone(place.message),
            step: place.step.cloned(),
            target: place.target.map(|target| Arc::clone(&target.name)),
            class,
            error,
            schema_errors: Vec::new(),
            plugin: None,
            plugin_digest: None,
            backtrace: Vec::new(),
            attempts: history.attempts,
            trace_id: self.original.trace_parent.as_deref().and_then(trace_id),
            redrive_count: 0,
        }
    }

    /// Makes the dead letter durable, for as long as it takes; the message stays in flight meanwhile.
    async fn record(&self, letter: DeadLetter) -> Outcome {
        let letter = Arc::new(letter);
        let pipeline = self.pipeline;
        pipeline.meters.failed(letter.class);
        for attempt in 1_u32.. {
            let Err(failure) = pipeline.dead_letters.record(&letter).await else { break };
            let after = pipeline.retry.ceiling(attempt).mul_f64(0.5 + fastrand::f64() / 2.0);
            error!(pipeline = %pipeline.name, message.id = %letter.original.id, attempt, delay_ms = after.as_millis() as u64, error = %failure,
                "cannot keep the dead letter; the message stays in flight");
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Outcome::requeued("the dead letter could not be kept; the message stays with its source"),
                () = sleep(after) => {}
            }
        }
        pipeline.meters.dead_lettered(letter.class);
        info!(pipeline = %pipeline.name, message.id = %letter.original.id, dead_letter = %letter.id, class = letter.class.name(),
            step = letter.step.as_deref(), target = letter.target.as_deref(), error = %letter.error, "dead letter");
        Outcome { settlement: Settlement::DeadLettered, dead_letters: vec![letter], ..Outcome::default() }
    }
}

/// Why a message is given back when the gateway stops.
const STOPPING: &str = "the gateway is stopping; the message stays with its source";

/// How long a message is given back for when its target is not connected.
const TARGET_DOWN_DELAY: Duration = Duration::from_secs(5);

/// Attempts kept in a dead letter: a parked key may try for days.
const MAX_ATTEMPTS_KEPT: usize = 100;

/// The end of a message that was dropped on purpose.
pub(crate) fn dropped(reason: Reason) -> Outcome {
    Outcome { settlement: Settlement::Dropped, dropped: vec![reason], ..Outcome::default() }
}

/// Adds a step's evidence to a dead letter.
fn explain(letter: &mut DeadLetter, failure: &StepFailure) {
    match failure {
        StepFailure::Schema { errors, .. } => letter.schema_errors.clone_from(errors),
        StepFailure::Guest { plugin, digest, failure } => {
            letter.plugin = Some(plugin.clone());
            letter.plugin_digest = Some(digest.clone());
            match failure {
                GuestFailure::Trap { backtrace, .. }
                | GuestFailure::Deadline { backtrace, .. }
                | GuestFailure::Memory { backtrace, .. } => letter.backtrace.clone_from(backtrace),
                GuestFailure::Retry { .. }
                | GuestFailure::Reject(_)
                | GuestFailure::OutputLimit { .. }
                | GuestFailure::ContractViolation(_)
                | GuestFailure::Unavailable(_) => {}
            }
        }
        StepFailure::Unroutable | StepFailure::Timeout(_) => {}
    }
}

/// The trace id of a W3C `traceparent` (version-traceid-parentid-flags).
fn trace_id(trace_parent: &str) -> Option<String> {
    let id = trace_parent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
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
