//! Settings of the `generate` connector.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::template::Template;
use crate::quantity::Size;
use crate::registry::{Problem, Promise};

/// The least and most bytes of a body of a given size.
const SIZE_BYTES: std::ops::RangeInclusive<u64> = 32..=(64 << 20);
const MAX_RATE: f64 = 10_000_000.0;

/// Made-up messages, for trials. In `body`, `key` and `headers`, `{{n}}` is the message's number from 1, `{{n % 10}}`
/// its remainder, `{{uuid}}` a new UUID and `{{now}}` the time in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Messages a second; as many as the pipeline takes if 0 or left out.
    #[serde(default)]
    pub rate: f64,
    /// How many in all; without end if left out.
    #[serde(default)]
    pub count: Option<u64>,
    /// The body, any JSON. A string that is a number's placeholder alone becomes a number. Without `body` and `size` the
    /// body is `{"n":1}` and so on.
    #[serde(default)]
    pub body: Option<Value>,
    /// Instead of `body`: a JSON object of exactly so many bytes, 32B to 64MiB.
    #[serde(default)]
    pub size: Option<Size>,
    /// The kind (CloudEvents `type`).
    #[serde(default = "default_kind")]
    pub kind: String,
    /// The ordering and partition key.
    #[serde(default)]
    pub key: Option<String>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn default_kind() -> String {
    "generated".to_owned()
}

impl SourceConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |pointer: String, text: String, hint: &str| {
            problems.push(Problem { pointer, text, hint: Some(hint.to_owned()) });
        };
        if !(0.0..=MAX_RATE).contains(&self.rate) {
            add("/rate".to_owned(), format!("`rate` is {}", self.rate), "Choose 0 (as fast as possible) to 10000000.");
        }
        if self.body.is_some() && self.size.is_some() {
            add("/size".to_owned(), "`body` and `size` exclude each other".to_owned(), "Leave one out.");
        }
        if let Some(size) = self.size
            && !SIZE_BYTES.contains(&size.0)
        {
            add("/size".to_owned(), format!("`size` is {} bytes", size.0), "Choose 32B to 64MiB.");
        }
        if self.kind.is_empty() {
            add("/kind".to_owned(), "`kind` is empty".to_owned(), "Leave it out, or name the messages.");
        }
        const HINT: &str = "Known are {{n}}, {{n % 10}}, {{uuid}} and {{now}}.";
        if let Some(Err(text)) = self.body.as_ref().map(Template::json) {
            add("/body".to_owned(), text, HINT);
        }
        if let Some(Err(text)) = self.key.as_deref().map(Template::text) {
            add("/key".to_owned(), text, HINT);
        }
        for (name, value) in &self.headers {
            if let Err(text) = Template::text(value) {
                add(format!("/headers/{}", name.replace('~', "~0").replace('/', "~1")), text, HINT);
            }
        }
        problems
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: false,
            because: "made-up messages begin anew when the gateway starts".to_owned(),
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mistake_is_told_at_once() {
        let config: SourceConfig = serde_json::from_value(json!({
            "rate": -1.0, "body": { "a": ["{{m}}"] }, "size": "1B", "kind": "", "key": "{{n % 0}}",
            "headers": { "a/b": "{{" },
        }))
        .expect("settings");
        let pointers: Vec<String> = config.problems().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/rate", "/size", "/size", "/kind", "/body", "/key", "/headers/a~1b"]);
    }

    #[test]
    fn nothing_is_needed() {
        let config: SourceConfig = serde_json::from_value(json!({})).expect("settings");
        assert_eq!(config.problems(), []);
        assert!(!config.promise().at_least_once);
    }
}
