//! A Sluicegate transform: sets a value in the body of every message.

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform, schema_of};

/// What the pipeline configures under `config:`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// JSON pointer (RFC 6901) to the place in the body.
    pointer: String,
    /// The text that is put there.
    text: String,
}

/// The transform, made once from its configuration.
pub struct {type} {
    pointer: String,
    /// As JSON text.
    value: String,
}

impl Plugin for {type} {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        if !config.pointer.starts_with('/') {
            return Err(vec![Reason::new("invalid_config", "/pointer: must begin with /")]);
        }
        let quoted = config.text.replace('\\', "\\\\").replace('"', "\\\"");
        Ok(Self { pointer: config.pointer, value: format!("\"{quoted}\"") })
    }
}

impl Transform for {type} {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let draft = Draft::new(message);
        draft.set_json(&self.pointer, &self.value).map_err(|why| Failure::reject("not_set", why))?;
        Ok(vec![draft])
    }
}

sluicegate_plugin::export!({type}: Transform);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sluicegate_plugin::MessageBuilder;

    fn transform() -> {type} {
        let config = Config { pointer: "/by".to_owned(), text: "sluicegate".to_owned() };
        {type}::configure(config).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    #[test]
    fn the_value_is_set_and_the_rest_stays() {
        let message = MessageBuilder::new().json(&json!({ "id": 1 })).build();
        let drafts = transform().transform(&message).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(drafts.len(), 1);
        assert_eq!(drafts[0].body_json(), json!({ "id": 1, "by": "sluicegate" }));
    }

    #[test]
    fn a_body_that_is_no_json_is_rejected() {
        let message = MessageBuilder::new().body("plain text").build();
        assert_eq!(transform().transform(&message).unwrap_err().reason().code, "not_set");
    }
}
