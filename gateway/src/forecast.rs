//! What would become of dead letters if they were redriven now: their messages go through today's pipeline, whose targets
//! only remember.

use std::sync::Arc;

use serde_json::{Value, json};
use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::delivery::{Resumption, Settlement};
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::{Body, Message};
use sluicegate_plugin_host::PluginHost;
use sluicegate_store::dead_letter::KeptLetter;
use sluicegate_store::redrive::{self, Destination, From, Selection};
use sluicegate_store::{Store, StoreError};

use crate::in_force::InForce;
use crate::trial::Bench;

/// Letters a dry run looks at, unless it is asked for another number.
pub const DEFAULT_FORECASTS: usize = 20;
/// Most letters a dry run looks at.
pub const MAX_FORECASTS: usize = 1_000;
/// Most changes of a body that are told.
pub const MAX_CHANGES: usize = 50;
/// A longer old or new value is told as its length, in bytes of its text.
const MAX_VALUE_BYTES: usize = 1_000;

/// What would become of one letter.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// The letter's id.
    pub letter: String,
    /// Its pipeline.
    pub pipeline: Arc<str>,
    /// How it failed.
    pub recorded: Recorded,
    /// What would happen now.
    pub expected: Expected,
    /// What differs between the body at its failure and the one that would come out now.
    pub changes: Vec<BodyChange>,
    /// Whether there are more changes than these.
    pub more_changes: bool,
}

/// How a letter failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The class.
    pub class: FailureClass,
    /// The error.
    pub error: String,
    /// The step or target.
    pub place: Option<Arc<str>>,
}

impl Recorded {
    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({ "class": self.class.name(), "error": self.error, "place": self.place.as_deref() })
    }
}

/// What would happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// It would be sent to these targets, one entry a message. Whether they take it is not tried.
    Delivered(Vec<Arc<str>>),
    /// A step would drop it, for these reasons.
    Dropped(Vec<String>),
    /// It would fail again.
    DeadLettered(Recorded),
    /// It would not be sent at all, for this reason.
    NotSent(String),
}

impl Expected {
    /// For programs.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Delivered(targets) => {
                json!({ "outcome": "delivered", "targets": targets.iter().map(|name| &**name).collect::<Vec<_>>() })
            }
            Self::Dropped(reasons) => json!({ "outcome": "dropped", "reasons": reasons }),
            Self::DeadLettered(again) => json!({ "outcome": "dead_lettered", "failure": again.to_json() }),
            Self::NotSent(why) => json!({ "outcome": "not_sent", "reason": why }),
        }
    }

    /// Whether it would fail in the same way again.
    pub fn is_same_as(&self, recorded: &Recorded) -> bool {
        match self {
            Self::DeadLettered(again) => again == recorded,
            Self::Delivered(_) | Self::Dropped(_) | Self::NotSent(_) => false,
        }
    }
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyChange {
    /// JSON pointer (RFC 6901); empty for the whole body.
    pub pointer: String,
    /// What it was; none where there was nothing.
    pub old: Option<Value>,
    /// What it would be; none where there would be nothing.
    pub new: Option<Value>,
}

impl BodyChange {
    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({ "pointer": self.pointer, "old": self.old, "new": self.new })
    }
}

/// Makes forecasts with one configuration. Plugins are loaded once.
pub struct Forecaster {
    in_force: Arc<InForce>,
    bench: Bench,
}

impl Forecaster {
    /// With the pipelines that are in force.
    pub fn new(in_force: Arc<InForce>, host: PluginHost) -> Self {
        Self { in_force, bench: Bench::new(host) }
    }

    /// What would become of a letter. Touches no broker, and nothing in the store.
    pub async fn forecast(&self, kept: &KeptLetter, from: From, patch: Option<&Value>, max_redrives: u32) -> Forecast {
        let letter = &kept.letter;
        let recorded = recorded(letter);
        let (expected, body) = match self.run(kept, from, patch, max_redrives).await {
            Ok(happened) => happened,
            Err(why) => (Expected::NotSent(why), None),
        };
        let mut changes = Vec::new();
        let more_changes = body.is_some_and(|body| !differences(&letter.at_failure.body, &body, &mut changes));
        Forecast {
            letter: letter.id.clone(),
            pipeline: Arc::clone(&letter.pipeline),
            recorded,
            expected,
            changes,
            more_changes,
        }
    }

    async fn run(
        &self,
        kept: &KeptLetter,
        from: From,
        patch: Option<&Value>,
        max_redrives: u32,
    ) -> Result<(Expected, Option<Body>), String> {
        let letter = &kept.letter;
        if kept.is_being_redriven {
            return Err("it is on its way again already".to_owned());
        }
        if letter.redrive_count >= max_redrives {
            return Err(format!("it was redriven {} times already", letter.redrive_count));
        }
        let Some((config, pipeline)) = self.in_force.pipeline(&letter.pipeline) else {
            return Err(format!("the configuration has no pipeline `{}`", letter.pipeline));
        };
        let mut entry = redrive::entry(kept, from, patch, Destination { ordered: false })?;
        entry.progress.redrive = None;
        let message = Message::clone(&entry.message);
        let resumption = Resumption { original: Some(entry.original), progress: entry.progress };
        let trial = self.bench.run_from(config, pipeline, message, Some(resumption)).await;
        let trial = trial.map_err(|error| format!("it cannot be tried: {error:#}"))?;
        let outcome = trial.outcome;
        let published = trial.published.first().map(|(_, message)| message.body.clone());
        match (outcome.settlement, outcome.dead_letters.first()) {
            (_, Some(again)) => {
                Ok((Expected::DeadLettered(self::recorded(again)), Some(again.at_failure.body.clone())))
            }
            (Settlement::Dropped, None) => {
                let reasons = outcome.dropped.iter().map(ToString::to_string).collect();
                Ok((Expected::Dropped(reasons), None))
            }
            (Settlement::Delivered, None) => {
                let targets = trial.published.into_iter().map(|(target, _)| target).collect();
                Ok((Expected::Delivered(targets), published))
            }
            (
                Settlement::Parked | Settlement::DeadLettered | Settlement::Postponed { .. } | Settlement::Requeued,
                None,
            ) => Err(outcome.undecided.unwrap_or_else(|| "nothing was decided".to_owned())),
        }
    }
}

fn recorded(letter: &DeadLetter) -> Recorded {
    let place = letter.step.clone().or_else(|| letter.target.clone());
    Recorded { class: letter.class, error: letter.error.clone(), place }
}

/// The letters a dry run looks at, page by page.
#[derive(Debug)]
pub struct Letters {
    selection: Selection,
    left: usize,
    after: Option<String>,
    at: usize,
}

impl Letters {
    /// `limit` of them at most.
    pub fn new(selection: Selection, limit: usize) -> Self {
        Self { selection, left: limit, after: None, at: 0 }
    }

    /// The next few; `None` when there are no more.
    ///
    /// # Errors
    /// What is wrong with the store, or a letter is gone.
    pub async fn next(&mut self, store: &Store) -> Result<Option<Vec<KeptLetter>>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        match &self.selection {
            Selection::Ids(ids) => {
                let Some(id) = ids.get(self.at) else { return Ok(None) };
                self.at += 1;
                self.left -= 1;
                store.reader().find(id).await.map(|letter| Some(vec![letter]))
            }
            Selection::Filter(filter) => {
                /// Read at a time.
                const PAGE: usize = 50;
                let page = store.reader().letters(filter, self.left.min(PAGE), self.after.as_deref()).await?;
                self.left = if page.next.is_some() { self.left.saturating_sub(page.letters.len()) } else { 0 };
                self.after = page.next;
                Ok(Some(page.letters))
            }
        }
    }
}

/// What differs between two bodies; as a whole where one of them is no JSON. Returns whether that is all.
fn differences(old: &Body, new: &Body, changes: &mut Vec<BodyChange>) -> bool {
    if old == new {
        return true;
    }
    match (old.json(), new.json()) {
        (Ok(old), Ok(new)) => compare(&mut String::new(), Some(old), Some(new), changes),
        (Ok(_) | Err(_), _) => {
            let text = |body: &Body| Value::String(String::from_utf8_lossy(body.bytes()).into_owned());
            changes.push(change("", Some(&text(old)), Some(&text(new))));
            true
        }
    }
}

/// Depth first; nesting is limited by what a body may have.
fn compare(pointer: &mut String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<BodyChange>) -> bool {
    if old == new {
        return true;
    }
    let length = pointer.len();
    match (old, new) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let added = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(added) {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                let is_all = compare(pointer, before.get(name), after.get(name), changes);
                pointer.truncate(length);
                if !is_all {
                    return false;
                }
            }
            true
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for index in 0..before.len().max(after.len()) {
                pointer.push('/');
                pointer.push_str(&index.to_string());
                let is_all = compare(pointer, before.get(index), after.get(index), changes);
                pointer.truncate(length);
                if !is_all {
                    return false;
                }
            }
            true
        }
        (old, new) => {
            if changes.len() == MAX_CHANGES {
                return false;
            }
            changes.push(change(pointer, old, new));
            true
        }
    }
}

fn change(pointer: &str, old: Option<&Value>, new: Option<&Value>) -> BodyChange {
    let short = |value: &Value| {
        let length = value.to_string().len();
        if length <= MAX_VALUE_BYTES { value.clone() } else { Value::String(format!("… {length} bytes of JSON …")) }
    };
    BodyChange { pointer: pointer.to_owned(), old: old.map(short), new: new.map(short) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between(old: &Value, new: &Value) -> (Vec<BodyChange>, bool) {
        let mut changes = Vec::new();
        let is_all = differences(&Body::from(old.to_string()), &Body::from(new.to_string()), &mut changes);
        (changes, is_all)
    }

    #[test]
    fn changes_are_told_by_their_pointers() {
        let (changes, is_all) =
            between(&json!({"a/b": 1, "c": [1, 2], "d": 0}), &json!({"a/b": 2, "c": [1], "e": null}));
        let change = |pointer: &str, old: Option<Value>, new: Option<Value>| BodyChange {
            pointer: pointer.to_owned(),
            old,
            new,
        };
        let expected = [
            change("/a~1b", Some(json!(1)), Some(json!(2))),
            change("/c/1", Some(json!(2)), None),
            change("/d", Some(json!(0)), None),
            change("/e", None, Some(json!(null))),
        ];
        assert_eq!((changes.as_slice(), is_all), (&expected[..], true));
    }

    #[test]
    fn changes_are_limited() {
        let numbers = |from: usize| (from..from + 100).collect::<Vec<_>>();
        let (changes, is_all) = between(&json!(numbers(0)), &json!(numbers(1)));
        assert_eq!((changes.len(), is_all), (MAX_CHANGES, false));
        let (changes, _) = between(&json!({"a": "x".repeat(5_000)}), &json!({"a": 1}));
        assert_eq!(changes[0].old, Some(json!("… 5002 bytes of JSON …")));
    }
}
