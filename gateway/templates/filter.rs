//! A Sluicegate filter: keeps messages whose value at `pointer` is at least `minimum`.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Failure, Filter, Message, Plugin, Reason, Verdict, schema_of};

/// What the pipeline configures under `config:`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// JSON pointer (RFC 6901) to a number in the body.
    pointer: String,
    /// The least value that is kept.
    minimum: f64,
}

/// The filter, made once from its configuration.
pub struct {type}(Config);

impl Plugin for {type} {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        Ok(Self(config))
    }
}

impl Filter for {type} {
    fn filter(&self, message: &Message) -> Result<Verdict, Failure> {
        let Some(value) = message.value::<f64>(&self.0.pointer)? else {
            return Err(Failure::reject("missing", format!("there is no value at {}", self.0.pointer)));
        };
        if value >= self.0.minimum { Ok(Verdict::Keep) } else { Ok(Verdict::Drop(Reason::new("too_small", format!("{value}")))) }
    }
}

sluicegate_plugin::export!({type}: Filter);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicegate_plugin::MessageBuilder;

    fn filter() -> {type} {
        {type}::configure(Config { pointer: "/amount".to_owned(), minimum: 10.0 }).expect("a good configuration")
    }

    #[test]
    fn large_amounts_are_kept_and_small_ones_dropped() {
        let large = MessageBuilder::new().json(&json!({ "amount": 10 })).build();
        assert_eq!(filter().filter(&large), Ok(Verdict::Keep));
        let small = MessageBuilder::new().json(&json!({ "amount": 9.5 })).build();
        assert!(matches!(filter().filter(&small), Ok(Verdict::Drop(_))));
    }

    #[test]
    fn a_message_without_the_value_is_rejected() {
        let message = MessageBuilder::new().json(&json!({})).build();
        assert_eq!(filter().filter(&message).unwrap_err().reason().code, "missing");
    }
}
