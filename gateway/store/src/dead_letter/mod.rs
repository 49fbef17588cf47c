//! Dead letters as they are kept and asked for.

mod read;
mod record;
mod stored;

#[cfg(test)]
pub(crate) use stored::StoredLetter;

use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::failure::FailureClass;

use crate::error::StoreError;

/// Most dead letters on one page.
pub const MAX_PAGE_LETTERS: usize = 1_000;

/// Longest error text of a [`Summary`], in characters; [`Reader::show`](crate::Reader::show) has all of it.
pub const MAX_SUMMARY_ERROR_CHARS: usize = 1_000;

/// Which dead letters are wanted: those that match everything that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this class.
    pub class: Option<FailureClass>,
    /// Failed at this target.
    pub target: Option<String>,
    /// Failed at this time or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Failed before this time, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Somewhere in the error, the message's id or type, the step's or the plugin's name; ASCII letters match in
    /// either case. Not in the body.
    pub text: Option<String>,
}

/// A dead letter as far as it can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownLetter {
    /// All of it, but for bodies that cannot be opened: those are empty.
    pub letter: DeadLetter,
    /// Why the bodies are not there, if they are not: they are encrypted, and the key is not at hand, or they were
    /// changed.
    pub hidden: Option<StoreError>,
    /// Length of the body as received.
    pub body_bytes: u64,
}

/// Some dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub letters: Vec<Summary>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

/// What a list shows of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The dead letter's id.
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub failed_at_ms: u64,
    /// The pipeline.
    pub pipeline: String,
    /// The failing step, if a step failed.
    pub step: Option<String>,
    /// The failing target, if a target failed.
    pub target: Option<String>,
    /// The class of the last failure.
    pub class: FailureClass,
    /// The last failure, cut after [`MAX_SUMMARY_ERROR_CHARS`].
    pub error: String,
    /// The plugin, when a plugin failed.
    pub plugin: Option<String>,
    /// How often it was tried here.
    pub attempts: u32,
    /// How often it has been redriven.
    pub redrive_count: u32,
    /// The message's id.
    pub message_id: String,
    /// The message's CloudEvents type.
    pub message_kind: String,
    /// Length of the body as received.
    pub body_bytes: u64,
    /// The W3C trace id, if the message had one.
    pub trace_id: Option<String>,
}
