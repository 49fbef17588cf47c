//! Numbered messages in queues, streams, files and inboxes: what a test puts in and what it finds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation};
use redis::aio::MultiplexedConnection;
use serde_json::Value;
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::Gateway;
use sluicegate_tests::servers::{RabbitMq, Redis};

/// How long messages may take on a busy machine of two cores.
pub const ARRIVAL_LIMIT: Duration = Duration::from_secs(90);
/// How soon after the end of a fault messages flow again.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// The body of message `number`.
pub fn body(number: usize) -> String {
    format!(r#"{{"number":{number}}}"#)
}

fn number(body: &[u8]) -> Result<usize> {
    let value: Value = serde_json::from_slice(body).with_context(|| String::from_utf8_lossy(body).into_owned())?;
    Ok(usize::try_from(value["number"].as_u64().with_context(|| format!("no number in {value}"))?)?)
}

/// A channel with confirms and a durable queue of that name.
pub async fn open_queue(broker: &RabbitMq, queue: &str) -> Result<Channel> {
    let channel = broker.connect().await?.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    Ok(channel)
}

/// Publishes these numbers to a queue and waits for the broker's confirms. A queue that does not exist is an error.
pub async fn publish(channel: &Channel, queue: &str, numbers: Range<usize>) -> Result<()> {
    let mut confirms = Vec::with_capacity(numbers.len());
    for number in numbers {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(format!("m-{number}").into());
        let body = body(number);
        confirms.push(channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties).await?);
    }
    for confirm in confirms {
        ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "the broker did not take a message for {queue}");
    }
    Ok(())
}

/// Adds these numbers to a stream.
pub async fn add(client: &mut MultiplexedConnection, stream: &str, numbers: Range<usize>) -> Result<()> {
    let mut pipeline = redis::pipe();
    for number in numbers {
        pipeline.cmd("XADD").arg(stream).arg("*").arg("data").arg(body(number)).ignore();
    }
    Ok(pipeline.query_async(client).await?)
}

/// The numbers in a stream, in order.
pub async fn numbers_in_stream(server: &Redis, stream: &str) -> Result<Vec<usize>> {
    let mut client = server.connect().await?;
    let entries: Vec<(String, Vec<Vec<u8>>)> =
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut client).await?;
    let body = |fields: &[Vec<u8>]| {
        let data = fields.chunks_exact(2).find(|field| field[0] == b"data").context("an entry without data")?;
        number(&data[1])
    };
    entries.iter().map(|(_, fields)| body(fields)).collect()
}

/// The numbers in a file of bodies, one a line; none if it is not there yet. A line that is not complete does not count.
pub fn numbers_in_file(path: &Path) -> Result<Vec<usize>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| number(line.as_bytes())).collect()
}

/// Fails with what is missing, unless each of `expected` is in `found` at least once.
pub fn ensure_all(found: &[usize], expected: Range<usize>) -> Result<()> {
    let found: BTreeSet<usize> = found.iter().copied().collect();
    let missing: Vec<usize> = expected.clone().filter(|number| !found.contains(number)).collect();
    ensure!(missing.is_empty(), "{} of {} are missing, from {:?}", missing.len(), expected.len(), missing.first());
    Ok(())
}

/// Waits until each of `expected` is in the stream.
pub async fn await_stream(server: &Redis, stream: &str, expected: Range<usize>, deadline: Duration) {
    eventually(&format!("{expected:?} are in the stream"), deadline, async || {
        ensure_all(&numbers_in_stream(server, stream).await?, expected.clone())
    })
    .await;
}

/// How many messages wait in the inboxes of a gateway, by the word of its store: the database at this URL, or the
/// one in its folder.
pub async fn in_inbox(gateway: &Gateway, store: Option<&str>) -> Result<u64> {
    const COUNT: &str = "SELECT count(*) FROM inbox";
    let Some(url) = store else {
        let path = gateway.folder().join("data/sluicegate.sqlite");
        let counted = tokio::task::spawn_blocking(move || {
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            rusqlite::Connection::open_with_flags(path, flags)?.query_row(COUNT, [], |row| row.get::<_, i64>(0))
        });
        return Ok(u64::try_from(counted.await??)?);
    };
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    let count: i64 = client.query_one(COUNT, &[]).await?.get(0);
    drop(client);
    driving.await??;
    Ok(u64::try_from(count)?)
}
