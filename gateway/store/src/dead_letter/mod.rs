//! Dead letters as they are kept and asked for.

mod cause;
mod edit;
mod filter;
mod group;
mod of_message;
mod read;
mod record;
mod redriven;
mod removal;
mod stored;

use bytes::Bytes;
use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Headers;

use crate::error::StoreError;

pub(crate) use filter::Conditions;
pub use group::{Group, GroupPage, MAX_PAGE_GROUPS};
pub(crate) use read::try_read_letter;
pub use read::{LetterPage, MAX_PAGE_BYTES};
pub(crate) use redriven::{delete_redriven, hold_redriven, is_being_redriven, state};
#[cfg(test)]
pub(crate) use stored::StoredLetter;

/// Most dead letters on one page.
pub const MAX_PAGE_LETTERS: usize = 1_000;

/// Longest error text of a [`Summary`], in characters; [`Reader::show`](crate::Reader::show) has all of it.
pub const MAX_SUMMARY_ERROR_CHARS: usize = 1_000;

/// Most attempts a dead letter keeps over all its redrives, the newest.
pub const MAX_ATTEMPTS: usize = 100;

/// Which dead letters are wanted: those that match everything that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this class.
    pub class: Option<FailureClass>,
    /// Failed at this step.
    pub step: Option<String>,
    /// Failed at this target.
    pub target: Option<String>,
    /// Failed in the plugin of this digest, `sha256:…`.
    pub plugin_digest: Option<String>,
    /// Of the message with this id.
    pub message_id: Option<String>,
    /// Of this cause, see [`Group::cause`].
    pub cause: Option<String>,
    /// Failed at this time or later, milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// Failed before this time, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Somewhere in the error, the message's id or type, the step's or the plugin's name; ASCII letters match in
    /// either case. Not in the body.
    pub text: Option<String>,
}

/// A dead letter with what the store knows of it beside its record.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptLetter {
    /// The record.
    pub letter: DeadLetter,
    /// What groups it, see [`Group::cause`].
    pub cause: String,
    /// How the message is to be changed when it is redriven.
    pub edit: Option<KeptEdit>,
    /// Whether it is on its way again: then it cannot be changed, deleted or redriven.
    pub is_being_redriven: bool,
}

/// A dead letter as far as it can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownLetter {
    /// All of it, but for bodies that cannot be opened: those are empty, that of an edit too.
    pub kept: KeptLetter,
    /// Why the bodies are not there, if they are not: they are encrypted, and the key is not at hand, or they were
    /// changed.
    pub hidden: Option<StoreError>,
    /// Length of the body as received.
    pub body_bytes: u64,
}

/// How a message is to be changed when it is redriven. The record itself stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Another body.
    pub body: Option<Bytes>,
    /// Other headers, all of them.
    pub headers: Option<Headers>,
}

/// An edit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEdit {
    /// What.
    pub edit: Edit,
    /// Who, as they said.
    pub by: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What became of a change to one dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it may have been refused"]
pub enum Changed {
    /// Made.
    Done,
    /// Refused: the letter is on its way again.
    BeingRedriven,
    /// Refused: there is no such letter (any more).
    NotFound,
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
    /// The plugin's digest, `sha256:…`.
    pub plugin_digest: Option<String>,
    /// What groups it, see [`Group::cause`].
    pub cause: String,
    /// Whether somebody has edited the message that is to be redriven.
    pub is_edited: bool,
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
