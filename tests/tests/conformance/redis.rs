//! Redis Streams: a stream to a stream.

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use sluicegate_tests::gateway::Gateway;
use sluicegate_tests::servers::{self, Redis};
use sluicegate_tests::{eventually, unique};
use tokio::sync::{Mutex, RwLock};

use crate::sample::{HEADER_PREFIX, Sample};
use crate::system::{ARRIVAL_LIMIT, System};

/// Entries added in one go.
const BATCH: usize = 200;
/// Entries read in one go.
const PAGE: usize = 500;

pub struct RedisSystem {
    /// Of the system's own, if it may be killed.
    own: RwLock<Option<Redis>>,
    url: String,
    source_stream: String,
    target_stream: String,
    connection: Mutex<Option<MultiplexedConnection>>,
    /// With the id of the last entry read.
    arrived: Mutex<(Vec<Sample>, String)>,
}

impl RedisSystem {
    fn new(url: String, own: Option<Redis>) -> Self {
        Self {
            own: RwLock::new(own),
            url,
            source_stream: unique("conformance-in"),
            target_stream: unique("conformance-out"),
            connection: Mutex::default(),
            arrived: Mutex::new((Vec::new(), "0-0".to_owned())),
        }
    }

    /// Runs on the kept connection, and forgets that after a failure.
    async fn query<T: redis::FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?,
        };
        let answer = pipeline.query_async(&mut connection).await?;
        *kept = Some(connection);
        Ok(answer)
    }

    async fn add(&self, samples: &[Sample]) -> Result<()> {
        let mut pipeline = redis::pipe();
        for sample in samples {
            pipeline.cmd("XADD").arg(&self.source_stream).arg("*");
            pipeline.arg("specversion").arg("1.0").arg("id").arg(&sample.id);
            pipeline.arg("source").arg("conformance").arg("type").arg("conformance.sample");
            if let Some(key) = &sample.key {
                pipeline.arg("key").arg(key);
            }
            for (name, value) in &sample.headers {
                pipeline.arg(format!("h:{name}")).arg(value);
            }
            pipeline.arg("data").arg(&sample.body).ignore();
        }
        self.query(&pipeline).await
    }
}

impl System for RedisSystem {
    async fn shared() -> Result<Self> {
        Ok(Self::new(servers::redis().await?.url().to_owned(), None))
    }

    async fn own() -> Result<Self> {
        let server = Redis::start().await?;
        Ok(Self::new(server.url().to_owned(), Some(server)))
    }

    fn source(&self) -> String {
        // Entries of a connection that died are taken over soon, or the suite would wait for it.
        format!("redis: {{ url: '{}', stream: {}, claim_after: 2s }}", self.url, self.source_stream)
    }

    fn target(&self) -> String {
        format!("redis: {{ url: '{}', stream: {} }}", self.url, self.target_stream)
    }

    fn telling_headers() -> Vec<(String, Vec<u8>)> {
        let header = |name: &str, value: &[u8]| (format!("{HEADER_PREFIX}{name}"), value.to_vec());
        vec![
            header("binary", &(0..=255).collect::<Vec<u8>>()),
            header("empty", b""),
            header("repeated", b"one"),
            header("UPPER lower, and: odd", "Grüße".as_bytes()),
            header("repeated", b"two"),
        ]
    }

    async fn produce(&self, _: &str, samples: &[Sample]) -> Result<()> {
        for batch in samples.chunks(BATCH) {
            eventually("Redis adds a batch", ARRIVAL_LIMIT, async || self.add(batch).await).await;
        }
        Ok(())
    }

    async fn arrived(&self) -> Result<Vec<Sample>> {
        let mut arrived = self.arrived.lock().await;
        loop {
            let mut pipeline = redis::pipe();
            pipeline.cmd("XRANGE").arg(&self.target_stream).arg(format!("({}", arrived.1)).arg("+");
            pipeline.arg("COUNT").arg(PAGE);
            let (page,): (Vec<(String, Vec<Vec<u8>>)>,) = self.query(&pipeline).await?;
            let Some((last, _)) = page.last() else { return Ok(arrived.0.clone()) };
            arrived.1.clone_from(last);
            let samples: Vec<Sample> = page.iter().map(|(_, fields)| sample(fields)).collect::<Result<_>>()?;
            arrived.0.extend(samples);
        }
    }

    async fn disturb(&self, _: &mut Gateway) -> Result<()> {
        let mut own = self.own.write().await;
        let server = own.as_mut().context("only a Redis of its own may be killed")?;
        server.kill()?;
        server.restart().await
    }
}

/// An entry's fields, name and value by turns.
fn sample(fields: &[Vec<u8>]) -> Result<Sample> {
    let mut sample = Sample { id: String::new(), key: None, headers: Vec::new(), body: Vec::new() };
    for field in fields.chunks_exact(2) {
        let value = field[1].clone();
        match std::str::from_utf8(&field[0])? {
            "id" => sample.id = String::from_utf8(value)?,
            "key" => sample.key = Some(String::from_utf8(value)?),
            "data" => sample.body = value,
            name => {
                if let Some(name) = name.strip_prefix("h:").filter(|name| name.starts_with(HEADER_PREFIX)) {
                    sample.headers.push((name.to_owned(), value));
                }
            }
        }
    }
    ensure!(!sample.id.is_empty(), "an entry without id");
    Ok(sample)
}
