//! The end of a message that cannot be delivered.

use std::sync::Arc;

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{Fault, History, Place, Trip, dropped};
use crate::dead_letter::DeadLetter;
use crate::delivery::{Outcome, Settlement};
use crate::failure::{FailureClass, GuestFailure, Reason, StepFailure};
use crate::message::now_ms;
use crate::receipt::Happening;

impl Trip<'_> {
    pub(super) async fn expired(&self, place: Place<'_>, history: History) -> Outcome {
        let text = "the message expired before it could be delivered".to_owned();
        self.record(self.letter(place, FailureClass::Expired, text, history)).await
    }

    pub(super) fn drop_exhausted(&self, place: Place<'_>, fault: &Fault) -> Outcome {
        let class = fault.class();
        self.pipeline.meters.failed(class);
        warn!(pipeline = %self.pipeline.name, message.id = %self.original.id, step = place.step.map(|s| &**s), target = place.target.map(|t| &*t.name),
            class = class.name(), error = %fault, "message dropped after its last attempt, as `on_exhausted: drop` asks");
        dropped(Reason::new(class.name(), fault.to_string()))
    }

    pub(super) async fn dead_letter(&self, place: Place<'_>, fault: &Fault, history: History) -> Outcome {
        let mut letter = self.letter(place, fault.class(), fault.to_string(), history);
        if let Fault::Step(failure) = fault {
            explain(&mut letter, failure);
        }
        self.record(letter).await
    }

    /// What was parked for a target that the pipeline has no more.
    pub async fn without_target(&self, name: &str) -> Outcome {
        let place = Place { message: self.message, step: None, target: None, alone: true };
        let text = format!("it waited for target `{name}`, which this pipeline does not have any more");
        let history = History::resumed(self.progress);
        let mut letter = self.letter(place, FailureClass::Unroutable, text, history);
        letter.target = Some(Arc::from(name));
        self.record(letter).await
    }

    fn letter(&self, place: Place<'_>, class: FailureClass, error: String, history: History) -> DeadLetter {
        // A letter that fails again keeps its record, unless other parts of it may fail, too.
        let redrive = self.progress.redrive.as_ref();
        let id = redrive.filter(|_| place.alone).map(|redrive| redrive.letter.to_string());
        DeadLetter {
            id: id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
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
            trace_id: self.original.trace_id().map(str::to_owned),
            redrive_count: redrive.map_or(0, |redrive| redrive.count),
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
        self.journal.note(|| Happening::DeadLettered {
            id: letter.id.clone(),
            class: letter.class,
            error: letter.error.clone(),
        });
        info!(pipeline = %pipeline.name, message.id = %letter.original.id, dead_letter = %letter.id, class = letter.class.name(),
            step = letter.step.as_deref(), target = letter.target.as_deref(), error = %letter.error, "dead letter");
        Outcome { settlement: Settlement::DeadLettered, dead_letters: vec![letter], ..Outcome::default() }
    }
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
