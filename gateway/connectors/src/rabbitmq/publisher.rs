//! Publishing with confirms: a batch goes out at once on a channel of its own and is waited for as a whole.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind};
use sluicegate_engine::failure::Failure;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{self, Endpoint};
use super::refusal;

/// Most idle channels kept for the next batch.
const MAX_IDLE_CHANNELS: usize = 16;

/// A message ready to be published.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub properties: BasicProperties,
    pub body: Bytes,
}

/// Why a publication is not confirmed.
#[derive(Debug, Clone)]
pub(super) enum Rejection {
    /// No queue took it; the broker's words.
    Unroutable(String),
    /// The broker did not take responsibility for it.
    Nacked,
    /// No confirm within the time limit; whether the broker has blocked the connection.
    Unconfirmed { blocked: bool },
    /// The broker closed the channel because of it.
    Refused(AMQPError),
    /// Channel or connection are gone; why.
    Lost(lapin::Error),
}

/// A connection to publish on.
pub(super) struct Publisher {
    connection: Connection,
    endpoint: Endpoint,
    mandatory: bool,
    timeout: Duration,
    /// Channels in confirm mode with nothing outstanding. A batch has a channel to itself, so that what the broker returns
    /// on it belongs to that batch.
    idle: Mutex<Vec<Channel>>,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub async fn open(endpoint: &Endpoint, mandatory: bool, timeout: Duration) -> Result<Self, Failure> {
        let connection = endpoint.connect().await?;
        Ok(Self { connection, endpoint: endpoint.clone(), mandatory, timeout, idle: Mutex::new(Vec::new()) })
    }

    /// For declarations.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The largest frame the broker takes.
    pub fn frame_max_bytes(&self) -> u32 {
        self.connection.configuration().frame_max()
    }

    /// Publishes all and waits for their confirms, within the time limit: one result each, in order. What one publication
    /// gets does not depend on the others, even where it makes the broker close the channel.
    ///
    /// Not cancel safe in effect: if dropped, any of them may have been published.
    pub async fn publish(&self, batch: &[Publication]) -> Vec<Result<(), Rejection>> {
        let deadline = Instant::now() + self.timeout;
        let mut results = self.publish_together(batch, deadline).await;
        if batch.len() > 1 && results.iter().any(|result| matches!(result, Err(rejection) if rejection.blames_one())) {
            // One publication took the channel, and with it its neighbours, along: each once more, on its own.
            for (publication, result) in batch.iter().zip(&mut results) {
                if matches!(result, Err(rejection) if rejection.blames_one()) {
                    let alone = self.publish_together(std::slice::from_ref(publication), deadline).await;
                    if let Some(alone) = alone.into_iter().next() {
                        *result = alone;
                    }
                }
            }
        }
        results
    }

    /// Says good-bye.
    ///
    /// # Errors
    /// As [`endpoint::close`].
    pub async fn close(&self) -> Result<(), Failure> {
        endpoint::close(&self.connection, &self.endpoint).await
    }

    async fn publish_together(&self, batch: &[Publication], deadline: Instant) -> Vec<Result<(), Rejection>> {
        let channel = match timeout_at(deadline, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return vec![Err(Rejection::from(error)); batch.len()],
            Err(_) => return vec![Err(self.unconfirmed()); batch.len()],
        };
        let mut confirms: FuturesUnordered<_> = batch
            .iter()
            .enumerate()
            .map(|(index, publication)| {
                let channel = &channel;
                async move { (index, self.publish_one(channel, publication).await) }
            })
            .collect();
        let mut results = vec![Err(self.unconfirmed()); batch.len()];
        let mut returned = Vec::new();
        while let Ok(Some((index, confirm))) = timeout_at(deadline, confirms.next()).await {
            results[index] = match confirm {
                Ok(Confirmation::Ack(message)) => {
                    returned.extend(message.map(|message| (index, message)));
                    Ok(())
                }
                Ok(Confirmation::Nack(message)) => {
                    returned.extend(message.map(|message| (index, message)));
                    Err(Rejection::Nacked)
                }
                // Every channel here is in confirm mode.
                Ok(Confirmation::NotRequested) => Err(Rejection::Nacked),
                Err(error) => Err(Rejection::from(error)),
            };
        }
        let settled = confirms.is_empty();
        drop(confirms);
        if settled && channel.status().connected() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MAX_IDLE_CHANNELS {
                idle.push(channel);
            }
        }
        mark_returned(batch, returned, &mut results);
        share_refusal(&mut results);
        results
    }

    async fn publish_one(&self, channel: &Channel, publication: &Publication) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions { mandatory: self.mandatory, immediate: false };
        let Publication { exchange, routing_key, properties, body } = publication;
        channel.basic_publish(exchange.clone(), routing_key.clone(), options, body, properties.clone()).await?.await
    }

    /// An idle channel, or a new one in confirm mode.
    async fn channel(&self) -> lapin::Result<Channel> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(channel) if channel.status().connected() => return Ok(channel),
                Some(closed) => drop(closed),
                None => break,
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn unconfirmed(&self) -> Rejection {
        Rejection::Unconfirmed { blocked: self.connection.status().blocked() }
    }
}

impl Rejection {
    /// Whether the broker closed the channel because of one publication's own content, rather than because of something
    /// all publications to that exchange share.
    fn blames_one(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(
            error.kind(),
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE)
        ))
    }
}

impl From<lapin::Error> for Rejection {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(amqp) if error.is_amqp_soft_error() => Self::Refused(amqp.clone()),
            // Open enum; all the rest means that channel or connection cannot be used.
            _ => Self::Lost(error),
        }
    }
}

impl Rejection {
    /// The failure for people: `what` continues "publishing …".
    pub fn into_failure(self, what: &str, endpoint: &Endpoint, timeout: Duration) -> Failure {
        let text = |why: &str| format!("publishing {what}, RabbitMQ at {endpoint}: {why}");
        match self {
            Self::Unroutable(said) => Failure::permanent(text(&format!(
                "no queue takes it ({said}); bind a queue for this routing key, or set `mandatory: false` to let the broker \
                 drop such messages"
            ))),
            Self::Nacked => Failure::transient(text(
                "the broker refused it (nack): a queue is full (`x-overflow: reject-publish`) or failed; its log says more",
            )),
            Self::Unconfirmed { blocked: true } => Failure::transient(text(&format!(
                "no confirm within {timeout:?}: the broker has blocked this connection, it is short of memory or disk \
                 (`rabbitmqctl status` shows alarms)"
            ))),
            Self::Unconfirmed { blocked: false } => Failure::transient(text(&format!(
                "no confirm within {timeout:?}: the broker is slow or the connection is stuck; raise `publish_timeout` if \
                 that is normal here"
            ))),
            Self::Refused(error) => {
                let said = format!("{} ({})", error.get_message(), error.get_id());
                match error.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Failure::permanent(text(&format!(
                        "{said}; create the exchange, or let the gateway declare it: `exchange: {{ name: …, kind: … }}`"
                    ))),
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                        Failure::permanent(text(&format!("{said}; the user needs write permission on the exchange")))
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
                        Failure::permanent(text(&format!("{said}; the broker does not take this message")))
                    }
                    AMQPErrorKind::Soft(
                        AMQPSoftError::NOROUTE | AMQPSoftError::NOCONSUMERS | AMQPSoftError::RESOURCELOCKED,
                    )
                    | AMQPErrorKind::Hard(_) => Failure::transient(text(&said)),
                }
            }
            Self::Lost(error) => Failure::disconnected(text(&refusal::said(&error))),
        }
    }
}

/// Finds the publications that were returned. The client library hands a returned message to whichever confirm comes
/// next, and brokers confirm several at once, so it is told by its content; equal messages fare equally.
fn mark_returned(
    batch: &[Publication],
    returned: Vec<(usize, BasicReturnMessage)>,
    results: &mut [Result<(), Rejection>],
) {
    for (carrier, message) in returned {
        let same = |publication: &Publication| {
            publication.exchange == message.exchange
                && publication.routing_key == message.routing_key
                && publication.body.as_ref() == message.data.as_slice()
        };
        let open = |index: &usize| !matches!(results[*index], Err(Rejection::Unroutable(_)));
        let exact = (0..batch.len())
            .filter(open)
            .find(|index| same(&batch[*index]) && batch[*index].properties == message.properties);
        let index = exact.or_else(|| (0..batch.len()).filter(open).find(|index| same(&batch[*index])));
        let said = format!("{} {}", message.reply_code, message.reply_text);
        results[index.unwrap_or(carrier)] = Err(Rejection::Unroutable(said));
    }
}

/// Publications made after the broker had closed the channel only know that it is closed: they get its reason.
fn share_refusal(results: &mut [Result<(), Rejection>]) {
    let refusal = results.iter().find_map(|result| match result {
        Err(Rejection::Refused(error)) => Some(error.clone()),
        _ => None,
    });
    let Some(refusal) = refusal else { return };
    for result in results {
        if let Err(Rejection::Lost(error)) = result
            && matches!(error.kind(), ErrorKind::InvalidChannelState(..))
        {
            *result = Err(Rejection::Refused(refusal.clone()));
        }
    }
}
