//! `dlq groups`.

use std::io::Write;

use serde_json::json;
use sluicegate_store::Reader;
use sluicegate_store::dead_letter::{Group, MAX_PAGE_GROUPS};

use super::filter::FilterArgs;
use super::text::{cut, inline, time};
use crate::command::location::StoreArgs;

/// Longest error in a row, in characters.
const MAX_ERROR_CHARS: usize = 100;

/// `dlq groups`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct GroupsArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// At most this many, the most frequent.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=MAX_PAGE_GROUPS as u64))]
    pub limit: u64,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn groups(args: &GroupsArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let limit = usize::try_from(args.limit).unwrap_or(MAX_PAGE_GROUPS);
    let page = reader.groups(&args.filter.filter(), limit, None).await?;
    for group in &page.groups {
        if args.json {
            writeln!(out, "{}", as_json(group))?;
        } else {
            write_group(group, out)?;
        }
    }
    if !args.json {
        match (page.groups.len(), page.next) {
            (0, _) => writeln!(out, "no dead letters match")?,
            (count, None) => {
                writeln!(out, "{count} causes; `sluicegate dlq list --cause CAUSE` lists the letters of one")?
            }
            (count, Some(_)) => writeln!(out, "the {count} most frequent causes; --limit shows more")?,
        }
    }
    out.flush()?;
    Ok(())
}

fn write_group(group: &Group, out: &mut impl Write) -> std::io::Result<()> {
    let place = match (&group.step, &group.target) {
        (Some(step), _) => format!(" at {}", inline(step)),
        (None, Some(target)) => format!(" -> {}", inline(target)),
        (None, None) => String::new(),
    };
    writeln!(
        out,
        "{:>8}  {}  {}{place}  {}  {} to {}",
        group.count,
        inline(&group.cause),
        inline(&group.pipeline),
        group.class.name(),
        time(group.first_at_ms, 0),
        time(group.last_at_ms, 0)
    )?;
    writeln!(out, "          {}", cut(&inline(&group.error).to_string(), MAX_ERROR_CHARS))?;
    writeln!(out, "          for example {}", inline(&group.sample))
}

fn as_json(group: &Group) -> serde_json::Value {
    json!({
        "cause": group.cause,
        "count": group.count,
        "first_at": time(group.first_at_ms, 3),
        "last_at": time(group.last_at_ms, 3),
        "pipeline": group.pipeline,
        "step": group.step,
        "target": group.target,
        "class": group.class.name(),
        "plugin": group.plugin,
        "plugin_digest": group.plugin_digest,
        "error": group.error,
        "sample": group.sample,
    })
}
