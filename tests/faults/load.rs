//! The load: one driver a source. Each issues messages at a steady rate, as far as the system takes them, and tells the
//! oracle what was acknowledged. What fails is not sent again, and its fate is open: it may arrive or not.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use sluicegate_tests::servers::connect_to_rabbitmq;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::lane::{Lane, Source};
use crate::payload::{Payload, SEAL};

/// Between two batches of a driver.
const TICK: Duration = Duration::from_millis(50);
/// An acknowledgement that takes longer is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// After a failure, before the next batch.
const PAUSE: Duration = Duration::from_millis(200);
/// Requests of one lane at the same time.
const MAX_REQUESTS: usize = 64;

/// Where the gateways of a run take messages.
#[derive(Debug, Clone)]
pub struct Inlets {
    /// `http://HOST:PORT` of each gateway.
    pub gateways: Vec<String>,
    /// The first gateway's folder, where files are.
    pub folder: PathBuf,
    pub client: reqwest::Client,
}

/// Issues about `per_second` messages until `stop`.
pub async fn drive(lane: Arc<Lane>, inlets: Inlets, per_second: u32, stop: CancellationToken) {
    let batch = (per_second / (1_000 / TICK.as_millis() as u32)).max(1) as usize;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut way = Way::default();
    let mut requests = JoinSet::new();
    loop {
        tokio::select! { () = stop.cancelled() => break, _ = ticks.tick() => {} }
        let sent = match lane.from {
            Source::HttpAccepted | Source::HttpDelivered if lane.oracle.terms().ordered => {
                in_turns(&lane, &inlets, batch).await
            }
            Source::HttpAccepted | Source::HttpDelivered => {
                for _ in 0..batch.min(MAX_REQUESTS.saturating_sub(requests.len())) {
                    requests.spawn(post(Arc::clone(&lane), inlets.clone(), lane.oracle.issue()));
                }
                while let Some(ended) = requests.try_join_next() {
                    ended.expect("a request does not panic");
                }
                Ok(())
            }
            Source::RabbitMq => within(way.publish(&lane, batch)).await,
            Source::Redis => within(way.add(&lane, batch)).await,
            Source::Queue => within(enqueue(&lane, &inlets, batch)).await,
            Source::File => append(&lane, &inlets, batch),
        };
        if sent.is_err() {
            // Dead or stopped: that is what the faults are for.
            way = Way::default();
            tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(PAUSE) => {} }
        }
    }
    requests.join_all().await;
}

async fn within(sending: impl Future<Output = Result<()>>) -> Result<()> {
    timeout(ANSWER_LIMIT, sending).await.context("no answer")?
}

/// A driver's connection, while it holds.
#[derive(Default)]
struct Way {
    channel: Option<(Channel, lapin::Connection)>,
    redis: Option<MultiplexedConnection>,
}

impl Way {
    async fn publish(&mut self, lane: &Lane, batch: usize) -> Result<()> {
        if self.channel.is_none() {
            let connection = connect_to_rabbitmq(&lane.addresses.rabbitmq).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (queue, options) = (lane.input.as_str().into(), QueueDeclareOptions::durable());
            channel.queue_declare(queue, options, FieldTable::default()).await?;
            self.channel = Some((channel, connection));
        }
        let (channel, _) = self.channel.as_ref().context("a channel")?;
        let mut confirms = Vec::with_capacity(batch);
        for _ in 0..batch {
            let payload = lane.oracle.issue();
            let mut headers = FieldTable::default();
            headers.insert(SEAL.into(), AMQPValue::LongString(payload.seal().into()));
            headers.insert("key".into(), AMQPValue::LongString(payload.key().to_string().into()));
            let properties = BasicProperties::default()
                .with_message_id(payload.id().into())
                .with_type("fault.message".into())
                .with_delivery_mode(2)
                .with_headers(headers);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let queue = lane.input.as_str().into();
            confirms.push((
                payload.number,
                channel.basic_publish("".into(), queue, options, &payload.body(), properties).await?,
            ));
        }
        for (number, confirm) in confirms {
            ensure!(matches!(confirm.await?, Confirmation::Ack(None)), "the broker did not take {number}");
            lane.oracle.acknowledge(number);
        }
        Ok(())
    }

    async fn add(&mut self, lane: &Lane, batch: usize) -> Result<()> {
        if self.redis.is_none() {
            let client = redis::Client::open(lane.addresses.redis.as_str())?;
            self.redis = Some(client.get_multiplexed_async_connection().await?);
        }
        let connection = self.redis.as_mut().context("a connection")?;
        let (mut pipeline, mut numbers) = (redis::pipe(), Vec::with_capacity(batch));
        for _ in 0..batch {
            let payload = lane.oracle.issue();
            numbers.push(payload.number);
            pipeline.cmd("XADD").arg(&lane.input).arg("*");
            pipeline.arg(&["specversion", "1.0", "source", "faults", "type", "fault.message"]);
            pipeline.arg("id").arg(payload.id()).arg("key").arg(payload.key());
            pipeline.arg(format!("h:{SEAL}")).arg(payload.seal()).arg("data").arg(payload.body()).ignore();
        }
        pipeline.query_async::<()>(connection).await?;
        numbers.into_iter().for_each(|number| lane.oracle.acknowledge(number));
        Ok(())
    }
}

/// One request after the other: the order in which they are acknowledged is that in which they were issued.
async fn in_turns(lane: &Arc<Lane>, inlets: &Inlets, batch: usize) -> Result<()> {
    for _ in 0..batch {
        let payload = lane.oracle.issue();
        ensure!(post(Arc::clone(lane), inlets.clone(), payload).await, "{} was not taken", payload.number);
    }
    Ok(())
}

/// Whether it was taken: carried, on disk, or a dead letter.
async fn post(lane: Arc<Lane>, inlets: Inlets, payload: Payload) -> bool {
    let base = &inlets.gateways[payload.number as usize % inlets.gateways.len()];
    let request = inlets
        .client
        .post(format!("{base}{}", lane.path()))
        .header("ce-specversion", "1.0")
        .header("ce-id", payload.id())
        .header("ce-source", "faults")
        .header("ce-type", "fault.message")
        .header("ce-partitionkey", payload.key().to_string())
        .header(format!("ce-{SEAL}"), payload.seal())
        .header("content-type", "application/json")
        .body(payload.body());
    let taken = match request.timeout(ANSWER_LIMIT).send().await {
        Ok(answer) => matches!(answer.status().as_u16(), 200 | 202 | 422),
        Err(_) => false,
    };
    if taken {
        lane.oracle.acknowledge(payload.number);
    }
    taken
}

async fn enqueue(lane: &Lane, inlets: &Inlets, batch: usize) -> Result<()> {
    let payloads: Vec<Payload> = (0..batch).map(|_| lane.oracle.issue()).collect();
    let message = |payload: &Payload| {
        let body = String::from_utf8_lossy(&payload.body()).into_owned();
        // As text of JSON: the bytes must stay as they are.
        let data: Value = serde_json::from_str(&body).unwrap_or(Value::String(body));
        json!({ "id": payload.id(), "key": payload.key().to_string(), "type": "fault.message",
                "headers": { SEAL: payload.seal() }, "data": data })
    };
    let form = json!({ "queue": lane.input, "messages": payloads.iter().map(message).collect::<Vec<_>>() });
    let base = &inlets.gateways[payloads[0].number as usize % inlets.gateways.len()];
    let request = inlets.client.post(format!("{base}/api/v1/mq/publish/batch")).body(form.to_string());
    let answer = request.header("content-type", "application/json").send().await?;
    ensure!(answer.status() == 201, "{}", answer.status());
    payloads.iter().for_each(|payload| lane.oracle.acknowledge(payload.number));
    Ok(())
}

fn append(lane: &Lane, inlets: &Inlets, batch: usize) -> Result<()> {
    let path = inlets.folder.join(&lane.input);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let payloads: Vec<Payload> = (0..batch).map(|_| lane.oracle.issue()).collect();
    let lines: Vec<u8> = payloads.iter().flat_map(|payload| [payload.body(), b"\n".to_vec()].concat()).collect();
    file.write_all(&lines)?;
    file.sync_data()?;
    payloads.iter().for_each(|payload| lane.oracle.acknowledge(payload.number));
    Ok(())
}
