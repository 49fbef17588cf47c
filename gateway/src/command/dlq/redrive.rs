//! `dlq redrive`.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sluicegate_plugin_host::{HostConfig, PluginHost};
use sluicegate_store::Store;
use sluicegate_store::redrive::{
    Created, DEFAULT_MAX_REDRIVES, DEFAULT_RATE_PER_SECOND, From as RedriveFrom, MAX_JOB_IDS, MAX_RATE_PER_SECOND,
    NewJob, Selection,
};

use super::filter::FilterArgs;
use super::text::{block, indented, inline};
use super::{follow, jobs};
use crate::command::location::{Place, StoreArgs};
use crate::forecast::{
    BodyChange, DEFAULT_FORECASTS, Expected, Forecast, Forecaster, Letters, MAX_FORECASTS, Recorded,
};
use crate::in_force::InForce;
use crate::store_options::MasterKeyArgs;

/// `dlq redrive`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RedriveArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Opens encrypted bodies.
    #[command(flatten)]
    pub master_key: MasterKeyArgs,
    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// This dead letter: its id, or as much of its beginning as no other has; may be given several times.
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<String>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Where messages go on: at the step or target that failed, or at the start, as they were received.
    #[arg(long, value_enum, default_value_t)]
    pub from: FromArg,
    /// Letters a second, such as 100/s.
    #[arg(long, value_name = "RATE", default_value_t = DEFAULT_RATE_PER_SECOND, value_parser = parse_rate)]
    pub rate: u32,
    /// Change JSON bodies on the way: a JSON merge patch (RFC 7396), such as {"currency":"EUR","note":null}.
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    pub patch: Option<Value>,
    /// Skip what has been redriven so often already.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_REDRIVES)]
    pub max_redrives: u32,
    /// Change nothing: show what would become of the messages in today's pipelines. Needs --config.
    #[arg(long)]
    pub dry_run: bool,
    /// Letters a dry run looks at.
    #[arg(long, value_name = "N", requires = "dry_run", default_value_t = DEFAULT_FORECASTS as u64, value_parser = clap::value_parser!(u64).range(1..=MAX_FORECASTS as u64))]
    pub limit: u64,
    /// Create the job and do not wait for its end.
    #[arg(long)]
    pub detach: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Who does it.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "cli", hide_env_values = true)]
    pub by: String,
}

/// Where messages go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FromArg {
    /// At the step or target that failed.
    #[default]
    Failed,
    /// Before the first step.
    Start,
}

fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse() {
        Ok(rate) if (1..=MAX_RATE_PER_SECOND).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err(format!("not a rate; write 1/s to {MAX_RATE_PER_SECOND}/s")),
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    sluicegate_engine::message::parse_json(text.as_bytes()).map_err(|error| error.to_string())
}

pub(super) async fn redrive(
    args: &RedriveArgs,
    place: &Place,
    store: &Store,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let selection = selection(args, store).await?;
    let from = match args.from {
        FromArg::Failed => RedriveFrom::FailedStep,
        FromArg::Start => RedriveFrom::Start,
    };
    if args.dry_run {
        return dry_run(args, selection, from, place, store, out).await;
    }
    let job = NewJob {
        selection,
        from,
        rate_per_second: args.rate,
        patch: args.patch.clone(),
        max_redrives: args.max_redrives,
        by: args.by.clone(),
    };
    let id = match store.create_redrive(job).await? {
        Created::Job { id, .. } => id,
        Created::NothingMatches => bail!("no dead letters match; there is nothing to redrive"),
        Created::NotFound(id) => bail!("dead letter {id} is gone; leave it out"),
        Created::BeingRedriven(id) => bail!("dead letter {id} is being redriven already; wait for its outcome"),
        Created::TooMany(count) => bail!("{count} ids are more than {MAX_JOB_IDS}; use a filter"),
    };
    let job =
        if args.detach { store.reader().redrive(&id).await? } else { follow::follow(&id, store.reader()).await? };
    if args.json {
        writeln!(out, "{}", jobs::as_json(&job))?;
    } else {
        writeln!(out, "{}", jobs::line(&job))?;
        writeln!(out, "`sluicegate dlq jobs {id}` shows what has become of each")?;
    }
    out.flush()?;
    Ok(())
}

async fn selection(args: &RedriveArgs, store: &Store) -> anyhow::Result<Selection> {
    if args.ids.is_empty() {
        return Ok(Selection::Filter(Box::new(args.filter.or_all(args.all)?)));
    }
    if args.filter != FilterArgs::default() {
        bail!("--id names the letters; leave the filters out");
    }
    let mut ids = Vec::with_capacity(args.ids.len());
    for beginning in &args.ids {
        let id = store.reader().show_readable(beginning).await?.kept.letter.id;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(Selection::Ids(ids))
}

async fn dry_run(
    args: &RedriveArgs,
    selection: Selection,
    from: RedriveFrom,
    place: &Place,
    store: &Store,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let config = place.config.clone().context("a dry run needs the pipelines: give --config FILE")?;
    let forecaster =
        Forecaster::new(Arc::new(InForce::of(Arc::clone(&config))), PluginHost::new(HostConfig::default())?);
    let mut letters = Letters::new(selection, usize::try_from(args.limit).unwrap_or(MAX_FORECASTS));
    let mut count = 0_u64;
    while let Some(page) = letters.next(store).await? {
        for letter in &page {
            let forecast = forecaster.forecast(letter, from, args.patch.as_ref(), args.max_redrives).await;
            count += 1;
            if args.json {
                writeln!(out, "{}", as_json(&forecast))?;
            } else {
                write_forecast(&forecast, out)?;
            }
        }
    }
    if !args.json {
        writeln!(out, "{count} dead letters tried; nothing was sent, and whether targets take them was not tried")?;
    }
    out.flush()?;
    Ok(())
}

fn write_forecast(forecast: &Forecast, out: &mut impl Write) -> std::io::Result<()> {
    let failure = |recorded: &Recorded| format!("{}: {}", recorded.class.name(), recorded.error);
    writeln!(out, "{}  {}", inline(&forecast.letter), inline(&forecast.pipeline))?;
    writeln!(out, "  - {}", inline(&failure(&forecast.recorded)))?;
    let expected = match &forecast.expected {
        Expected::Delivered(targets) => {
            format!("delivered to {}", targets.iter().map(|name| &**name).collect::<Vec<_>>().join(", "))
        }
        Expected::Dropped(reasons) => format!("dropped: {}", reasons.join("; ")),
        Expected::DeadLettered(again) => {
            let same = if forecast.expected.is_same_as(&forecast.recorded) { " (the same again)" } else { "" };
            format!("{}{same}", failure(again))
        }
        Expected::NotSent(why) => format!("not sent: {why}"),
    };
    writeln!(out, "  + {}", inline(&expected))?;
    for change in &forecast.changes {
        let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        let pointer = if change.pointer.is_empty() { "(the whole body)" } else { &change.pointer };
        let text = format!("{pointer}: {} -> {}", value(&change.old), value(&change.new));
        write!(out, "{}", indented(&block(&text).to_string(), "      "))?;
    }
    if forecast.more_changes {
        writeln!(out, "      … and more changes")?;
    }
    Ok(())
}

/// For programs.
fn as_json(forecast: &Forecast) -> Value {
    let changes: Vec<Value> = forecast.changes.iter().map(BodyChange::to_json).collect();
    json!({
        "dead_letter": forecast.letter,
        "pipeline": *forecast.pipeline,
        "recorded": forecast.recorded.to_json(),
        "expected": forecast.expected.to_json(),
        "same": forecast.expected.is_same_as(&forecast.recorded),
        "body_changes": changes,
        "more_body_changes": forecast.more_changes,
    })
}
