//! `queue publish`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::json;
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::step::Validate as _;
use sluicegate_store::queue::{LARGEST_MESSAGE_BYTES, MAX_BATCH_MESSAGES, Publication};

use super::PublishArgs;
use super::list::line;
use super::place::Place;
use crate::queues::AllQueues;
use crate::validation::SchemaStep;

/// So many bytes of lines are published together at most.
const MAX_BATCH_BYTES: usize = 4 << 20;

pub(super) async fn publish(
    args: &PublishArgs,
    place: &Place,
    queues: &AllQueues,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let settings = queues.settings(&args.queue).await?;
    let schema = schema(args, place, settings.schema.as_deref())?;
    let mut bodies: Box<dyn BufRead + '_> = match (&args.body, &args.file) {
        (Some(body), _) => Box::new(body.as_bytes()),
        (None, Some(file)) => {
            let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            Box::new(BufReader::new(opened))
        }
        (None, None) => Box::new(input),
    };
    let mut published = 0_usize;
    loop {
        let batch = read(args, &mut *bodies)?;
        if batch.is_empty() {
            break;
        }
        let mut publications = Vec::with_capacity(batch.len());
        for (number, body) in (published + 1..).zip(batch) {
            let publication = publication(args, body);
            if let Some(schema) = &schema
                && let Err(failure) = schema.validate(&publication.message)
            {
                bail!("message {number} was not published, nor any after it: {failure}; {published} were published");
            }
            publications.push(publication);
        }
        let done = queues
            .publish_all(&args.queue, publications, None)
            .await
            .with_context(|| format!("{published} messages were published, then it failed"))?;
        for one in &done.published {
            if args.json {
                let deliver_at = one.deliver_at_ms.map(print_time);
                line(&json!({ "id": one.id, "offset": one.place, "deliverAt": deliver_at }), out)?;
            } else {
                match (one.place, one.deliver_at_ms) {
                    (Some(place), _) => writeln!(out, "{} at offset {place}", one.id)?,
                    (None, at) => writeln!(out, "{} scheduled for {}", one.id, print_time(at.unwrap_or_default()))?,
                }
            }
        }
        published += done.published.len();
        if !args.lines {
            break;
        }
    }
    if published == 0 {
        bail!("there was nothing to publish");
    }
    Ok(())
}

/// What to check against: the queue's schema, which only the configuration knows.
fn schema(args: &PublishArgs, place: &Place, schema: Option<&str>) -> anyhow::Result<Option<SchemaStep>> {
    match (schema, &place.config) {
        (None, _) => Ok(None),
        (Some(_), _) if args.unchecked => Ok(None),
        (Some(name), None) => bail!(
            "the messages of the queue `{}` satisfy the schema `{name}`: name the configuration that has it with --config, \
             or publish --unchecked",
            args.queue
        ),
        (Some(name), Some(config)) => match SchemaStep::build(name, &config.schemas) {
            Ok(step) => Ok(Some(step)),
            Err(_) => {
                bail!("the queue's schema `{name}` is not in the configuration; define it, or publish --unchecked")
            }
        },
    }
}

/// The next bodies: all of the input, or as many lines as go together.
fn read(args: &PublishArgs, input: &mut dyn BufRead) -> anyhow::Result<Vec<Vec<u8>>> {
    if !args.lines {
        let mut body = Vec::new();
        input.take(LARGEST_MESSAGE_BYTES + 1).read_to_end(&mut body).context("cannot read the body")?;
        return Ok(vec![body]);
    }
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while lines.len() < MAX_BATCH_MESSAGES && bytes < MAX_BATCH_BYTES {
        let mut line = Vec::new();
        let read = (&mut *input).take(LARGEST_MESSAGE_BYTES + 1).read_until(b'\n', &mut line);
        if read.context("cannot read a line")? == 0 {
            break;
        }
        let end = line.trim_ascii_end().len();
        line.truncate(end);
        if !line.is_empty() {
            bytes += line.len();
            lines.push(line);
        }
    }
    Ok(lines)
}

fn publication(args: &PublishArgs, body: Vec<u8>) -> Publication {
    let mut message = Message::new(args.source.clone(), args.kind.clone(), body);
    if let Some(id) = &args.id {
        message.id.clone_from(id);
    }
    message.key = args.key.clone().map(Bytes::from);
    message.correlation_id.clone_from(&args.correlation_id);
    let is_json = || message.body.json().is_ok();
    message.content_type = match &args.content_type {
        Some(given) => Some(given.clone()),
        None => is_json().then(|| "application/json".to_owned()),
    };
    for (name, value) in &args.headers {
        message.headers.append(name.clone(), value.clone());
    }
    let delay = args.delay.map(|delay| now_ms().saturating_add(u64::try_from(delay.0.as_millis()).unwrap_or(u64::MAX)));
    message.deliver_at_ms = args.at.or(delay);
    Publication { message: Arc::new(message), priority: args.priority, ttl: args.ttl.map(|ttl| ttl.0) }
}
