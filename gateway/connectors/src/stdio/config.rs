//! Settings of the `stdio` connector.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::json_lines::{self, Format};
use crate::quantity::Size;
use crate::registry::{Problem, Promise};

/// Standard input, a message a line.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What a line holds.
    #[serde(default)]
    pub format: Format,
    /// The kind (CloudEvents `type`) of lines that are not events.
    #[serde(default = "default_kind")]
    pub kind: String,
    /// The longest line, 64B to 64MiB; by default 2MiB, which an event with a body of 1 MiB in base64 needs. Of longer ones
    /// only the beginning is kept.
    #[serde(default = "default_max_line")]
    pub max_line: Size,
}

/// Standard output, a message a line.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// What a line holds.
    #[serde(default)]
    pub format: Format,
}

fn default_kind() -> String {
    "line".to_owned()
}

fn default_max_line() -> Size {
    Size(2 << 20)
}

impl SourceConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        json_lines::problems(&self.kind, self.max_line)
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: false,
            because: "a line that was read from standard input cannot be read again after a crash".to_owned(),
            warnings: Vec::new(),
        }
    }
}

impl TargetConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: false,
            because:
                "a line is confirmed when standard output has taken it, whoever reads it and whatever becomes of it"
                    .to_owned(),
            warnings: Vec::new(),
        }
    }
}
