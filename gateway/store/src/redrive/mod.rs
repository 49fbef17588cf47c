//! Redrive jobs: dead letters on their way again, at a rate, until each has its outcome.
//!
//! A job selects its letters once, when it is created. The gateway that runs it puts one letter after the other into its
//! pipeline's inbox, and in the same transaction marks the job's item as sent. From there the message goes like any
//! other. When the last of its inbox's entries has been settled, the settling transaction calls `ended`: the letter is
//! deleted if nothing of it failed again, and the item has its outcome. So nothing is lost wherever a gateway dies: a
//! letter is there until all of its message has arrived.

mod control;
mod create;
mod ended;
mod read;
mod run;
mod send;

use serde_json::Value;
use sluicegate_engine::message::{Body, Headers, Message};

use crate::dead_letter::Filter;

pub(crate) use ended::ended;
pub use run::{ActiveJob, Advance, Destination, Destinations, entry};

/// Run when a gateway is removed; `$1` is its name.
pub(crate) const RELEASE: &str = "UPDATE redrive_jobs SET owner = NULL WHERE owner = $1";

/// What is announced when a job was created or controlled.
pub(crate) const TOPIC: &str = "redrives";

/// Highest rate of a job, letters a second.
pub const MAX_RATE_PER_SECOND: u32 = 10_000;
/// The rate of a job that asks for none.
pub const DEFAULT_RATE_PER_SECOND: u32 = 100;
/// How often a letter is redriven at most, unless a job says otherwise.
pub const DEFAULT_MAX_REDRIVES: u32 = 3;
/// Most letters a job is given by their ids.
pub const MAX_JOB_IDS: usize = 1_000;
/// Most jobs or items on one page.
pub const MAX_PAGE_ITEMS: usize = 1_000;

/// Which letters a job redrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All that match when it is created.
    Filter(Box<Filter>),
    /// These, by their complete ids; [`MAX_JOB_IDS`] at most.
    Ids(Vec<String>),
}

/// Where redriven messages go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// At the step or target that failed, with the message as it was there.
    #[default]
    FailedStep,
    /// Before the first step, with the message as received.
    Start,
}

impl From {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailedStep => "failed_step",
            Self::Start => "start",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FailedStep, Self::Start].into_iter().find(|from| from.name() == name)
    }
}

/// A job to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Which letters.
    pub selection: Selection,
    /// Where they go on.
    pub from: From,
    /// Letters a second, cut to 1 through [`MAX_RATE_PER_SECOND`].
    pub rate_per_second: u32,
    /// Changes JSON bodies (RFC 7396), after a letter's own edit.
    pub patch: Option<Value>,
    /// A letter that has been redriven so often already is skipped.
    pub max_redrives: u32,
    /// Who asks for it.
    pub by: String,
}

/// What came of creating a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it may have been refused"]
pub enum Created {
    /// The job's id, and how many letters it has.
    Job {
        /// Its id.
        id: String,
        /// Its letters, those that will be skipped included.
        letters: u64,
    },
    /// Refused: no letter matches.
    NothingMatches,
    /// Refused: there is no letter of this id (any more).
    NotFound(String),
    /// Refused: this letter is on its way again already.
    BeingRedriven(String),
    /// Refused: more ids than [`MAX_JOB_IDS`].
    TooMany(usize),
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It sends letters, or waits for the outcome of those it has sent.
    Running,
    /// It sends no more until it is resumed. What is sent goes on.
    Paused,
    /// It sends no more. What is sent goes on.
    Cancelled,
    /// Every letter has its outcome.
    Done,
}

impl JobState {
    const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Cancelled, Self::Done];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Done => "done",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What has become of a letter of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemState {
    /// Not sent yet.
    Pending,
    /// In its pipeline's inbox, or on its way from there.
    Sent,
    /// Every target has confirmed; the letter is gone.
    Delivered,
    /// A step dropped it on purpose; the letter is gone.
    Filtered,
    /// It failed again, all of it or a part.
    DeadLettered,
    /// It was not sent: redriven too often, on its way already, deleted meanwhile, or the job was cancelled.
    Skipped,
    /// It could not be sent.
    Failed,
}

impl ItemState {
    /// In the order in which letters go through them.
    pub const ALL: [Self; 7] =
        [Self::Pending, Self::Sent, Self::Delivered, Self::Filtered, Self::DeadLettered, Self::Skipped, Self::Failed];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Filtered => "filtered",
            Self::DeadLettered => "dead_lettered",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id (UUID version 7).
    pub id: String,
    /// What was asked for: `{"ids": […]}`, or `{"filter": {…}}` with the filter's members.
    pub selection: Value,
    /// Where messages go on.
    pub from: From,
    /// Letters a second.
    pub rate_per_second: u32,
    /// Changes JSON bodies (RFC 7396).
    pub patch: Option<Value>,
    /// A letter that has been redriven so often already is skipped.
    pub max_redrives: u32,
    /// Who asked for it.
    pub by: String,
    /// When, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it was done or cancelled.
    pub ended_at_ms: Option<u64>,
    /// What it is doing.
    pub state: JobState,
    /// Whether a gateway runs it now.
    pub is_owned: bool,
    /// How far it is.
    pub counts: Counts,
}

/// How many letters of a job are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; 7]);

impl Counts {
    /// How many are in this state.
    pub fn of(&self, state: ItemState) -> u64 {
        self.0[state as usize]
    }

    /// All.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How many have their outcome.
    pub fn ended(&self) -> u64 {
        self.total() - self.of(ItemState::Pending) - self.of(ItemState::Sent)
    }
}

/// Some jobs, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// At most as many as were asked for.
    pub jobs: Vec<Job>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

/// A letter of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place in the job, from 1.
    pub number: u64,
    /// The letter's id.
    pub letter: String,
    /// What has become of it.
    pub state: ItemState,
    /// In words: where it was delivered, why it was dropped, skipped or failed.
    pub outcome: Option<String>,
    /// When it came into this state, milliseconds since the Unix epoch; none when it is pending.
    pub at_ms: Option<u64>,
}

/// Some letters of a job, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemPage {
    /// At most as many as were asked for.
    pub items: Vec<Item>,
    /// Gets the next page, when there is more.
    pub next: Option<String>,
}

/// What came of controlling a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it may have been refused"]
pub enum Controlled {
    /// Done, or it was so already.
    Done,
    /// Refused: the job has ended.
    Ended(JobState),
    /// Refused: there is no such job.
    NotFound,
}

/// A message as it goes on after a letter's edit and a job's patch.
///
/// # Errors
/// The patch does not fit, in words for people: the body is not JSON.
pub fn changed(
    message: &Message,
    edit: Option<&crate::dead_letter::Edit>,
    patch: Option<&Value>,
) -> Result<Message, String> {
    let mut changed = message.clone();
    if let Some(edit) = edit {
        if let Some(body) = &edit.body {
            changed.body = Body::from(body.clone());
        }
        if let Some(headers) = &edit.headers {
            changed.headers = Headers::clone(headers);
        }
    }
    if let Some(patch) = patch {
        let body = changed.body.json().map_err(|error| format!("the patch does not fit: {error}"))?;
        let mut body = Value::clone(body);
        merge(&mut body, patch);
        changed.body = Body::from(body.to_string());
    }
    Ok(changed)
}

/// JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = target {
        for (name, change) in changes {
            if change.is_null() {
                // The order of the other members stays.
                members.shift_remove(name);
            } else {
                merge(members.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The test cases of RFC 7396, appendix A.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "{patch}");
        }
    }

    #[test]
    fn a_patch_of_what_is_no_json_is_refused() {
        let message = Message::new("s", "k", "not JSON");
        assert!(changed(&message, None, Some(&json!({}))).expect_err("refused").contains("does not fit"));
    }
}
