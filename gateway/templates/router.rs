//! A Sluicegate router: sends each message to the target named by a value in its body.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Destination, Failure, Message, Plugin, Reason, Router, schema_of};

/// What the pipeline configures under `config:`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// JSON pointer (RFC 6901) to the text in the body that names the target.
    pointer: String,
    /// The target of messages that name none.
    otherwise: String,
}

/// The router, made once from its configuration.
pub struct {type}(Config);

impl Plugin for {type} {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        if config.otherwise.is_empty() {
            return Err(vec![Reason::new("invalid_config", "/otherwise: must name a target")]);
        }
        Ok(Self(config))
    }
}

impl Router for {type} {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        let named = message.value::<String>(&self.0.pointer)?;
        Ok(vec![Destination::to(named.unwrap_or_else(|| self.0.otherwise.clone()))])
    }
}

sluicegate_plugin::export!({type}: Router);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicegate_plugin::MessageBuilder;

    fn router() -> {type} {
        let config = Config { pointer: "/region".to_owned(), otherwise: "rest".to_owned() };
        {type}::configure(config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    #[test]
    fn a_message_goes_where_it_says() {
        let message = MessageBuilder::new().json(&json!({ "region": "eu" })).build();
        assert_eq!(router().route(&message), Ok(vec![Destination::to("eu")]));
    }

    #[test]
    fn a_message_that_says_nothing_goes_to_the_rest() {
        let message = MessageBuilder::new().json(&json!({ "id": 1 })).build();
        assert_eq!(router().route(&message), Ok(vec![Destination::to("rest")]));
    }
}
