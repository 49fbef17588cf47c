//! Delay queues: where a message waits until it is to be tried again.
//!
//! A message that shall come back after some time is published to a queue whose messages expire after that time and are
//! then moved by the broker (dead-letter exchange: the default one) back to the source's queue. A queue only drops
//! expired messages from its head, so messages of different delays must not share one: there is a queue for each step of
//! a ladder (ISO 3 preferred numbers, R10: 100 ms, 125 ms, 160 ms … 1 s … 1 min …), and a delay is rounded up to the next step,
//! by 28 % at most. Between 1 s and 60 s that makes 19 queues, created when first needed and deleted by the broker
//! (`x-expires`) when long out of use.
//!
//! The message is confirmed by the broker before the original is acknowledged, so a crash between the two yields a
//! duplicate and never a loss. Within the broker, moving an expired message is as safe as the queue's kind: with a quorum
//! queue as source the delay queues are quorum queues that dead-letter at least once; they are named so, for a source queue
//! that was deleted and made again of another kind.

use std::collections::HashMap;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::ShortString;
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::Message;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::mapping::{EXCHANGE, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Outgoing, Properties, ROUTING_KEY};
use super::publisher::{Publication, Publisher, Rejection};
use super::refusal;
use super::topology::{delay_queue_arguments, short};

/// Longest delay; longer ones are cut to it. RabbitMQ counts milliseconds in 32 bits.
const MAX_DELAY_MS: u32 = 4_000_000_000;
/// How much longer than its messages a delay queue lives without being declared again. Many times [`REDECLARE_AFTER`], so
/// that no queue expires with a message in it.
const EXPIRES_MARGIN_MS: u32 = 600_000;
/// Room left in the headers for what the broker adds to a message that comes back (`x-death`, `x-first-death-…`,
/// `x-last-death-…`): it holds the delay queue's name, of at most 255 bytes, four times. Without that room the broker would
/// deliver a frame larger than agreed upon, which ends the connection.
const DEATH_HEADERS_BYTES: u32 = 2_048;
/// How long a declaration is trusted.
const REDECLARE_AFTER: Duration = Duration::from_secs(60);
/// Longest wait for the confirm of a delayed message.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The delay queues of one source.
pub(super) struct DelayQueues {
    /// The queue messages go back to.
    pub queue: String,
    /// Whether that is a quorum queue.
    pub quorum: bool,
    /// Start of the delay queues' names.
    pub prefix: String,
    /// Header that counts failed attempts.
    pub retry_header: String,
    /// Where to publish. A connection of its own, opened when first needed: a broker short of memory blocks connections
    /// that publish, and those that only consume and acknowledge help it out.
    pub endpoint: Endpoint,
    pub open: Option<Open>,
}

/// What is opened with the first delayed message.
pub(super) struct Open {
    publisher: Publisher,
    /// When each step's queue was last declared.
    declared: HashMap<u32, Instant>,
}

/// A message to be parked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked<'a> {
    pub message: &'a Message,
    pub after: Duration,
    /// The number of the attempt to come.
    pub attempt: u32,
}

impl DelayQueues {
    /// Publishes messages to their delay queues: for each whether it is there, durably. The failure of one, always
    /// permanent, is that AMQP cannot carry it with the headers to be added.
    ///
    /// # Errors
    /// If the broker did not take the rest; those it took come back besides their originals. Permanent where it would refuse
    /// the same again.
    pub async fn park(&mut self, parked: &[Parked<'_>]) -> Result<Vec<Result<(), Failure>>, Failure> {
        let result = self.try_park(parked).await;
        if result.is_err() {
            self.open = None;
        }
        result
    }

    /// Says good-bye, if anything was parked.
    ///
    /// # Errors
    /// As [`Publisher::close`].
    pub async fn close(&mut self) -> Result<(), Failure> {
        match self.open.take() {
            Some(open) => open.publisher.close().await,
            None => Ok(()),
        }
    }

    async fn try_park(&mut self, parked: &[Parked<'_>]) -> Result<Vec<Result<(), Failure>>, Failure> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open {
                publisher: Publisher::open(&self.endpoint, true, PUBLISH_TIMEOUT).await?,
                declared: HashMap::new(),
            },
        };
        let mut taken = Vec::with_capacity(parked.len());
        let mut batch = Vec::with_capacity(parked.len());
        let mut steps = Vec::with_capacity(parked.len());
        for parked in parked {
            let step_ms = step_ms(parked.after);
            match self.publication(parked, step_ms, open.publisher.frame_max_bytes()) {
                Ok(publication) => {
                    self.ensure(&mut open, step_ms).await?;
                    batch.push(publication);
                    steps.push(step_ms);
                    taken.push(Ok(()));
                }
                Err(why) => taken.push(Err(Failure::permanent(format!(
                    "parking message `{}` of queue `{}`, RabbitMQ at {}: {why}",
                    parked.message.id, self.queue, self.endpoint
                )))),
            }
        }
        self.publish(&mut open, batch, &steps).await?;
        self.open = Some(open);
        Ok(taken)
    }

    /// Publishes, and once more those whose queue was deleted under our hands.
    async fn publish(&self, open: &mut Open, mut batch: Vec<Publication>, steps: &[u32]) -> Result<(), Failure> {
        let mut steps = steps.to_vec();
        for last_try in [false, true] {
            let mut unroutable = Vec::new();
            let mut their_steps = Vec::new();
            let results = open.publisher.publish(&batch).await;
            for ((publication, step_ms), result) in batch.into_iter().zip(steps).zip(results) {
                match result {
                    Ok(()) => {}
                    Err(Rejection::Unroutable(_)) if !last_try => {
                        open.declared.remove(&step_ms);
                        unroutable.push(publication);
                        their_steps.push(step_ms);
                    }
                    Err(rejection) => {
                        let what = format!("to delay queue `{}`", publication.routing_key);
                        return Err(rejection.into_failure(&what, &self.endpoint, PUBLISH_TIMEOUT));
                    }
                }
            }
            if unroutable.is_empty() {
                return Ok(());
            }
            for step_ms in &their_steps {
                self.ensure(open, *step_ms).await?;
            }
            (batch, steps) = (unroutable, their_steps);
        }
        Ok(())
    }

    fn publication(&self, parked: &Parked<'_>, step_ms: u32, frame_max_bytes: u32) -> Result<Publication, String> {
        let limit_bytes = frame_max_bytes.saturating_sub(DEATH_HEADERS_BYTES);
        let properties = self
            .properties(parked, true)?
            .finish(limit_bytes)
            .or_else(|_| self.properties(parked, false)?.finish(limit_bytes))
            .map_err(|why| format!("{why}; {DEATH_HEADERS_BYTES} bytes are kept free for what the broker adds"))?;
        Ok(Publication {
            exchange: ShortString::default(),
            routing_key: self.name(step_ms).map_err(|failure| failure.text)?,
            properties,
            body: parked.message.body.bytes().clone(),
        })
    }

    /// Unless `complete`, without what the source can tell without it. The rest must stay: a message that came back without
    /// its exchange and routing key could be routed elsewhere than before.
    fn properties(&self, parked: &Parked<'_>, complete: bool) -> Result<Properties, String> {
        let message = parked.message;
        let outgoing = Outgoing { persistent: true, expires: false, ttl: None, cloud_events: false };
        let mut properties = outgoing.properties(message)?;
        // Kept, the broker would take a message that expired in this queue before for one that goes round in circles, and
        // drop it.
        properties.remove(|name| name == "x-death");
        properties.set_number(&self.retry_header, i64::from(parked.attempt.saturating_sub(1)))?;
        let header = |name: &str| message.headers.get(name).map(|value| value.to_vec()).unwrap_or_default();
        properties.set(ORIGINAL_EXCHANGE, header(EXCHANGE))?;
        let routing_key = header(ROUTING_KEY);
        // The way back from a delay queue has the queue's name as routing key, too.
        if complete || routing_key != self.queue.as_bytes() {
            properties.set(ORIGINAL_ROUTING_KEY, routing_key)?;
        }
        Ok(properties)
    }

    fn name(&self, step_ms: u32) -> Result<ShortString, Failure> {
        let kind = if self.quorum { ".quorum" } else { "" };
        short(&format!("{}{kind}.{step_ms}ms", self.prefix), "delay queue's name")
    }

    /// Declares the step's queue, unless that was done lately: declaring also defers its expiry.
    async fn ensure(&self, open: &mut Open, step_ms: u32) -> Result<(), Failure> {
        if open.declared.get(&step_ms).is_some_and(|at| at.elapsed() < REDECLARE_AFTER) {
            return Ok(());
        }
        let name = self.name(step_ms)?;
        let doing = format!("declaring delay queue `{name}`");
        let refused = |error: lapin::Error| match refusal::on_connect(&error, &doing, &self.endpoint) {
            // The hints for what the configuration declares do not fit a queue that it does not name.
            Failure { kind: FailureKind::Permanent, .. } => Failure::permanent(format!(
                "{doing}, RabbitMQ at {}: {}; if it exists with other arguments, delete it on the broker or choose another \
                 `retry.queue_prefix`; if access is refused, let the user configure, write and read queues of such names and \
                 write to the default exchange (`rabbitmqctl set_permissions`)",
                self.endpoint,
                refusal::said(&error)
            )),
            other => other,
        };
        let declared = async {
            let channel = open.publisher.connection().create_channel().await?;
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let arguments =
                delay_queue_arguments(&self.queue, self.quorum, step_ms, step_ms.saturating_add(EXPIRES_MARGIN_MS));
            channel.queue_declare(name.clone(), options, arguments).await?;
            channel.close(200, "OK".into()).await
        };
        match tokio::time::timeout(PUBLISH_TIMEOUT, declared).await {
            Ok(result) => result.map_err(refused)?,
            Err(_) => {
                return Err(Failure::disconnected(format!(
                    "{doing}, RabbitMQ at {}: no answer within {PUBLISH_TIMEOUT:?}",
                    self.endpoint
                )));
            }
        }
        open.declared.insert(step_ms, Instant::now());
        Ok(())
    }
}

/// The smallest step of the ladder that is not shorter than `after`.
fn step_ms(after: Duration) -> u32 {
    const R10: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
    let wanted_ms = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let mut decade = 1;
    loop {
        for step in R10 {
            let step_ms = step * decade;
            if step_ms >= u64::from(MAX_DELAY_MS) {
                return MAX_DELAY_MS;
            }
            if step_ms >= wanted_ms {
                return u32::try_from(step_ms).unwrap_or(MAX_DELAY_MS);
            }
        }
        decade *= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::quantity::Span;

    const FRAME_MAX_BYTES: u32 = 131_072;

    fn delays(quorum: bool) -> DelayQueues {
        let url = serde_json::from_value("amqp://guest:guest@localhost".into()).expect("a url");
        let second = Span::secs(1);
        let endpoint =
            Endpoint::new(&url, None, second, second, Path::new("."), "test".to_owned()).expect("an endpoint");
        DelayQueues {
            queue: "orders".to_owned(),
            quorum,
            prefix: "orders.delay".to_owned(),
            retry_header: "x-retry-count".to_owned(),
            endpoint,
            open: None,
        }
    }

    /// The names of the parking headers of a message with this many bytes in a header.
    fn parking_headers(routing_key: &str, heavy_bytes: usize) -> Result<Vec<String>, String> {
        let mut message = Message::new("s", "k", "body");
        message.time_ms = 1_000;
        message.headers.append(EXCHANGE, "");
        message.headers.append(ROUTING_KEY, routing_key.to_owned());
        message.headers.append("heavy", vec![b'x'; heavy_bytes]);
        let parked = Parked { message: &message, after: Duration::from_secs(2), attempt: 3 };
        let properties = delays(false).publication(&parked, 2_000, FRAME_MAX_BYTES)?.properties;
        let table = properties.headers().clone().expect("headers");
        assert!(table.contains_key("heavy"));
        Ok(table.inner().keys().map(|name| name.to_string()).filter(|name| name.starts_with("x-")).collect())
    }

    #[test]
    fn a_heavy_message_waits_with_what_it_cannot_do_without_or_not_at_all() {
        let all = ["x-original-exchange", "x-original-routing-key", "x-retry-count"];
        let (mut fewer, mut refused) = (0, 0);
        for heavy_bytes in 128_700..129_000 {
            // A routing key of its own, of the same length, must not be dropped.
            match (parking_headers("orders", heavy_bytes), parking_headers("others", heavy_bytes)) {
                (Ok(derivable), Ok(own)) => {
                    assert_eq!((derivable, own), (all.map(String::from).to_vec(), all.map(String::from).to_vec()))
                }
                (Ok(derivable), Err(_)) => {
                    assert_eq!(derivable, ["x-original-exchange", "x-retry-count"]);
                    fewer += 1;
                }
                (Err(why), Err(_)) => {
                    assert!(why.contains("frame_max") && why.contains("2048"), "{why}");
                    refused += 1;
                }
                (Err(why), Ok(_)) => panic!("{heavy_bytes}: {why}"),
            }
        }
        // The header's name and value with their lengths and type: 1 + 22 + 5 + 6 bytes.
        assert_eq!(fewer, 34);
        assert!(refused > 0 && refused + fewer < 300, "{refused} refused");
    }

    #[test]
    fn delay_queues_of_different_kinds_have_different_names() {
        assert_eq!(delays(false).name(1_000).expect("a name").as_str(), "orders.delay.1000ms");
        assert_eq!(delays(true).name(1_000).expect("a name").as_str(), "orders.delay.quorum.1000ms");
    }

    #[test]
    fn delays_are_rounded_up_to_steps() {
        assert_eq!(step_ms(Duration::ZERO), 100);
        assert_eq!(step_ms(Duration::from_millis(100)), 100);
        assert_eq!(step_ms(Duration::from_micros(100_001)), 125);
        assert_eq!(step_ms(Duration::from_secs(1)), 1_000);
        assert_eq!(step_ms(Duration::from_millis(1_001)), 1_250);
        assert_eq!(step_ms(Duration::from_secs(60)), 63_000);
        assert_eq!(step_ms(Duration::MAX), MAX_DELAY_MS);
    }

    proptest! {
        #[test]
        fn a_step_is_never_shorter_and_hardly_longer(delay_ms in 100_u64..4_000_000_000) {
            let step = u64::from(step_ms(Duration::from_millis(delay_ms)));
            prop_assert!(step >= delay_ms);
            prop_assert!(step as f64 <= delay_ms as f64 * 1.281);
        }
    }
}
