//! The receivers: what comes out of brokers and files goes to the oracle. A receiver connects again for as long as it
//! runs; HTTP has its own in `hook`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use sluicegate_tests::servers::connect_to_rabbitmq;
use tokio::time::timeout;

use crate::lane::{Lane, Target};
use crate::payload::SEAL;

/// Before a new connection.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks for more where nobody says that there is.
const LOOK: Duration = Duration::from_millis(20);
const READ_LIMIT: Duration = Duration::from_secs(5);
/// Without any message for this long the connection is made anew: a killed or stopped broker may not say that it is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// Receives until it is aborted.
pub async fn receive(lane: Arc<Lane>, folder: PathBuf) {
    let mut reading = Reading { last_id: "0-0".to_owned(), offset: 0, last_line: Vec::new() };
    loop {
        // However a connection ends, the next one goes on.
        let ended = match lane.to {
            Target::RabbitMq => consume(&lane).await,
            Target::Redis => reading.stream(&lane).await,
            Target::File => reading.file(&lane, &folder),
            Target::Http | Target::Queue => return,
        };
        tokio::time::sleep(if ended.is_ok() { LOOK } else { PAUSE }).await;
    }
}

async fn consume(lane: &Lane) -> Result<()> {
    let connection = connect_to_rabbitmq(&lane.addresses.rabbitmq).await?;
    let channel = connection.create_channel().await?;
    let queue = || lane.output.as_str().into();
    channel.queue_declare(queue(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.basic_qos(500, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue(), "oracle".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = timeout(SILENCE_LIMIT, consumer.next()).await.context("silence")? {
        let delivery = delivery?;
        let headers = delivery.properties.headers().as_ref();
        let seal = headers.and_then(|table| match table.inner().get(SEAL) {
            Some(AMQPValue::LongString(text)) => Some(text.as_bytes().to_vec()),
            _ => None,
        });
        let sealed = lane.oracle.terms().sealed;
        let seal = sealed.then(|| seal.unwrap_or_default());
        lane.oracle.arrive(0, &delivery.data, seal.as_deref(), delivery.redelivered);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// How far a receiver has come.
struct Reading {
    last_id: String,
    /// Behind the last complete line.
    offset: u64,
    last_line: Vec<u8>,
}

impl Reading {
    async fn stream(&mut self, lane: &Lane) -> Result<()> {
        let client = redis::Client::open(lane.addresses.redis.as_str())?;
        let mut connection = timeout(READ_LIMIT, client.get_multiplexed_async_connection()).await??;
        loop {
            let mut command = redis::cmd("XRANGE");
            command.arg(&lane.output).arg(format!("({}", self.last_id)).arg("+").arg("COUNT").arg(1_000);
            let entries: Vec<(String, Vec<Vec<u8>>)> =
                timeout(READ_LIMIT, command.query_async(&mut connection)).await??;
            for (id, fields) in &entries {
                let field =
                    |name: &[u8]| fields.chunks_exact(2).find(|field| field[0] == name).map(|f| f[1].as_slice());
                let seal =
                    lane.oracle.terms().sealed.then(|| field(format!("h:{SEAL}").as_bytes()).unwrap_or_default());
                lane.oracle.arrive(0, field(b"data").unwrap_or_default(), seal, false);
                self.last_id.clone_from(id);
            }
            if entries.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// The lines that are complete since the last time. A batch that did not fit on the disk is taken back by its writer:
    /// where the line read last is not there any more, the file is read once more from its beginning.
    fn file(&mut self, lane: &Lane, folder: &Path) -> Result<()> {
        let mut file = std::fs::File::open(folder.join(&lane.output))?;
        let known = self.last_line.len() as u64;
        file.seek(SeekFrom::Start(self.offset - known))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let again = !bytes.starts_with(&self.last_line);
        if again {
            (self.offset, bytes) = (0, std::fs::read(folder.join(&lane.output))?);
        } else {
            bytes.drain(..self.last_line.len());
        }
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in bytes[..complete].split_inclusive(|byte| *byte == b'\n') {
            lane.oracle.arrive(0, &line[..line.len() - 1], None, again);
            self.last_line = line.to_vec();
        }
        self.offset += complete as u64;
        Ok(())
    }
}
