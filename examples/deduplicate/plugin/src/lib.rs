//! Drops messages whose value at a JSON pointer was seen within a time, by key-value state that outlives calls, restarts
//! and gateways.
//!
//! A message that fails after this step is tried again and must not be taken for its own repetition: what is kept is which
//! message was the first, and that one is always let through.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict, metrics, schema_of, state};

/// Longest key of the store, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// What the pipeline configures.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Pointer to what makes two messages the same.
    by: String,
    /// For how long it is remembered, in seconds; more than 0.
    seconds: u32,
}

/// The filter, made once from its configuration.
pub struct Deduplicate(Config);

impl Plugin for Deduplicate {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = Vec::new();
        if !config.by.starts_with('/') {
            mistakes.push(Reason::new("invalid_config", "/by: must be a JSON pointer such as /order/id"));
        }
        if config.seconds == 0 {
            mistakes.push(Reason::new("invalid_config", "/seconds: must be more than 0"));
        }
        if mistakes.is_empty() { Ok(Self(config)) } else { Err(mistakes) }
    }
}

impl Filter for Deduplicate {
    fn filter(&self, message: &Message) -> Result<Verdict, Failure> {
        let Some(value) = message.json(&self.0.by) else {
            return Err(Failure::reject("no_identity", format!("the body has no value at {}", self.0.by)));
        };
        if value.len() > MAX_KEY_BYTES {
            return Err(Failure::reject("long_identity", format!("the value at {} is too long for a key", self.0.by)));
        }
        let first = format!("{}\n{}", message.source(), message.id());
        let remember = Duration::from_secs(self.0.seconds.into());
        let is_first = state::compare_and_set(&value, None, Some(first.as_bytes()), Some(remember))?
            || state::get(&value)?.is_none_or(|known| known == first.as_bytes());
        let outcome = if is_first { "first" } else { "repeated" };
        // A metric that is not granted is no reason to hold a message up.
        metrics::count("seen_total", &[("outcome", outcome)], 1).ok();
        if is_first {
            Ok(Verdict::Keep)
        } else {
            Ok(Verdict::Drop(Reason::new("repeated", format!("{value} was seen before"))))
        }
    }
}

sluicegate_plugin::export!(Deduplicate: Filter);

#[cfg(test)]
mod tests {
    use sluicegate_plugin::MessageBuilder;

    use super::*;

    fn order(message_id: &str, order: &str) -> Message {
        MessageBuilder::new().id(message_id).json(&serde_json::json!({ "id": order })).build()
    }

    fn filter() -> Deduplicate {
        state::double::clear();
        Deduplicate::configure(Config { by: "/id".to_owned(), seconds: 60 })
            .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    fn keeps(filter: &Deduplicate, message: &Message) -> bool {
        filter.filter(message).expect("a verdict") == Verdict::Keep
    }

    #[test]
    fn a_repetition_is_dropped_until_its_time_is_over() {
        let filter = filter();
        assert!(keeps(&filter, &order("m-1", "o-1")));
        assert!(!keeps(&filter, &order("m-2", "o-1")));
        assert!(keeps(&filter, &order("m-3", "o-2")));
        state::double::advance(Duration::from_secs(60));
        assert!(keeps(&filter, &order("m-4", "o-1")));
        let outcomes: Vec<_> = metrics::captured().into_iter().map(|recorded| recorded.labels[0].1.clone()).collect();
        assert_eq!(outcomes, ["first", "repeated", "first", "first"]);
    }

    #[test]
    fn a_message_that_is_tried_again_is_not_its_own_repetition() {
        let filter = filter();
        assert!(keeps(&filter, &order("m-1", "o-1")));
        assert!(keeps(&filter, &order("m-1", "o-1")));
    }

    #[test]
    fn without_the_store_a_message_waits() {
        let filter = filter();
        state::double::fail(Some(state::Error::Unavailable("away".to_owned())));
        assert!(matches!(filter.filter(&order("m-1", "o-1")), Err(Failure::Retry(_))));
        state::double::fail(None);
        let nameless = MessageBuilder::new().json(&serde_json::json!({})).build();
        assert_eq!(
            filter.filter(&nameless).map_err(|failure| failure.reason().code.clone()),
            Err("no_identity".to_owned())
        );
    }

    #[test]
    fn mistakes_are_told_together() {
        let refused = Deduplicate::configure(Config { by: "id".to_owned(), seconds: 0 });
        assert_eq!(refused.map_err(|mistakes| mistakes.len()).err(), Some(2));
    }
}
