//! Settings of the `file` connector.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::json_lines::{self, Format};
use crate::quantity::{Size, Span};
use crate::registry::{Problem, Promise};

const POLL: std::ops::RangeInclusive<Span> = Span::millis(10)..=Span::secs(3_600);

/// A file of JSON Lines, read once from its beginning; where to go on is kept in a checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The file. A relative path starts at the configuration file's folder.
    pub path: PathBuf,
    /// Where to keep how far it has been read; a file in `data_dir` if left out, one for each pipeline and path.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
    /// Whether to wait for more at the end of the file, and for the file itself. Otherwise the pipeline ends there.
    #[serde(default)]
    pub follow: bool,
    /// How often to look for more when following, 10ms to 1h.
    #[serde(default = "default_poll")]
    pub poll: Span,
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

/// A file of JSON Lines to append to. Created with its folders if it does not exist.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The file. A relative path starts at the configuration file's folder.
    pub path: PathBuf,
    /// What a line holds.
    #[serde(default)]
    pub format: Format,
}

fn default_poll() -> Span {
    Span::millis(250)
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
        let mut problems = json_lines::problems(&self.kind, self.max_line);
        path_problems("path", &self.path, &mut problems);
        if let Some(checkpoint) = &self.checkpoint {
            path_problems("checkpoint", checkpoint, &mut problems);
            if *checkpoint == self.path {
                let text = "`checkpoint` is the file that is read; it would be overwritten".to_owned();
                let hint = Some("Name another file, or leave it out.".to_owned());
                problems.push(Problem { pointer: "/checkpoint".to_owned(), text, hint });
            }
        }
        if !POLL.contains(&self.poll) {
            let text = format!("`poll` is {:?}", self.poll.0);
            let hint = Some("Choose 10ms to 1h.".to_owned());
            problems.push(Problem { pointer: "/poll".to_owned(), text, hint });
        }
        problems
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: true,
            because: "the checkpoint passes a line only when it and all before it are settled, and is fsynced"
                .to_owned(),
            warnings: Vec::new(),
        }
    }
}

impl TargetConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        path_problems("path", &self.path, &mut problems);
        problems
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: true,
            because: "every batch is fsynced before it is confirmed".to_owned(),
            warnings: Vec::new(),
        }
    }
}

fn path_problems(field: &str, path: &Path, problems: &mut Vec<Problem>) {
    if path.file_name().is_none() {
        problems.push(Problem {
            pointer: format!("/{field}"),
            text: format!("`{field}` is `{}`, which names no file", path.display()),
            hint: Some("Name a file, for example out/orders.jsonl.".to_owned()),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mistake_is_told_at_once() {
        let config: SourceConfig = serde_json::from_value(json!({
            "path": "in/..", "checkpoint": "in/..", "poll": "1ms", "kind": "", "max_line": "1B",
        }))
        .expect("settings");
        let pointers: Vec<String> = config.problems().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/kind", "/max_line", "/path", "/checkpoint", "/checkpoint", "/poll"]);
        let target: TargetConfig = serde_json::from_value(json!({ "path": "" })).expect("settings");
        assert_eq!(target.problems().len(), 1);
    }

    #[test]
    fn only_the_path_is_needed() {
        let config: SourceConfig = serde_json::from_value(json!({ "path": "in.jsonl" })).expect("settings");
        assert_eq!(config.problems(), []);
        assert!(!config.follow && config.promise().at_least_once);
        assert!(serde_json::from_value::<TargetConfig>(json!({ "path": "x", "fsync": false })).is_err());
    }
}
