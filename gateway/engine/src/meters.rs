//! The metrics of one pipeline, with their handles kept so that a message looks nothing up. Label values come from the
//! configuration and from closed sets, never from guests.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::delivery::{Outcome, Settlement};
use crate::failure::FailureClass;
use crate::step::Step;

pub(crate) struct Meters {
    pipeline: Arc<str>,
    duration: Histogram,
    delivered: Counter,
    dropped: Counter,
    dead_lettered: Counter,
    settled_parked: Counter,
    postponed: Counter,
    requeued: Counter,
    pub retries: Counter,
    pub parked: Counter,
    steps: Vec<StepMeters>,
}

struct StepMeters {
    passed: Counter,
    dropped: Counter,
    failed: Counter,
}

impl Meters {
    pub fn new(pipeline: &Arc<str>, steps: &[Step]) -> Self {
        let name = || pipeline.to_string();
        let settled = |settlement: &'static str| counter!("sluicegate_messages_settled_total", "pipeline" => name(), "settlement" => settlement);
        let step_messages = |step: &Step, result: &'static str| counter!("sluicegate_step_messages_total", "pipeline" => name(), "step" => step.name.to_string(), "result" => result);
        Self {
            duration: histogram!("mq_message_processing_duration_seconds", "pipeline" => name()),
            delivered: settled("delivered"),
            dropped: settled("dropped"),
            dead_lettered: settled("dead_lettered"),
            settled_parked: settled("parked"),
            postponed: settled("postponed"),
            requeued: settled("requeued"),
            retries: counter!("sluicegate_retries_total", "pipeline" => name()),
            parked: counter!("sluicegate_messages_parked_total", "pipeline" => name()),
            steps: steps
                .iter()
                .map(|step| StepMeters {
                    passed: step_messages(step, "passed"),
                    dropped: step_messages(step, "dropped"),
                    failed: step_messages(step, "failed"),
                })
                .collect(),
            pipeline: Arc::clone(pipeline),
        }
    }

    /// A message has left step `index`: passed, or with this end.
    pub fn step(&self, index: usize, end: Option<&Outcome>) {
        let meters = &self.steps[index];
        match end.map(|outcome| outcome.settlement) {
            None | Some(Settlement::Delivered) => meters.passed.increment(1),
            Some(Settlement::Dropped) => meters.dropped.increment(1),
            Some(
                Settlement::Parked | Settlement::DeadLettered | Settlement::Postponed { .. } | Settlement::Requeued,
            ) => meters.failed.increment(1),
        }
    }

    /// A message's way has ended.
    pub fn ended(&self, outcome: &Outcome, took: Duration) {
        self.duration.record(took.as_secs_f64());
        match outcome.settlement {
            Settlement::Delivered => &self.delivered,
            Settlement::Dropped => &self.dropped,
            Settlement::Parked => &self.settled_parked,
            Settlement::DeadLettered => &self.dead_lettered,
            Settlement::Postponed { .. } => &self.postponed,
            Settlement::Requeued => &self.requeued,
        }
        .increment(1);
    }

    /// A message failed for good. Rare, so the handle is looked up.
    pub fn failed(&self, class: FailureClass) {
        counter!("mq_message_processing_errors_total", "pipeline" => self.pipeline.to_string(), "class" => class.name())
            .increment(1);
    }

    /// A dead letter is durable.
    pub fn dead_lettered(&self, class: FailureClass) {
        counter!("sluicegate_dead_letters_total", "pipeline" => self.pipeline.to_string(), "class" => class.name())
            .increment(1);
    }
}
