//! What happened to a message, put together from its receipts and its dead letters. `sluicegate trace` and the API show it.

mod record;

use std::collections::HashSet;
use std::time::Duration;

use sluicegate_engine::inbox::Waypoint;
use sluicegate_engine::receipt::Happening;
use sluicegate_store::dead_letter::Summary as Letter;
use sluicegate_store::receipt::{Ending, ReceiptSettings, Stretch, Trail};
use sluicegate_store::{Reader, StoreError};

use crate::config::ReceiptsConfig;

pub use record::{FoundReceipt, ShownTally, ShownTrace, rfc3339};

/// All that is known of the messages of one id.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The id.
    pub id: String,
    /// What happened, by stretch.
    pub trail: Trail,
    /// The dead letters that are kept, in the order they failed.
    pub letters: Vec<Letter>,
}

/// Something that happened at some time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment<'a> {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// In this pipeline.
    pub pipeline: &'a str,
    /// What.
    pub what: What<'a>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum What<'a> {
    /// The gateway took the message: it was read, or durably admitted.
    Accepted,
    /// As noted on the way.
    Noted(&'a Happening),
    /// That many events are not kept.
    LeftOut(u64),
    /// Nothing was decided; its source has it.
    GivenBack,
    /// Its source has it and delivers it again later.
    Postponed,
}

/// Where a message, or a part of it, waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting<'a> {
    /// In this pipeline's inbox.
    pub pipeline: &'a str,
    /// Where it will go on.
    pub waypoint: &'a Waypoint,
    /// Not before this time; 0 when it waits for its target or for messages before it.
    pub until_ms: u64,
    /// Why.
    pub why: &'a str,
}

/// Why a message waits that was on its way when the gateway stopped.
const GIVEN_BACK: &str = "the gateway stopped while it was on its way";

impl Trace {
    /// All that is known of this id; `None` when nothing is.
    ///
    /// # Errors
    /// What is wrong with the store. Cancel safe.
    pub async fn find(reader: &Reader, id: &str) -> Result<Option<Self>, StoreError> {
        let trail = reader.trail(id).await?;
        let letters = reader.letters_of(id).await?;
        let is_known = !trail.stretches.is_empty() || !letters.is_empty();
        Ok(is_known.then(|| Self { id: id.to_owned(), trail, letters }))
    }

    /// Everything that happened, in order.
    pub fn moments(&self) -> Vec<Moment<'_>> {
        let mut moments = Vec::new();
        let mut accepted = HashSet::new();
        for stretch in &self.trail.stretches {
            let summary = &stretch.summary;
            let pipeline = summary.pipeline.as_str();
            let moment = |at_ms, what| Moment { at_ms, pipeline, what };
            if accepted.insert((pipeline, summary.received_at_ms)) {
                moments.push(moment(summary.received_at_ms, What::Accepted));
            }
            let middle = (stretch.events_left_out > 0).then_some(stretch.events.len() / 2);
            for (index, event) in stretch.events.iter().enumerate() {
                if middle == Some(index) {
                    moments.push(moment(event.at_ms, What::LeftOut(stretch.events_left_out)));
                }
                moments.push(moment(event.at_ms, What::Noted(&event.what)));
            }
            match summary.ending {
                Ending::Requeued => moments.push(moment(summary.ended_at_ms, What::GivenBack)),
                Ending::Postponed if !is_parked(stretch) => {
                    moments.push(moment(summary.ended_at_ms, What::Postponed));
                }
                Ending::Postponed | Ending::Delivered | Ending::Dropped | Ending::Parked | Ending::DeadLettered => {}
            }
        }
        // Stable: what happened within a millisecond stays in its order.
        moments.sort_by_key(|moment| moment.at_ms);
        moments
    }

    /// Where it waits now, as far as receipts tell: every part that was parked and has not gone on.
    pub fn waiting(&self) -> Vec<Waiting<'_>> {
        let mut waiting: Vec<Waiting<'_>> = Vec::new();
        for stretch in &self.trail.stretches {
            let pipeline = stretch.summary.pipeline.as_str();
            for event in &stretch.events {
                match &event.what {
                    Happening::Parked { waypoint, until_ms, why } => {
                        waiting.push(Waiting { pipeline, waypoint, until_ms: *until_ms, why });
                    }
                    Happening::Resumed { waypoint, .. } => {
                        let gone = |part: &Waiting<'_>| part.pipeline == pipeline && part.waypoint == waypoint;
                        if let Some(index) = waiting.iter().position(gone) {
                            waiting.remove(index);
                        }
                    }
                    Happening::Step { .. }
                    | Happening::Failed { .. }
                    | Happening::Delivered { .. }
                    | Happening::DeadLettered { .. } => {}
                }
            }
            if let (Ending::Requeued, Some(Happening::Resumed { waypoint, .. })) =
                (stretch.summary.ending, stretch.events.first().map(|event| &event.what))
            {
                waiting.push(Waiting { pipeline, waypoint, until_ms: 0, why: GIVEN_BACK });
            }
        }
        waiting
    }

    /// What became of it so far: of the last stretch, unless a part of it still waits.
    pub fn status(&self) -> Ending {
        if !self.waiting().is_empty() {
            return Ending::Parked;
        }
        self.trail.stretches.last().map_or(Ending::DeadLettered, |stretch| stretch.summary.ending)
    }
}

fn is_parked(stretch: &Stretch) -> bool {
    stretch.events.iter().any(|event| matches!(event.what, Happening::Parked { .. }))
}

/// What the store is to keep.
pub fn settings(config: &ReceiptsConfig) -> ReceiptSettings {
    ReceiptSettings { sample: config.sample, keep: config.keep }
}

/// Why nothing is known of an id, with the settings where they are known.
pub fn explain_unknown(id: &str, config: Option<&ReceiptsConfig>) -> String {
    let id: String = id.chars().take(200).flat_map(char::escape_debug).collect();
    let (share, keep) = match config {
        Some(config) => (format!("{} % of them", config.sample * 100.0), days(config.keep)),
        None => ("a share of them (1 % unless configured)".to_owned(), "a week unless configured".to_owned()),
    };
    format!(
        "no receipt of a message with the id `{id}`. Either the id is not complete and exactly as sent (search by \
         correlation id, key, pipeline or time instead); or the message went through without trouble and is not in the \
         sample: receipts are kept of {share}, `receipts.sample` changes that; or its receipt is too old: `receipts.keep` \
         is {keep}; or the message has not come to an end in this gateway yet"
    )
}

fn days(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 86_400 == 0 => format!("{}d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
