//! What queues are like whose declaration leaves it out.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::config::problem;
use crate::quantity::{Size, Span};
use crate::registry::Problem;

/// As `claim_after` of the `redis` connector.
pub(super) const CONSUMER_TIMEOUTS: RangeInclusive<Span> = Span::millis(100)..=Span::secs(3_600);

/// The section `queue_defaults`: for declared queues and for those made through the API or, with `--config`, the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "QueueDefaults")]
pub struct Defaults {
    /// Most messages, scheduled ones included, or `unlimited`. Queues kept in Redis have the limit that they declare, or
    /// none.
    pub max_messages: Length,
    /// Messages that were published longer ago are removed, read or not; 1s to 3650d.
    pub max_age: Span,
    /// Largest message, body, attributes and headers together, 1B to 64MiB.
    pub max_message: Size,
    /// Of queues kept in Redis: for how long a consumer may be silent before what it has claimed is given to another, 100ms
    /// to 1h. The store notices within 10s.
    pub consumer_timeout: Span,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            max_messages: Length::Messages(10_000),
            max_age: Span::secs(7 * 86_400),
            max_message: Size(1 << 20),
            consumer_timeout: Span::secs(30),
        }
    }
}

impl Defaults {
    /// Everything that is outside its limits; pointers are from the section.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(super::declaration::LEAST_AGE..=super::declaration::LONGEST_AGE).contains(&self.max_age) {
            problems.push(problem("/max_age", "this length of time is outside its limits", "1s to 3650d"));
        }
        if !(Size(1)..=super::declaration::LARGEST_MESSAGE).contains(&self.max_message) {
            problems.push(problem("/max_message", "this size is outside its limits", "1B to 64MiB"));
        }
        if !CONSUMER_TIMEOUTS.contains(&self.consumer_timeout) {
            problems.push(problem("/consumer_timeout", "this length of time is outside its limits", "100ms to 1h"));
        }
        problems
    }
}

/// How many messages a queue may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many, at least 1.
    Messages(u64),
    /// As many as there is room for.
    Unlimited,
}

/// As it is written.
pub const UNLIMITED: &str = "unlimited";

impl Length {
    /// Reads a number from 1, or `unlimited`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            UNLIMITED => Some(Self::Unlimited),
            _ => text.parse().ok().filter(|count| *count > 0).map(Self::Messages),
        }
    }

    /// The number, if there is a limit.
    pub fn messages(self) -> Option<u64> {
        match self {
            Self::Messages(count) => Some(count),
            Self::Unlimited => None,
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(count) => count.fmt(f),
            Self::Unlimited => f.write_str(UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Length;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number of messages from 1, or `{UNLIMITED}`")
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Length, E> {
                if count == 0 {
                    return Err(E::invalid_value(Unexpected::Unsigned(count), &self));
                }
                Ok(Length::Messages(count))
            }

            // A number may come from the environment, as text.
            fn visit_str<E: Error>(self, text: &str) -> Result<Length, E> {
                Length::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

impl JsonSchema for Length {
    fn schema_name() -> Cow<'static, str> {
        "QueueLength".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": "^(unlimited|[1-9][0-9]{0,18})$"
        })
    }
}

impl serde::Serialize for Length {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Messages(count) => serializer.serialize_u64(*count),
            Self::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_length_is_a_number_or_unlimited() {
        let read = |value| serde_json::from_value::<Length>(value);
        assert_eq!(read(json!(5)).expect("a length"), Length::Messages(5));
        assert_eq!(read(json!("10000")).expect("from the environment"), Length::Messages(10_000));
        assert_eq!(read(json!("unlimited")).expect("a length"), Length::Unlimited);
        for wrong in [json!(0), json!(-1), json!("0"), json!("many"), json!(1.5), json!(null)] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_default_has_its_limits() {
        assert_eq!(Defaults::default().problems(), []);
        let wrong = Defaults {
            max_age: Span::millis(1),
            max_message: Size(0),
            consumer_timeout: Span::secs(7_200),
            ..Defaults::default()
        };
        let pointers: Vec<String> = wrong.problems().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/max_age", "/max_message", "/consumer_timeout"]);
    }
}
