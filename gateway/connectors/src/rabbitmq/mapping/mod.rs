//! How an AMQP message becomes a [`Message`](sluicegate_engine::message::Message) and back.
//!
//! | message | AMQP, in order of preference when read | AMQP as written |
//! |---|---|---|
//! | id | header `cloudEvents:id`, property `message_id`, `id` of the envelope, a digest of the content | `message_id` |
//! | kind | header `cloudEvents:type`, property `type`, `type` of the envelope, the routing key | `type` |
//! | source | header `cloudEvents:source`, property `app_id`, `source` of the envelope, the pipeline's name | `app_id` |
//! | time | header `cloudEvents:time`, property `timestamp` (seconds), `timestamp` or `time` of the envelope, now | `timestamp`; milliseconds in header `cloudEvents:time` |
//! | correlation id | property `correlation_id`, header `cloudEvents:correlationid`, `correlationId` of the envelope | `correlation_id` |
//! | content type | property `content_type`, header `cloudEvents:datacontenttype` | `content_type` |
//! | subject | header `cloudEvents:subject`, `subject` of the envelope | header `cloudEvents:subject` |
//! | key | header `cloudEvents:partitionkey`, header `key` | header `key` |
//! | expiry | header `cloudEvents:expirytime`, property `expiration` (milliseconds from now) | both |
//! | deliver-at | header `cloudEvents:deliverytime` | header `cloudEvents:deliverytime` |
//! | trace | headers `traceparent`, `tracestate` | the same |
//! | attempt | the retry header (`x-retry-count`) and one | the retry header, when parked for a retry only |
//! | headers | all other headers | headers |
//! | body | body, byte for byte | body, byte for byte |
//!
//! * The prefix of CloudEvents headers is read as `cloudEvents:` or `cloudEvents_` (CloudEvents AMQP binding, section 3.1.3);
//!   an extension attribute becomes the header of its name. A property of more than 255 bytes is written as the
//!   `cloudEvents:` header of the same row. `cloudEvents:specversion` is read and dropped. A target set to
//!   `cloud_events: true` writes all [attributes](crate::cloudevents) as `cloudEvents:` headers besides.
//! * The *envelope* is a body that is a JSON object with the strings `id` and `type` (requirement A2, or a structured
//!   CloudEvent). It is looked at only where `message_id` or `type` is missing, and stays in the body untouched.
//! * A message without any id gets one made of its content, so that a redelivery has the same; two messages without id,
//!   the same in every byte and to the second, then share it.
//! * Headers are bytes: numbers, booleans and timestamps (seconds) become decimal text, tables and mixed arrays JSON text; an
//!   array of strings becomes a repeated header. All are written back as strings, repeats as an array. An AMQP table has no
//!   order and each name once, so the order among different names is lost.
//! * What has no place in a message is kept in headers: `amqp-exchange` and `amqp-routing-key` (how the message came),
//!   `amqp-redelivered`, `amqp-priority`, `amqp-reply-to`, `amqp-content-encoding`, `amqp-user-id`. Written back are only
//!   priority, reply-to and content encoding; the others describe a hop that is over. `delivery_mode` is the target's
//!   setting `persistent`; `cluster_id` is dropped.
//! * A timestamp beyond the year 5138 is one in milliseconds, as some client libraries send it.

mod field;
mod incoming;
mod outgoing;

#[cfg(test)]
mod tests;

pub(super) use incoming::{Arrival, Incoming};
pub(super) use outgoing::{Outgoing, Properties};

/// The exchange the message came through; empty for the default exchange.
pub(super) const EXCHANGE: &str = "amqp-exchange";
/// The routing key the message came with.
pub(super) const ROUTING_KEY: &str = "amqp-routing-key";
/// `true` on a message the broker has delivered before.
pub(super) const REDELIVERED: &str = "amqp-redelivered";
/// The exchange a message came through before it waited in a delay queue or became a dead letter.
pub(super) const ORIGINAL_EXCHANGE: &str = "x-original-exchange";
/// The routing key to go with it.
pub(super) const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";

const PRIORITY: &str = "amqp-priority";
const REPLY_TO: &str = "amqp-reply-to";
const CONTENT_ENCODING: &str = "amqp-content-encoding";
const USER_ID: &str = "amqp-user-id";
const KEY: &str = "key";
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// Headers that say how a message came to this gateway: set by the source, never taken from outside, never written.
const HOP: [&str; 4] = [EXCHANGE, ROUTING_KEY, REDELIVERED, USER_ID];

/// The name of a CloudEvents attribute, if `header` is one.
fn attribute(header: &str) -> Option<&str> {
    header.strip_prefix("cloudEvents:").or_else(|| header.strip_prefix("cloudEvents_"))
}
