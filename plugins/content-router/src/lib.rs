//! **content-router** – routes by ordered rules on the body, the headers and the message's fields:
//! `{ plugin: content-router, config: { rules: [{ when: { pointer: /tier, equals: gold }, to: [eu] }], otherwise: [us] } }`.
//!
//! A condition names one value (`pointer` into a JSON body, `header`, or `field`: id, source, kind, subject, key,
//! content_type) and one or several comparisons that must all hold: `equals`, `not_equals`, `one_of`, `exists`,
//! `starts_with`, `ends_with`, `contains`, `gt`, `gte`, `lt`, `lte`. Or it joins others by `all`, `any`, `not`. By
//! default the first rule that holds decides; with `match: all` every one that holds adds its targets, each once.
//! Where none holds, `otherwise` is answered, and without it the message is unroutable.
//!
//! A value that is not there equals nothing: `not_equals` and `exists: false` hold, every other comparison does not.
//! Numbers are compared by value (`1` equals `1.0`). Headers and fields are texts; against a number they are read as one.

mod comparison;
mod condition;

use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_plugin::{Destination, Failure, Message, Plugin, Reason, Router, schema_of};

use condition::Condition;

/// Routes by ordered rules on the body, the headers and the message's fields.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "content-router")]
pub struct Config {
    /// Rules, in order.
    #[schemars(length(min = 1, max = 1_000))]
    rules: Vec<RuleConfig>,
    /// Whether the first rule that holds decides, or all do.
    #[serde(default, rename = "match")]
    matching: Matching,
    /// Targets where no rule holds. Without it, the message is unroutable.
    #[serde(default)]
    otherwise: Vec<String>,
}

/// A condition and its targets.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Rule")]
pub struct RuleConfig {
    /// What must hold.
    when: condition::Config,
    /// Names of the pipeline's targets.
    #[schemars(length(min = 1))]
    to: Vec<String>,
}

/// How many rules decide.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// The first that holds.
    #[default]
    First,
    /// Every one that holds; each target once.
    All,
}

/// The configured router.
pub struct ContentRouter {
    rules: Vec<(Condition, Vec<String>)>,
    matching: Matching,
    otherwise: Vec<String>,
}

impl Plugin for ContentRouter {
    type Config = Config;

    fn config_schema() -> String {
        schema_of::<Config>()
    }

    fn configure(config: Config) -> Result<Self, Vec<Reason>> {
        let mut mistakes = condition::Mistakes::default();
        if config.rules.is_empty() {
            mistakes.add("/rules", "there must be at least one");
        }
        let mut rules = Vec::with_capacity(config.rules.len());
        for (at, rule) in config.rules.into_iter().enumerate() {
            if rule.to.is_empty() {
                mistakes.add(&format!("/rules/{at}/to"), "there must be at least one target");
            }
            if let Some(condition) = Condition::build(rule.when, &format!("/rules/{at}/when"), &mut mistakes) {
                rules.push((condition, rule.to));
            }
        }
        mistakes.none()?;
        Ok(Self { rules, matching: config.matching, otherwise: config.otherwise })
    }
}

impl Router for ContentRouter {
    fn route(&self, message: &Message) -> Result<Vec<Destination>, Failure> {
        let holding = self.rules.iter().filter(|(condition, _)| condition.holds(message));
        let deciding = match self.matching {
            Matching::First => 1,
            Matching::All => usize::MAX,
        };
        let mut targets: Vec<&String> = Vec::new();
        for target in holding.take(deciding).flat_map(|(_, to)| to) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets.is_empty() {
            targets.extend(&self.otherwise);
        }
        Ok(targets.into_iter().map(Destination::to).collect())
    }
}

sluicegate_plugin::export!(ContentRouter: Router);

#[cfg(test)]
mod tests;
