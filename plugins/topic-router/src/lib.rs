//! **topic-router** – routes by AMQP topic patterns, as a topic exchange does, on the message's kind:
//! `{ plugin: topic-router, config: { patterns: [{ pattern: 'order.*.eu', to: [eu] }, { pattern: 'order.#', to: [audit] }] } }`.
//!
//! A pattern is words separated by dots; `*` is any one word, `#` any number of words, also none. By default every
//! pattern that matches adds its targets, each target once; `match: first` stops at the first pattern. The words come
//! from the kind (default), from `field: subject`, or from a `header`; a message without it matches nothing. Where
//! nothing matches, `otherwise` is answered, and without it the message is unroutable.

mod pattern;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Destination, Failure, Message, Plugin, Reason, Router, schema_of};

use pattern::Pattern;

/// Routes by AMQP topic patterns.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "topic-router")]
pub struct Config {
    /// Patterns and their targets, in order.
    #[schemars(length(min = 1, max = 1_000))]
    patterns: Vec<Binding>,
    /// Whether the first matching pattern decides, or all do.
    #[serde(default, rename = "match")]
    matching: Matching,
    /// What is matched.
    #[serde(default)]
    field: Option<Field>,
    /// Matches the first value of this header instead of a field.
    #[serde(default)]
    #[schemars(length(min = 1))]
    header: Option<String>,
    /// Targets of what matches no pattern. Without it, that is unroutable.
    #[serde(default)]
    otherwise: Vec<String>,
}

/// A pattern and its targets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Words separated by dots; `*` is any one word, `#` any number of words, also none. At most 255 bytes.
    #[schemars(length(max = 255))]
    pattern: String,
    /// Names of the pipeline's targets.
    #[schemars(length(min = 1))]
    to: Vec<String>,
}

/// How many patterns decide.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// The first that matches.
    First,
    /// Every one that matches, as in a topic exchange; each target once.
    #[default]
    All,
}

/// A field of the message that holds words.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// What happened: the CloudEvents `type`. The default.
    Kind,
    /// What it happened to.
    Subject,
}

/// The configured router.
pub struct TopicRouter {
    bindings: Vec<(Pattern, Vec<String>)>,
    matching: Matching,
    words: Words,
    otherwise: Vec<String>,
}

enum Words {
    Kind,
    Subject,
    Header(String),
}

impl Plugin for TopicRouter {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = Vec::new();
        let mut mistake =
            |place: String, text: String| mistakes.push(Reason::new("invalid_config", format!("{place}: {text}")));

        let words = match (config.field, config.header) {
            (None | Some(Field::Kind), None) => Words::Kind,
            (Some(Field::Subject), None) => Words::Subject,
            (None, Some(header)) => Words::Header(header),
            (Some(_), Some(header)) => {
                mistake("/header".to_owned(), "give either `field` or `header`, not both".to_owned());
                Words::Header(header)
            }
        };
        if config.patterns.is_empty() {
            mistake("/patterns".to_owned(), "there must be at least one".to_owned());
        }
        let mut bindings = Vec::with_capacity(config.patterns.len());
        for (at, binding) in config.patterns.into_iter().enumerate() {
            if binding.to.is_empty() {
                mistake(format!("/patterns/{at}/to"), "there must be at least one target".to_owned());
            }
            match Pattern::parse(&binding.pattern) {
                Ok(pattern) => bindings.push((pattern, binding.to)),
                Err(text) => mistake(format!("/patterns/{at}/pattern"), text),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self { bindings, matching: config.matching, words, otherwise: config.otherwise })
    }
}

impl Router for TopicRouter {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        let topic = match &self.words {
            Words::Kind => Some(message.kind()),
            Words::Subject => message.subject(),
            Words::Header(name) => message.header(name),
        };
        let mut targets: Vec<&String> = Vec::new();
        if let Some(topic) = topic {
            let words = pattern::words(&topic);
            let matching = self.bindings.iter().filter(|(pattern, _)| pattern.matches(&words));
            let deciding = match self.matching {
                Matching::First => 1,
                Matching::All => usize::MAX,
            };
            for target in matching.take(deciding).flat_map(|(_, to)| to) {
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        if targets.is_empty() {
            targets.extend(&self.otherwise);
        }
        Ok(targets.into_iter().map(Destination::to).collect())
    }
}

sluicegate_plugin::export!(TopicRouter: Router);

#[cfg(test)]
mod tests;
