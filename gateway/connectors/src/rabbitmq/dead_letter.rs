//! Dead letters in RabbitMQ: published to an exchange of their own, kept by a queue bound to it.
//!
//! A dead letter is the original message, body and headers byte for byte, with these headers besides:
//!
//! | header | value |
//! |---|---|
//! | `x-error` | the last failure, at most 4,096 bytes of it |
//! | `x-original-exchange`, `x-original-routing-key` | how the message came; empty if it did not come from RabbitMQ |
//! | `x-failed-at` | RFC 3339 |
//! | `x-retry-count` (name as configured) | how many attempts failed, less one |
//! | `x-sluicegate-id` | the dead letter's id: recorded twice, it is in the queue twice with this id |
//! | `x-sluicegate-pipeline`, `-step`, `-target`, `-class`, `-plugin`, `-plugin-digest`, `-config-version`, `-redrive-count` | where and why |
//!
//! The full record, with every attempt and backtrace, is in the built-in dead-letter store under the same id.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::{Failure, FailureKind};
use tokio::sync::OnceCell;

use super::config::{DeadLetterConfig, SourceConfig};
use super::declaration::{BindingConfig, ExchangeConfig};
use super::endpoint::Endpoint;
use super::mapping::{EXCHANGE, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Outgoing, Properties, ROUTING_KEY};
use super::publisher::{Publication, Publisher, Rejection};
use super::topology::{Topology, short};
use crate::cloudevents::print_time;
use crate::registry::BuildContext;

/// Longest `x-error`.
const MAX_ERROR_BYTES: usize = 4_096;

/// Keeps dead letters in RabbitMQ. Connects with the first one; a call that finds the connection lost fails, the next one
/// connects anew.
pub struct RabbitmqDeadLetters {
    config: DeadLetterConfig,
    exchange: ExchangeConfig,
    queue: String,
    pipeline: Arc<str>,
    endpoint: Result<Endpoint, Failure>,
    /// The connection, opened once by whoever comes first; replaced as a whole when it fails.
    open: Mutex<Arc<OnceCell<Publisher>>>,
}

impl RabbitmqDeadLetters {
    /// Not yet connected. `source` lends its url and TLS settings where `config` has no url.
    pub fn new(config: &DeadLetterConfig, source: Option<&SourceConfig>, context: &BuildContext) -> Self {
        let lent = if config.url.is_none() { source } else { None };
        let url = config.url.as_ref().or(lent.map(|source| &source.url));
        let tls = config.tls.as_deref().or(lent.and_then(|source| source.tls.as_deref()));
        let endpoint = match url {
            Some(url) => Endpoint::new(
                url,
                tls,
                config.heartbeat,
                config.connection_timeout,
                &context.base_dir,
                format!("sluicegate {} dead letters", context.pipeline),
            ),
            None => Err(Failure::permanent(
                "rabbitmq dead letters: no `url`, and the pipeline's source is not RabbitMQ: give one",
            )),
        };
        Self {
            exchange: config.declared_exchange(),
            queue: config.queue_name().to_owned(),
            config: config.clone(),
            pipeline: Arc::clone(&context.pipeline),
            endpoint,
            open: Mutex::new(Arc::new(OnceCell::new())),
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Publisher, Failure> {
        let publisher = Publisher::open(endpoint, true, self.config.publish_timeout.0).await?;
        let binding = BindingConfig { pattern: self.config.binding_pattern(), ..BindingConfig::default() };
        let topology = Topology {
            declare: self.config.declare,
            exchange: Some(&self.exchange),
            queue: Some((&self.queue, &self.config.queue_options)),
            message_ttl: None,
            bindings: &[binding],
        };
        let declared = topology.declare(publisher.connection(), endpoint);
        endpoint.within_timeout("declaring the dead-letter exchange and queue", declared).await?;
        Ok(publisher)
    }

    fn cell(&self) -> Arc<OnceCell<Publisher>> {
        Arc::clone(&self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives up a connection, unless somebody else has replaced it already.
    fn forget(&self, cell: &Arc<OnceCell<Publisher>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&open, cell) {
            *open = Arc::new(OnceCell::new());
        }
    }

    fn publication(&self, letter: &DeadLetter, frame_max_bytes: u32) -> Result<Publication, Failure> {
        let with_headers = self.properties(letter, true).and_then(|properties| properties.finish(frame_max_bytes));
        let properties = with_headers.or_else(|why| {
            tracing::warn!(
                system = "rabbitmq",
                dead_letter.id = letter.id,
                why,
                "a dead letter is published without its original headers; the built-in dead-letter store has them"
            );
            self.properties(letter, false).and_then(|properties| properties.finish(frame_max_bytes))
        });
        let failed = |why: String| Failure::permanent(format!("publishing dead letter {}: {why}", letter.id));
        let original_key = letter.original.headers.text(ROUTING_KEY);
        let routing_key = self.config.routing_key.as_deref().or(original_key).unwrap_or(&self.pipeline);
        Ok(Publication {
            exchange: short(&self.exchange.name, "exchange")?,
            routing_key: short(routing_key, "routing key")?,
            properties: properties.map_err(failed)?,
            body: letter.original.body.bytes().clone(),
        })
    }

    fn properties(&self, letter: &DeadLetter, with_headers: bool) -> Result<Properties, String> {
        let outgoing = Outgoing { persistent: true, expires: false, ttl: None, cloud_events: false };
        let original = &letter.original;
        let mut made = outgoing.properties(original)?;
        if !with_headers {
            made.remove(|_| true);
        }
        let header = |name: &str| original.headers.get(name).map(|value| value.to_vec()).unwrap_or_default();
        made.set("x-error", shortened(&letter.error, MAX_ERROR_BYTES))?;
        made.set(ORIGINAL_EXCHANGE, header(EXCHANGE))?;
        made.set(ORIGINAL_ROUTING_KEY, header(ROUTING_KEY))?;
        made.set("x-failed-at", print_time(letter.failed_at_ms))?;
        let attempts = letter.attempts.iter().map(|attempt| attempt.number).fold(original.attempt, u32::max);
        made.set_number(&self.config.retry_header, i64::from(attempts.saturating_sub(1)))?;
        made.set("x-sluicegate-id", letter.id.as_str())?;
        made.set("x-sluicegate-pipeline", &*letter.pipeline)?;
        made.set("x-sluicegate-class", letter.class.name())?;
        made.set("x-sluicegate-config-version", &*letter.config_version)?;
        made.set_number("x-sluicegate-redrive-count", letter.redrive_count.into())?;
        let optional = [
            ("x-sluicegate-step", letter.step.as_deref()),
            ("x-sluicegate-target", letter.target.as_deref()),
            ("x-sluicegate-plugin", letter.plugin.as_deref()),
            ("x-sluicegate-plugin-digest", letter.plugin_digest.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                made.set(name, value)?;
            }
        }
        Ok(made)
    }
}

#[async_trait]
impl DeadLetters for RabbitmqDeadLetters {
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        let endpoint = self.endpoint.as_ref().map_err(Clone::clone)?;
        let cell = self.cell();
        let publisher = cell.get_or_try_init(|| self.connect(endpoint)).await?;
        let publication = self.publication(letter, publisher.frame_max_bytes())?;
        let result = publisher.publish(std::slice::from_ref(&publication)).await.into_iter().next();
        let Some(Err(rejection)) = result else { return Ok(()) };
        // Exchange or queue may have been deleted: the next call connects and declares them again.
        self.forget(&cell);
        let unroutable = matches!(rejection, Rejection::Unroutable(_));
        let what = format!(
            "a dead letter to exchange `{}` with routing key `{}`",
            self.exchange.name, publication.routing_key
        );
        let failure = rejection.into_failure(&what, endpoint, self.timeout());
        // Nothing may be given up here: a dead letter that cannot be published is tried until it can.
        let kind = if unroutable { FailureKind::Transient { retry_after: None } } else { failure.kind };
        Err(Failure { kind, ..failure })
    }
}

impl RabbitmqDeadLetters {
    fn timeout(&self) -> Duration {
        self.config.publish_timeout.0
    }
}

/// The start of a text, at most `max` bytes, whole characters.
fn shortened(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_between_characters() {
        assert_eq!(shortened("äö", 3), "ä");
        assert_eq!(shortened("ab", 3), "ab");
        assert_eq!(shortened("", 3), "");
    }
}
