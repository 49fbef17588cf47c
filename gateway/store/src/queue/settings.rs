//! What a queue is like: its kind, its limits, and what happens at them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::QueueError;

/// Longest name of a queue or group, in characters.
pub const MAX_NAME_CHARS: usize = 128;
/// Most queues of a store.
pub const MAX_QUEUES: u64 = 10_000;
/// Most groups of a queue.
pub const MAX_GROUPS: u64 = 1_000;
/// Largest message a queue can be set to take, its headers and attributes included: 64 MiB.
pub const LARGEST_MESSAGE_BYTES: u64 = 64 << 20;
/// Most messages of a queue unless it says otherwise.
pub const DEFAULT_MAX_MESSAGES: u64 = 10_000;
/// Longest time messages are kept, and longest time to live: 3,650 days.
pub const LONGEST_AGE: Duration = Duration::from_secs(3_650 * 86_400);
/// Longest time a message can be scheduled ahead: 30 days.
pub const LONGEST_DELAY: Duration = Duration::from_secs(30 * 86_400);
/// The highest priority; the lowest is 0.
pub const HIGHEST_PRIORITY: u8 = 9;
/// The priority of messages that are given none, as in JMS.
pub const DEFAULT_PRIORITY: u8 = 4;

/// In which order a queue gives out its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// The highest priority first, then the oldest; several consumers take turns.
    #[default]
    Normal,
    /// Messages of one key one after the other, in the order in which they were published: to each group the next is
    /// given out once the one before is settled. No priorities, no delays. Messages without a key have no order.
    Ordered,
    /// Every message waits before it is given out: until its own time, or for [`Settings::delay`].
    Delay,
}

/// What happens to new messages at [`Retention::max_messages`] or [`Retention::max_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtLimit {
    /// They are refused, unless messages that every group has settled can make room for them (where there is a group).
    #[default]
    Refuse,
    /// The oldest are removed for them, settled or not.
    DropOldest,
}

/// How bodies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Compressed with zstd, where that makes them smaller.
    Zstd,
}

/// How long and how much a queue keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Messages that were published longer ago are removed, settled or not; 1 s to [`LONGEST_AGE`]. 7 days by default.
    pub max_age: Duration,
    /// Most bytes of stored messages, scheduled ones included; at least 1. No limit by default.
    pub max_bytes: Option<u64>,
    /// Most messages, scheduled ones included; at least 1. [`DEFAULT_MAX_MESSAGES`] by default.
    pub max_messages: Option<u64>,
    /// What happens at the limit.
    pub at_limit: AtLimit,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: None,
            max_messages: Some(DEFAULT_MAX_MESSAGES),
            at_limit: AtLimit::Refuse,
        }
    }
}

/// The properties of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// In which order messages are given out. Cannot be changed later.
    pub kind: Kind,
    /// How long and how much is kept.
    pub retention: Retention,
    /// Largest message, body, attributes and headers together, before compression; 1 byte to
    /// [`LARGEST_MESSAGE_BYTES`]. 1 MiB by default.
    pub max_message_bytes: u64,
    /// How bodies are kept.
    pub compression: Compression,
    /// Messages that are older are not given out any more; 1 s to [`LONGEST_AGE`]. None by default: as long as they are
    /// kept. A message's own expiry counts if it is earlier.
    pub ttl: Option<Duration>,
    /// Of a delay queue: how long messages wait that bring no time of their own; up to [`LONGEST_DELAY`].
    pub delay: Option<Duration>,
    /// Name of the schema its messages satisfy. Only kept here; who publishes checks it.
    pub schema: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: Kind::Normal,
            retention: Retention::default(),
            max_message_bytes: 1 << 20,
            compression: Compression::None,
            ttl: None,
            delay: None,
            schema: None,
        }
    }
}

impl Settings {
    /// Everything that is outside its limits, as (property, what is wrong).
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut wrong = |property, text: &str| problems.push((property, text.to_owned()));
        let Retention { max_age, max_bytes, max_messages, at_limit: _ } = self.retention;
        if !AGES.contains(&max_age) {
            wrong("retention.max_age", "choose 1s to 3650d");
        }
        if max_bytes == Some(0) {
            wrong("retention.max_bytes", "choose at least 1B, or leave it out");
        }
        if max_messages == Some(0) {
            wrong("retention.max_messages", "choose at least 1, or leave it out");
        }
        if !(1..=LARGEST_MESSAGE_BYTES).contains(&self.max_message_bytes) {
            wrong("max_message", "choose 1B to 64MiB");
        }
        if max_bytes.is_some_and(|bytes| bytes > 0 && bytes < self.max_message_bytes) {
            wrong("retention.max_bytes", "it is less than the largest message; raise it, or lower max_message");
        }
        if self.ttl.is_some_and(|ttl| !AGES.contains(&ttl)) {
            wrong("ttl", "choose 1s to 3650d, or leave it out");
        }
        match (self.kind, self.delay) {
            (Kind::Delay, Some(delay)) if delay > LONGEST_DELAY => wrong("delay", "choose at most 30d"),
            (Kind::Delay, _) | (Kind::Normal | Kind::Ordered, None) => {}
            (Kind::Normal | Kind::Ordered, Some(_)) => wrong("delay", "only queues of the kind `delay` have one"),
        }
        if self.schema.as_ref().is_some_and(|name| name.is_empty() || name.chars().count() > MAX_NAME_CHARS) {
            wrong("schema", "a name has 1 to 128 characters");
        }
        problems
    }

    pub(super) fn check(&self) -> Result<(), QueueError> {
        match self.problems().into_iter().next() {
            None => Ok(()),
            Some((property, text)) => Err(QueueError::Invalid { what: property.to_owned(), text }),
        }
    }
}

const AGES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST_AGE;

/// Whether a queue or group can have this name: 1 to [`MAX_NAME_CHARS`] of `A-Z a-z 0-9 . _ -`.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(plain)
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), QueueError> {
    if is_name(name) {
        return Ok(());
    }
    let text = format!("a {what} has 1 to {MAX_NAME_CHARS} of A-Z, a-z, 0-9, `.`, `_` and `-`");
    Err(QueueError::Invalid { what: format!("name of the {what}"), text })
}

/// An enum with a name for each value, as it is stored, written and shown.
macro_rules! named {
    ($type:ident { $($name:literal => $variant:ident),+ }) => {
        impl $type {
            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The one of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::from_name(&name)
                    .ok_or_else(|| serde::de::Error::unknown_variant(&name, &[$($name),+]))
            }
        }
    };
}

named!(Kind { "normal" => Normal, "ordered" => Ordered, "delay" => Delay });
named!(AtLimit { "refuse" => Refuse, "drop_oldest" => DropOldest });
named!(Compression { "none" => None, "zstd" => Zstd });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for name in ["a", "Orders.eu_1-x", &"x".repeat(128)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "é", &"x".repeat(129)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn every_number_has_its_limits() {
        assert_eq!(Settings::default().problems(), []);
        let settings = Settings {
            retention: Retention {
                max_age: Duration::ZERO,
                max_bytes: Some(0),
                max_messages: Some(0),
                at_limit: AtLimit::Refuse,
            },
            max_message_bytes: 0,
            ttl: Some(Duration::from_millis(999)),
            delay: Some(Duration::from_secs(1)),
            schema: Some(String::new()),
            ..Settings::default()
        };
        let found: Vec<&str> = settings.problems().into_iter().map(|(property, _)| property).collect();
        let all = ["retention.max_age", "retention.max_bytes", "retention.max_messages", "max_message", "ttl", "delay"];
        assert_eq!(found, [&all[..], &["schema"]].concat());
        let late = Settings { kind: Kind::Delay, delay: Some(LONGEST_DELAY * 2), ..Settings::default() };
        assert_eq!(late.problems()[0].0, "delay");
        let small = Retention { max_bytes: Some(1_000), ..Retention::default() };
        assert_eq!(Settings { retention: small, ..Settings::default() }.problems()[0].0, "retention.max_bytes");
    }

    #[test]
    fn settings_are_kept_as_they_are() {
        let settings = Settings { kind: Kind::Delay, ttl: Some(Duration::from_millis(1_500)), ..Settings::default() };
        let text = serde_json::to_string(&settings).expect("JSON");
        assert!(text.contains(r#""kind":"delay""#), "{text}");
        assert_eq!(serde_json::from_str::<Settings>(&text).expect("settings"), settings);
    }
}
