//! Redis Streams: the load and the bare loop on redis-rs. Consumer groups, pipelined XADD, one XACK a batch.

use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value, cmd, pipe};

use super::broker::{Broker, Names, Receiving, Sending};
use super::load;

/// Entries of one pipeline while the source is filled.
const FILL_BATCH: u64 = 500;
/// Most entries of one read at the receiving end.
const RECEIVE_BATCH: usize = 1_000;
/// How long one read waits.
const READ_WAIT_MS: usize = 1_000;
/// How long an answer may take; above the wait of a read.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The group and consumer of the bare loop and of the receiving end.
const GROUP: &str = "bench";

pub(super) struct Redis {
    url: String,
    names: Names,
    connection: MultiplexedConnection,
}

impl Redis {
    pub async fn connect(url: &str, names: Names) -> anyhow::Result<Self> {
        Ok(Self { url: url.to_owned(), names, connection: connect(url).await? })
    }
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_LIMIT));
    let client = Client::open(url).context("--redis-url is not an address of Redis")?;
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.context("cannot connect to Redis; check --redis-url and that the server runs")
}

/// An entry as the gateway's own target writes it, so that both sides write the same.
fn add(pipeline: &mut Pipeline, stream: &str, number: u64, body: &[u8]) {
    let entry = pipeline.cmd("XADD").arg(stream).arg("*").arg("specversion").arg("1.0");
    entry.arg("id").arg(format!("o-{number:010}")).arg("source").arg("/bench").arg("type").arg(load::KIND);
    entry.arg("datacontenttype").arg(load::CONTENT_TYPE).arg("data").arg(body);
}

#[async_trait]
impl Broker for Redis {
    fn names(&self) -> &Names {
        &self.names
    }

    async fn create(&mut self) -> anyhow::Result<()> {
        self.remove().await?;
        for stream in [&self.names.source, &self.names.target] {
            let mut create = cmd("XGROUP");
            create.arg("CREATE").arg(stream).arg(GROUP).arg("0").arg("MKSTREAM");
            create.exec_async(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn fill(&mut self, messages: u64, body_bytes: usize) -> anyhow::Result<()> {
        let mut number = 0;
        while number < messages {
            let mut pipeline = pipe();
            for _ in 0..FILL_BATCH.min(messages - number) {
                add(&mut pipeline, &self.names.source, number, &load::body(number, 0, body_bytes));
                number += 1;
            }
            pipeline.exec_async(&mut self.connection).await?;
        }
        Ok(())
    }

    async fn arrived(&mut self) -> anyhow::Result<u64> {
        Ok(cmd("XLEN").arg(&self.names.target).query_async(&mut self.connection).await?)
    }

    async fn ends(&self) -> anyhow::Result<(Box<dyn Sending>, Box<dyn Receiving>)> {
        let sending = SendingEnd { stream: self.names.source.clone(), connection: connect(&self.url).await? };
        let receiving = ReceivingEnd { stream: self.names.target.clone(), connection: connect(&self.url).await? };
        Ok((Box::new(sending), Box::new(receiving)))
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        let mut remove = cmd("UNLINK");
        remove.arg(&self.names.source).arg(&self.names.target);
        remove.exec_async(&mut self.connection).await.context("cannot remove the streams of the measurement")
    }
}

struct SendingEnd {
    stream: String,
    connection: MultiplexedConnection,
}

#[async_trait]
impl Sending for SendingEnd {
    async fn send(&mut self, number: u64, body: Vec<u8>) -> anyhow::Result<()> {
        let mut pipeline = pipe();
        add(&mut pipeline, &self.stream, number, &body);
        Ok(pipeline.exec_async(&mut self.connection).await?)
    }
}

struct ReceivingEnd {
    stream: String,
    connection: MultiplexedConnection,
}

#[async_trait]
impl Receiving for ReceivingEnd {
    async fn receive(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(GROUP).arg("COUNT").arg(RECEIVE_BATCH).arg("BLOCK").arg(READ_WAIT_MS);
        read.arg("NOACK").arg("STREAMS").arg(&self.stream).arg(">");
        let answer: Value = read.query_async(&mut self.connection).await?;
        Ok(entries(answer)?.into_iter().filter_map(|entry| entry.field(b"data")).collect())
    }
}

/// An entry of a stream with its fields in order.
struct Entry {
    id: Vec<u8>,
    fields: Vec<Vec<u8>>,
}

impl Entry {
    fn field(self, name: &[u8]) -> Option<Vec<u8>> {
        let mut fields = self.fields.into_iter();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            if field == name {
                return Some(value);
            }
        }
        None
    }
}

/// The entries of an answer about one stream: `[[stream, [[id, [field, value, …]], …]]]`, or nil for none.
fn entries(answer: Value) -> anyhow::Result<Vec<Entry>> {
    let unexpected = || anyhow::anyhow!("Redis answered XREADGROUP in a form that is not known");
    let streams = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams,
        _ => return Err(unexpected()),
    };
    let Some(Value::Array(stream)) = streams.into_iter().next() else { return Err(unexpected()) };
    let Some(Value::Array(entries)) = stream.into_iter().nth(1) else { return Err(unexpected()) };
    entries.into_iter().map(|entry| read_entry(entry).ok_or_else(unexpected)).collect()
}

fn read_entry(entry: Value) -> Option<Entry> {
    let Value::Array(parts) = entry else { return None };
    let mut parts = parts.into_iter();
    let (Some(Value::BulkString(id)), Some(Value::Array(fields))) = (parts.next(), parts.next()) else { return None };
    let bytes = |field| if let Value::BulkString(bytes) = field { Some(bytes) } else { None };
    Some(Entry { id, fields: fields.into_iter().map(bytes).collect::<Option<_>>()? })
}

/// Reads a batch, adds it to the target in one pipeline, acknowledges it with the next read: two round trips a batch.
pub(super) async fn bare_loop(url: &str, source: &str, target: &str, in_flight: u16) -> anyhow::Result<()> {
    let mut connection = connect(url).await?;
    let read = |pipeline: &mut Pipeline| {
        let command = pipeline.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(GROUP).arg("COUNT").arg(in_flight);
        command.arg("BLOCK").arg(READ_WAIT_MS).arg("STREAMS").arg(source).arg(">");
    };
    let mut acknowledge: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut pipeline = pipe();
        if !acknowledge.is_empty() {
            pipeline.cmd("XACK").arg(source).arg(GROUP).arg(&acknowledge).ignore();
        }
        read(&mut pipeline);
        let (answer,): (Value,) = pipeline.query_async(&mut connection).await?;
        let batch = entries(answer)?;
        acknowledge.clear();
        if batch.is_empty() {
            continue;
        }
        let mut pipeline = pipe();
        for entry in &batch {
            pipeline.cmd("XADD").arg(target).arg("*").arg(&entry.fields).ignore();
        }
        pipeline.exec_async(&mut connection).await?;
        acknowledge.extend(batch.into_iter().map(|entry| entry.id));
    }
}
