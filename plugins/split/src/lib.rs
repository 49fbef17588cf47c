//! **split** – makes a message of each element of an array:
//! `{ plugin: split, config: { pointer: /items, into: item, index_header: item-index } }`.
//!
//! By default the element is the whole new body. With `into`, the new body is the old one without the array and with the
//! element as a member of that name, so that each part keeps the fields of its parent. Headers and the rest are shared;
//! `index_header` gets the element's index, from 0, and `count_header` their number. An empty array drops the message.
//!
//! Where the pointer finds no array, the message is rejected, or kept whole or dropped (`if_missing`). More than
//! `max_parts` elements (default 1000) reject it too.

mod parts;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Draft, Failure, Message, Plugin, Reason, Transform, pointer, schema_of};

/// Makes a message of each element of an array.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "split")]
pub struct Config {
    /// RFC 6901 pointer to the array; `""` is the whole body.
    #[schemars(regex(pattern = "^(/([^~]|~[01])*)?$"))]
    pointer: String,
    /// Keeps the rest of the body, with the element as a member of this name in the array's place.
    #[serde(default)]
    #[schemars(length(min = 1))]
    into: Option<String>,
    /// Header that gets the element's index, from 0.
    #[serde(default)]
    #[schemars(length(min = 1))]
    index_header: Option<String>,
    /// Header that gets the number of elements.
    #[serde(default)]
    #[schemars(length(min = 1))]
    count_header: Option<String>,
    /// What becomes of a message in which the pointer finds no array.
    #[serde(default)]
    if_missing: IfMissing,
    /// A message with more elements is rejected; the gateway itself takes at most 1000 messages from one.
    #[serde(default = "default_max_parts")]
    #[schemars(range(min = 1, max = 1_000))]
    max_parts: usize,
}

fn default_max_parts() -> usize {
    1_000
}

/// What becomes of a message without the array.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
pub enum IfMissing {
    /// It is a dead letter.
    #[default]
    Reject,
    /// It goes on whole.
    Keep,
    /// It is dropped.
    Drop,
}

/// The configured plugin.
pub struct Split(Config);

impl Plugin for Split {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = Vec::new();
        let mut mistake = |text: String| mistakes.push(Reason::new("invalid_config", text));
        if let Err(text) = pointer::parse(&config.pointer) {
            mistake(format!("/pointer: {text}"));
        }
        if config.into.is_some() && config.pointer.is_empty() {
            mistake("/into: the whole body is the array, so there is no rest to keep".to_owned());
        }
        if !(1..=1_000).contains(&config.max_parts) {
            mistake("/max_parts: must be from 1 to 1000".to_owned());
        }
        let headers = (&config.index_header, &config.count_header);
        if let (Some(index), Some(count)) = headers {
            if index.eq_ignore_ascii_case(count) {
                mistake("/count_header: is the same as `index_header`".to_owned());
            }
        }
        if mistakes.is_empty() { Ok(Self(config)) } else { Err(mistakes) }
    }
}

impl Transform for Split {
    fn transform(&self, message: &Message) -> Result<Vec<Draft>, Failure> {
        let config = &self.0;
        let Some(bodies) = parts::bodies(message, &config.pointer, config.into.as_deref(), config.max_parts)? else {
            return match config.if_missing {
                IfMissing::Reject => {
                    Err(Failure::reject("no_array", format!("there is no array at `{}` of the body", config.pointer)))
                }
                IfMissing::Keep => Ok(vec![message.draft()]),
                IfMissing::Drop => Ok(Vec::new()),
            };
        };
        let count = bodies.len();
        let draft = |(index, body): (usize, String)| {
            let draft = message.draft();
            draft.set_body(body.as_bytes());
            if let Some(name) = &config.index_header {
                draft.set_header(name, index.to_string().as_bytes());
            }
            if let Some(name) = &config.count_header {
                draft.set_header(name, count.to_string().as_bytes());
            }
            draft
        };
        Ok(bodies.into_iter().enumerate().map(draft).collect())
    }
}

sluicegate_plugin::export!(Split: Transform);

#[cfg(test)]
mod tests;
