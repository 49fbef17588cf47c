//! From AMQP to a message.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sluicegate_engine::message::{Body, Headers, Message, now_ms};

use super::{
    CONTENT_ENCODING, EXCHANGE, HOP, KEY, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, PRIORITY, REDELIVERED, REPLY_TO,
    ROUTING_KEY, TRACE_PARENT, TRACE_STATE, USER_ID, attribute, field,
};
use crate::cloudevents::parse_time;

/// From here on a timestamp is one in milliseconds: the year 5138 in seconds, 1973 in milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// What is the same for all messages of a source.
#[derive(Debug, Clone)]
pub(in crate::rabbitmq) struct Incoming {
    /// The pipeline's name: source of messages that name none.
    pub pipeline: Arc<str>,
    /// The queue consumed.
    pub queue: String,
    /// Header that counts failed attempts.
    pub retry_header: String,
}

/// A message as the broker delivered it.
pub(in crate::rabbitmq) struct Arrival<'a> {
    pub exchange: &'a str,
    pub routing_key: &'a str,
    pub redelivered: bool,
    pub properties: &'a BasicProperties,
    pub body: Vec<u8>,
}

/// What the headers say apart from being headers.
#[derive(Default)]
struct Attributes {
    id: Option<String>,
    kind: Option<String>,
    source: Option<String>,
    subject: Option<String>,
    time_ms: Option<u64>,
    content_type: Option<String>,
    correlation_id: Option<String>,
    key: Option<Bytes>,
    expires_at_ms: Option<u64>,
    deliver_at_ms: Option<u64>,
    trace_parent: Option<String>,
    trace_state: Option<String>,
    retries: Option<u32>,
    original_exchange: Option<Bytes>,
    original_routing_key: Option<Bytes>,
}

impl Incoming {
    /// The message an arrival carries, by the table of the [module](super).
    pub fn message(&self, arrival: Arrival<'_>) -> Message {
        let Arrival { exchange, routing_key, redelivered, properties, body } = arrival;
        let parked = self.was_parked(exchange, routing_key, properties);
        let (mut attributes, mut headers) = self.split_headers(properties, parked);
        take_properties(&mut attributes, properties);
        let body = Body::from(body);
        if attributes.id.is_none() || attributes.kind.is_none() {
            take_envelope(&mut attributes, &body);
        }
        let id = attributes.id.take().unwrap_or_else(|| content_id(exchange, routing_key, properties, &body));
        let original_exchange =
            attributes.original_exchange.take().unwrap_or_else(|| Bytes::copy_from_slice(exchange.as_bytes()));
        let original_key =
            attributes.original_routing_key.take().unwrap_or_else(|| Bytes::copy_from_slice(routing_key.as_bytes()));
        let kind = attributes.kind.take().unwrap_or_else(|| String::from_utf8_lossy(&original_key).into_owned());
        headers.append(EXCHANGE, original_exchange);
        headers.append(ROUTING_KEY, original_key);
        if redelivered {
            headers.append(REDELIVERED, "true");
        }
        append_properties(&mut headers, properties);
        Message {
            id,
            source: attributes.source.unwrap_or_else(|| self.pipeline.to_string()),
            kind,
            subject: attributes.subject,
            time_ms: attributes.time_ms.unwrap_or_else(now_ms),
            content_type: attributes.content_type,
            key: attributes.key,
            headers,
            body,
            attempt: attributes.retries.map_or(1, |retries| retries.saturating_add(1)),
            expires_at_ms: attributes.expires_at_ms,
            deliver_at_ms: attributes.deliver_at_ms,
            trace_parent: attributes.trace_parent,
            trace_state: attributes.trace_state,
            correlation_id: attributes.correlation_id,
        }
    }

    /// Whether the message comes back from one of this source's delay queues, by way of the default exchange.
    fn was_parked(&self, exchange: &str, routing_key: &str, properties: &BasicProperties) -> bool {
        exchange.is_empty()
            && routing_key == self.queue
            && properties
                .headers()
                .as_ref()
                .is_some_and(|table| table.contains_key(&self.retry_header) && table.contains_key(ORIGINAL_EXCHANGE))
    }

    fn split_headers(&self, properties: &BasicProperties, parked: bool) -> (Attributes, Headers) {
        let mut attributes = Attributes::default();
        let mut headers = Headers::default();
        let Some(table) = properties.headers() else { return (attributes, headers) };
        for (name, value) in table {
            let name = name.as_str();
            if name == self.retry_header {
                attributes.retries = field::whole_number(value).and_then(|count| u32::try_from(count).ok());
            } else if HOP.contains(&name) || (parked && is_death(name)) {
                // Ours, or the broker's trace of the delay queue.
            } else if parked && name == ORIGINAL_EXCHANGE {
                attributes.original_exchange = field::string(value);
            } else if parked && name == ORIGINAL_ROUTING_KEY {
                attributes.original_routing_key = field::string(value);
            } else if !attributes.take(name, value) {
                let extension = attribute(name);
                if extension.is_some_and(|extension| table.contains_key(extension) || HOP.contains(&extension)) {
                    continue;
                }
                for value in field::values(value) {
                    headers.append(extension.unwrap_or(name), value);
                }
            }
        }
        (attributes, headers)
    }
}

impl Attributes {
    /// Takes a header that is an attribute of the message; says whether it did.
    fn take(&mut self, name: &str, value: &AMQPValue) -> bool {
        if name == KEY {
            // An attribute comes first, whichever the table's order.
            let first = field::values(value).into_iter().next();
            self.key = self.key.take().or(first);
            return true;
        }
        let place = match attribute(name).unwrap_or(name) {
            TRACE_PARENT => &mut self.trace_parent,
            TRACE_STATE => &mut self.trace_state,
            _ if attribute(name).is_none() => return false,
            "specversion" => return true,
            "id" => &mut self.id,
            "type" => &mut self.kind,
            "source" => &mut self.source,
            "subject" => &mut self.subject,
            "datacontenttype" => &mut self.content_type,
            "correlationid" => &mut self.correlation_id,
            "partitionkey" => {
                self.key = field::string(value);
                return self.key.is_some();
            }
            "time" => {
                self.time_ms = time_ms(value);
                return self.time_ms.is_some();
            }
            "deliverytime" => {
                self.deliver_at_ms = time_ms(value);
                return self.deliver_at_ms.is_some();
            }
            "expirytime" => {
                self.expires_at_ms = time_ms(value);
                return self.expires_at_ms.is_some();
            }
            _ => return false,
        };
        match field::string(value).and_then(|bytes| String::from_utf8(bytes.into()).ok()) {
            Some(text) if !text.is_empty() => {
                *place = Some(text);
                true
            }
            Some(_) | None => false,
        }
    }
}

/// Properties fill what CloudEvents headers left open; content type and correlation id are AMQP's own and go first.
fn take_properties(attributes: &mut Attributes, properties: &BasicProperties) {
    let text = |property: &Option<ShortString>| {
        property.as_ref().map(|text| text.as_str().to_owned()).filter(|text| !text.is_empty())
    };
    attributes.id = attributes.id.take().or_else(|| text(properties.message_id()));
    attributes.kind = attributes.kind.take().or_else(|| text(properties.kind()));
    attributes.source = attributes.source.take().or_else(|| text(properties.app_id()));
    attributes.content_type = text(properties.content_type()).or(attributes.content_type.take());
    attributes.correlation_id = text(properties.correlation_id()).or(attributes.correlation_id.take());
    attributes.time_ms = attributes.time_ms.or_else(|| {
        let stamp = (*properties.timestamp())?;
        Some(if stamp < MILLISECONDS_FROM { stamp * 1_000 } else { stamp })
    });
    attributes.expires_at_ms = attributes.expires_at_ms.or_else(|| {
        let millis: u64 = properties.expiration().as_ref()?.as_str().trim().parse().ok()?;
        Some(now_ms().saturating_add(millis))
    });
}

/// The envelope fills what is still open. The body is parsed at most once: a later step finds it parsed.
fn take_envelope(attributes: &mut Attributes, body: &Body) {
    if body.bytes().trim_ascii_start().first() != Some(&b'{') {
        return;
    }
    let Ok(json) = body.json() else { return };
    let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let (Some(id), Some(kind)) = (text("id"), text("type")) else { return };
    attributes.id.get_or_insert(id);
    attributes.kind.get_or_insert(kind);
    attributes.source = attributes.source.take().or_else(|| text("source"));
    attributes.subject = attributes.subject.take().or_else(|| text("subject"));
    attributes.correlation_id = attributes.correlation_id.take().or_else(|| text("correlationId"));
    attributes.time_ms = attributes.time_ms.or_else(|| {
        let stamp = json.get("timestamp").or_else(|| json.get("time"))?;
        stamp.as_u64().or_else(|| parse_time(stamp.as_str()?).ok())
    });
}

fn append_properties(headers: &mut Headers, properties: &BasicProperties) {
    if let Some(priority) = properties.priority() {
        headers.set(PRIORITY, priority.to_string());
    }
    let texts = [
        (REPLY_TO, properties.reply_to()),
        (CONTENT_ENCODING, properties.content_encoding()),
        (USER_ID, properties.user_id()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            headers.set(name, text.as_str().to_owned());
        }
    }
}

/// An id for a message that has none: the same for every redelivery (UUID version 8, RFC 9562).
fn content_id(exchange: &str, routing_key: &str, properties: &BasicProperties, body: &Body) -> String {
    let mut digest = Sha256::new();
    for part in [exchange.as_bytes(), routing_key.as_bytes(), &properties.timestamp().unwrap_or(0).to_be_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(body.bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(first).into_uuid().to_string()
}

/// The broker's own headers about messages that expired in a queue.
fn is_death(name: &str) -> bool {
    name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
}

fn time_ms(value: &AMQPValue) -> Option<u64> {
    match value {
        AMQPValue::Timestamp(seconds) => seconds.checked_mul(1_000),
        _ => parse_time(std::str::from_utf8(&field::string(value)?).ok()?).ok(),
    }
}
