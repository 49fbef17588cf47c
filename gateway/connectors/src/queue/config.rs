//! Settings of the `queue` connector.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::declaration::{Backend, Declaration, Kind, is_name};
use super::defaults::{Defaults, Length};
use super::either;
use crate::quantity::Span;
use crate::redis;
use crate::registry::{Problem, Promise};

const LONGEST_DELAY: Duration = Duration::from_secs(30 * 86_400);
const HIGHEST_PRIORITY: u8 = 9;
/// A group that is paused gives out what is added until its present read has ended.
const LONGEST_READ: Span = Span::millis(500);

/// A queue of the section `queues`, read as a member of a group: its name, or more.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    /// Name of the queue.
    pub name: String,
    /// The group; the pipeline's name if left out.
    pub group: Option<String>,
    /// Where a group that is created begins.
    pub start: Start,
}

/// The long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SourceSettings {
    /// Name of one of `queues`.
    name: String,
    /// The group, which shares the messages among its members; the pipeline's name if left out. Created if it does not
    /// exist.
    group: Option<String>,
    /// Where a group that is created begins.
    #[serde(default)]
    start: Start,
}

/// Where a group that is created begins. One that exists goes on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "QueueStart")]
pub enum Start {
    /// With the oldest message the queue still holds.
    #[default]
    Earliest,
    /// With what is published after the group is created.
    Latest,
}

/// A queue of the section `queues` to publish to: its name, or more.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetConfig {
    /// Name of the queue.
    pub name: String,
    /// Priority of what is published, 0 to 9.
    pub priority: Option<u8>,
    /// How long the queue holds what is published before it gives it out, up to 30 days.
    pub delay: Option<Span>,
}

/// The long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TargetSettings {
    /// Name of one of `queues`.
    name: String,
    /// Priority of what is published, 0 to 9: higher ones are given out first. 4 if left out.
    #[schemars(range(min = 0, max = 9))]
    priority: Option<u8>,
    /// How long the queue holds what is published before it gives it out, 0s to 30d. If left out, as the message itself
    /// says.
    delay: Option<Span>,
}

impl<'de> Deserialize<'de> for SourceConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = |name: &str| Ok(SourceSettings { name: name.to_owned(), group: None, start: Start::default() });
        let read: SourceSettings =
            either::deserialize(deserializer, "the name of a queue, or a mapping with `name`", named)?;
        Ok(Self { name: read.name, group: read.group, start: read.start })
    }
}

impl<'de> Deserialize<'de> for TargetConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = |name: &str| Ok(TargetSettings { name: name.to_owned(), priority: None, delay: None });
        let read: TargetSettings =
            either::deserialize(deserializer, "the name of a queue, or a mapping with `name`", named)?;
        Ok(Self { name: read.name, priority: read.priority, delay: read.delay })
    }
}

impl JsonSchema for SourceConfig {
    fn schema_name() -> Cow<'static, str> {
        "QueueSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        either::schema::<SourceSettings>(generator)
    }
}

impl JsonSchema for TargetConfig {
    fn schema_name() -> Cow<'static, str> {
        "QueueTarget".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        either::schema::<TargetSettings>(generator)
    }
}

impl SourceConfig {
    /// All mistakes that show without knowing the queue.
    pub fn problems(&self) -> Vec<Problem> {
        match &self.group {
            Some(group) if !is_name(group) => {
                let hint = "A group has 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`.";
                vec![problem("/group", format!("`{group}` cannot be the name of a group"), hint)]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// What it promises; without its declaration, as if the store kept the queue.
    pub fn promise(&self, declaration: Option<&Declaration>) -> Promise {
        let redis = declaration.and_then(|declaration| self.redis(declaration));
        match redis {
            Some(redis) => redis.promise(),
            None => {
                let mut warnings = Vec::new();
                if self.start == Start::Latest {
                    warnings.push(problem(
                        "/start",
                        "`start: latest` skips what was published before the group is first created",
                        "Use `start: earliest` to read the queue from its beginning.",
                    ));
                }
                let because = "the store keeps what the group has claimed until it is settled, and gives it out again";
                Promise { at_least_once: true, because: because.to_owned(), warnings }
            }
        }
    }

    /// The Redis Stream behind it, if that is where it is kept.
    pub(super) fn redis(&self, declaration: &Declaration) -> Option<redis::SourceConfig> {
        let backend = declaration.redis()?;
        let start = match self.start {
            Start::Earliest => redis::Start::Earliest,
            Start::Latest => redis::Start::Latest,
        };
        Some(redis::SourceConfig {
            username: backend.username.clone(),
            password: backend.password.clone(),
            tls: backend.tls.clone(),
            group: self.group.clone(),
            start,
            block: LONGEST_READ,
            claim_after: backend.consumer_timeout.unwrap_or(Defaults::default().consumer_timeout),
            ..redis::SourceConfig::new(backend.url.clone(), Declaration::stream(&self.name))
        })
    }
}

impl TargetConfig {
    /// All mistakes that show without knowing the queue.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.priority.is_some_and(|priority| priority > HIGHEST_PRIORITY) {
            problems.push(problem("/priority", "there is no such priority", "Choose 0 to 9."));
        }
        if self.delay.is_some_and(|delay| delay.0 > LONGEST_DELAY) {
            problems.push(problem("/delay", "`delay` is longer than 30 days", "Choose 0s to 30d."));
        }
        problems
    }

    /// What does not fit the queue it names.
    pub fn misfits(&self, declaration: &Declaration) -> Vec<Problem> {
        let (why, hint) = match (&declaration.backend, declaration.kind) {
            (Backend::Redis(_), _) => ("Redis Streams have none", "Leave it out, or keep the queue in the store."),
            (Backend::Store, Kind::Ordered) => {
                ("an ordered queue keeps the order of publication", "Leave it out, or use a queue of another kind.")
            }
            (Backend::Store, Kind::Normal | Kind::Delay) => return Vec::new(),
        };
        let mut problems = Vec::new();
        if self.priority.is_some() {
            problems.push(problem("/priority", format!("the queue `{}` takes no priority: {why}", self.name), hint));
        }
        if self.delay.is_some() {
            problems.push(problem("/delay", format!("the queue `{}` takes no delay: {why}", self.name), hint));
        }
        problems
    }

    /// What it promises; without its declaration, as if the store kept the queue.
    pub fn promise(&self, declaration: Option<&Declaration>) -> Promise {
        let redis = declaration.and_then(|declaration| self.redis(declaration));
        match redis {
            Some(redis) => redis.promise(),
            None => Promise {
                at_least_once: true,
                because: "a message counts as published once the store has it on the disk".to_owned(),
                warnings: Vec::new(),
            },
        }
    }

    /// The Redis Stream behind it, if that is where it is kept.
    pub(super) fn redis(&self, declaration: &Declaration) -> Option<redis::TargetConfig> {
        let backend = declaration.redis()?;
        Some(redis::TargetConfig {
            max_len: declaration.retention.max_messages.and_then(Length::messages),
            username: backend.username.clone(),
            password: backend.password.clone(),
            tls: backend.tls.clone(),
            ..redis::TargetConfig::new(backend.url.clone(), Declaration::stream(&self.name))
        })
    }
}

pub(super) fn problem(pointer: &str, text: impl Into<String>, hint: &str) -> Problem {
    Problem { pointer: pointer.to_owned(), text: text.into(), hint: Some(hint.to_owned()) }
}
