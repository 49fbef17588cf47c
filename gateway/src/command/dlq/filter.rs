//! Which dead letters a command is about.

use jiff::Timestamp;
use sluicegate_engine::failure::FailureClass;
use sluicegate_store::dead_letter::Filter;

use super::{parse_class, parse_time};

/// Those that match everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct FilterArgs {
    /// Only of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only of this class, such as schema, trap or target_failed.
    #[arg(long, value_name = "CLASS", value_parser = parse_class)]
    pub class: Option<FailureClass>,
    /// Only what failed at this step.
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// Only what failed at this target.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only what failed in the plugin of this digest, sha256:….
    #[arg(long, value_name = "DIGEST")]
    pub plugin_digest: Option<String>,
    /// Only of the message with this id.
    #[arg(long, value_name = "ID")]
    pub message: Option<String>,
    /// Only of this cause, as `dlq groups` shows it.
    #[arg(long, value_name = "CAUSE")]
    pub cause: Option<String>,
    /// Only what failed at this time or later: 2026-11-20T16:00:00Z, or how long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
    /// Only what failed before this time; written as for --since.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<Timestamp>,
    /// Only with this text in the error, the message's id or type, the step's or the plugin's name.
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> Filter {
        // Nothing fails before 1970.
        let milliseconds = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or(0);
        Filter {
            pipeline: self.pipeline.clone(),
            class: self.class,
            step: self.step.clone(),
            target: self.target.clone(),
            plugin_digest: self.plugin_digest.clone(),
            message_id: self.message.clone(),
            cause: self.cause.clone(),
            since_ms: self.since.map(milliseconds),
            until_ms: self.until.map(milliseconds),
            text: self.text.clone(),
        }
    }

    /// All or none of them are deleted or redriven only when that is asked for.
    pub(super) fn or_all(&self, all: bool) -> anyhow::Result<Filter> {
        let filter = self.filter();
        match (filter == Filter::default(), all) {
            (true, true) | (false, false) => Ok(filter),
            (true, false) => {
                anyhow::bail!("say which dead letters: by a filter such as --pipeline or --cause, or --all")
            }
            (false, true) => anyhow::bail!("--all means all of them; leave it or the filters out"),
        }
    }
}
