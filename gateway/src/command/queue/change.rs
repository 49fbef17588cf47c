//! `queue create`, `update`, `delete`, `purge`, `pause`, `resume`, `reset`, `cancel`.

use std::io::Write;

use anyhow::bail;
use serde_json::json;
use sluicegate_connectors::queue::Length;
use sluicegate_store::queue::Settings;

use super::list::line;
use super::place::Place;
use super::{CancelArgs, Confirm, CreateArgs, GroupArgs, MADE_AT, RemoveArgs, ResetArgs, SettingsArgs, UpdateArgs};
use crate::api::ShownQueue;
use crate::queues::{AllQueues, KeptQueue, WhichKept, defaults};

impl SettingsArgs {
    fn apply_to(&self, mut settings: Settings) -> anyhow::Result<Settings> {
        let retention = &mut settings.retention;
        retention.max_age = self.max_age.map_or(retention.max_age, |span| span.0);
        retention.max_bytes = self.max_bytes.map(|size| size.0).or(retention.max_bytes);
        retention.max_messages = self.max_messages.map_or(retention.max_messages, Length::messages);
        retention.at_limit = self.at_limit.unwrap_or(retention.at_limit);
        settings.max_message_bytes = self.max_message.map_or(settings.max_message_bytes, |size| size.0);
        settings.compression = self.compression.unwrap_or(settings.compression);
        settings.ttl = self.ttl.map(|span| span.0).or(settings.ttl);
        settings.delay = self.delay.map(|span| span.0).or(settings.delay);
        settings.schema = self.schema.clone().or(settings.schema);
        let problems = settings.problems();
        if problems.is_empty() {
            return Ok(settings);
        }
        let option = |property: &str| property.rsplit('.').next().unwrap_or(property).replace('_', "-");
        let listed: Vec<String> = problems.iter().map(|(what, text)| format!("--{}: {text}", option(what))).collect();
        bail!("the queue cannot be like that: {}", listed.join("; "))
    }
}

/// What the configuration says of the queue is set again whenever the gateway starts.
fn refuse_declared(queue: &str, place: &Place) -> anyhow::Result<()> {
    match &place.config {
        Some(config) if config.queues.contains_key(queue) => {
            bail!("the queue `{queue}` is declared in the configuration, under `queues`; change it there")
        }
        Some(_) | None => Ok(()),
    }
}

fn refuse_unknown_schema(schema: Option<&String>, place: &Place) -> anyhow::Result<()> {
    match (schema, &place.config) {
        (Some(schema), Some(config)) if !config.schemas.iter().any(|known| *known.name == **schema) => {
            bail!("there is no schema `{schema}` in the configuration; define it under `schemas`")
        }
        (_, _) => Ok(()),
    }
}

pub(super) async fn create(
    args: &CreateArgs,
    place: &Place,
    queues: &AllQueues,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    refuse_declared(&args.queue, place)?;
    refuse_unknown_schema(args.settings.schema.as_ref(), place)?;
    let default = match &place.config {
        Some(config) => defaults(&config.queue_defaults),
        None => Settings::default(),
    };
    let settings = args.settings.apply_to(Settings { kind: args.kind, ..default })?;
    let queue = queues.create(&args.queue, &settings).await?;
    told(&queue, "is there", args.json, out)
}

pub(super) async fn update(
    args: &UpdateArgs,
    place: &Place,
    queues: &AllQueues,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    refuse_declared(&args.queue, place)?;
    refuse_unknown_schema(args.settings.schema.as_ref(), place)?;
    let before = queues.get(&args.queue).await?;
    let settings = args.settings.apply_to(before.settings)?;
    let queue = queues.update(&args.queue, before.revision.unwrap_or_default(), &settings).await?;
    told(&queue, "is updated", args.json, out)
}

fn told(queue: &KeptQueue, what: &str, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        return line(&json!(ShownQueue::from(queue)), out);
    }
    Ok(writeln!(out, "queue {} {what}, at revision {}", queue.name, queue.revision.unwrap_or_default())?)
}

pub(super) async fn delete(
    args: &RemoveArgs,
    place: &Place,
    queues: &AllQueues,
    confirm: Confirm<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    refuse_declared(&args.queue, place)?;
    let queue = queues.get(&args.queue).await?;
    let KeptQueue { name, messages, scheduled, groups, .. } = &queue;
    let question = format!("Delete the queue {name}, {} messages and {groups} groups", messages + scheduled);
    if !args.yes && !confirm(&question)? {
        return Ok(writeln!(out, "nothing was deleted")?);
    }
    queues.delete(&args.queue).await?;
    Ok(writeln!(out, "queue {name} is deleted")?)
}

pub(super) async fn purge(
    args: &RemoveArgs,
    queues: &AllQueues,
    confirm: Confirm<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let queue = queues.get(&args.queue).await?;
    let question = format!("Remove all {} messages of the queue {}", queue.messages + queue.scheduled, queue.name);
    if !args.yes && !confirm(&question)? {
        return Ok(writeln!(out, "nothing was removed")?);
    }
    let purged = queues.purge(&args.queue).await?;
    Ok(writeln!(out, "{purged} messages of the queue {} are removed", queue.name)?)
}

pub(super) async fn pause(args: &GroupArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    queues.pause(&args.queue, &args.group).await?;
    Ok(writeln!(out, "group {} of the queue {} is paused", args.group, args.queue)?)
}

pub(super) async fn resume(args: &GroupArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    queues.resume(&args.queue, &args.group).await?;
    Ok(writeln!(out, "group {} of the queue {} goes on", args.group, args.queue)?)
}

pub(super) async fn reset(
    args: &ResetArgs,
    queues: &AllQueues,
    confirm: Confirm<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if args.create {
        queues.create_group(&args.queue, &args.group, MADE_AT).await?;
    }
    let before = queues.group(&args.queue, &args.group).await?;
    let question = format!(
        "Move the group {} of the queue {}; {} pending messages count as settled",
        before.name, before.queue, before.pending
    );
    if !args.yes && !confirm(&question)? {
        return Ok(writeln!(out, "nothing was moved")?);
    }
    queues.reset(&args.queue, &args.group, args.to).await?;
    let after = queues.group(&args.queue, &args.group).await?;
    let before_it = match after.lag {
        Some(lag) => format!("{lag} messages"),
        None => "messages that Redis cannot count".to_owned(),
    };
    Ok(writeln!(out, "group {} of the queue {} has {before_it} before it", after.name, after.queue)?)
}

pub(super) async fn cancel(args: &CancelArgs, queues: &AllQueues, out: &mut impl Write) -> anyhow::Result<()> {
    if args.force {
        queues.delete_message(&args.queue, WhichKept::Id(&args.id)).await?;
        return Ok(writeln!(out, "message {} of the queue {} is removed", args.id, args.queue)?);
    }
    queues.cancel(&args.queue, &args.id).await?;
    Ok(writeln!(out, "message {} of the queue {} is cancelled", args.id, args.queue)?)
}
