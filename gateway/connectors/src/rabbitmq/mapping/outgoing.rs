//! From a message to AMQP.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use sluicegate_engine::message::Message;

use super::{CONTENT_ENCODING, HOP, KEY, PRIORITY, REPLY_TO, TRACE_PARENT, TRACE_STATE};
use crate::cloudevents::{HEADER_LIST, attributes, print_time};

/// What a content header frame holds besides properties: frame header and end, class, weight, body size, flags.
const FRAME_OVERHEAD_BYTES: usize = 8 + 14 + 4;

/// What is the same for all messages of a target.
#[derive(Debug, Clone, Copy)]
pub(in crate::rabbitmq) struct Outgoing {
    /// Kept on disk by the broker.
    pub persistent: bool,
    /// Whether the property `expiration` is written. Not for messages that wait in a queue of their own.
    pub expires: bool,
    /// Longest stay in a queue, besides the message's own expiry.
    pub ttl: Option<Duration>,
    /// Whether to write the CloudEvents attributes as headers, too.
    pub cloud_events: bool,
}

/// Properties in the making.
pub(in crate::rabbitmq) struct Properties {
    properties: BasicProperties,
    headers: BTreeMap<ShortString, AMQPValue>,
    /// Of the properties but for the headers.
    size_bytes: usize,
}

impl Outgoing {
    /// The properties of a message, by the table of the [module](super).
    ///
    /// # Errors
    /// What cannot be expressed in AMQP: a header name of more than 255 bytes, an expiry that has passed.
    pub fn properties(&self, message: &Message) -> Result<Properties, String> {
        let mut made = Properties {
            properties: BasicProperties::default().with_delivery_mode(if self.persistent { 2 } else { 1 }),
            headers: BTreeMap::new(),
            size_bytes: 0,
        };
        for (name, value) in message.headers.iter() {
            if !HOP.contains(&name) && !made.take_property(name, value) {
                made.append(name, value)?;
            }
        }
        made.identify(message)?;
        made.time(message)?;
        if let Some(subject) = &message.subject {
            made.set("cloudEvents:subject", subject.as_str())?;
        }
        if let Some(key) = &message.key {
            made.set(KEY, key.to_vec())?;
        }
        if let Some(at_ms) = message.deliver_at_ms {
            made.set("cloudEvents:deliverytime", print_time(at_ms))?;
        }
        if let Some(parent) = &message.trace_parent {
            made.set(TRACE_PARENT, parent.as_str())?;
        }
        if let Some(state) = &message.trace_state {
            made.set(TRACE_STATE, state.as_str())?;
        }
        if self.cloud_events {
            for (attribute, text) in attributes(message) {
                // Header values and keys may be any bytes here.
                if ![HEADER_LIST, "partitionkeybase64"].contains(&attribute) && !HOP.contains(&attribute) {
                    made.set(&format!("cloudEvents:{attribute}"), &*text)?;
                }
            }
        }
        self.expire(&mut made, message)?;
        Ok(made)
    }

    fn expire(&self, made: &mut Properties, message: &Message) -> Result<(), String> {
        if let Some(at_ms) = message.expires_at_ms {
            made.set("cloudEvents:expirytime", print_time(at_ms))?;
        }
        if !self.expires {
            return Ok(());
        }
        let left = message.time_to_live();
        // The broker drops such a message without a word.
        if left.is_some_and(|left| left.is_zero()) {
            return Err("the message has expired".to_owned());
        }
        if let Some(wait) = left.into_iter().chain(self.ttl).min() {
            // RabbitMQ takes at most 2^32 - 1 milliseconds, 49 days.
            let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            made.with(|properties, text| properties.with_expiration(text), &millis.to_string());
        }
        Ok(())
    }
}

impl Properties {
    /// Replaces a header.
    ///
    /// # Errors
    /// If the name is longer than 255 bytes.
    pub fn set(&mut self, name: &str, value: impl Into<LongString>) -> Result<(), String> {
        let value = value.into();
        let name = header_name(name)?;
        self.headers.insert(name, AMQPValue::LongString(value));
        Ok(())
    }

    /// Replaces a header by a whole number.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_number(&mut self, name: &str, number: i64) -> Result<(), String> {
        let name = header_name(name)?;
        self.headers.insert(name, AMQPValue::LongLongInt(number));
        Ok(())
    }

    /// Takes headers out.
    pub fn remove(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.headers.retain(|name, _| !unwanted(name.as_str()));
    }

    /// The properties, if they fit into one frame, as AMQP demands: a broker answers larger ones by ending the connection.
    ///
    /// # Errors
    /// How large they are and may be.
    pub fn finish(self, frame_max_bytes: u32) -> Result<BasicProperties, String> {
        let limit = usize::try_from(frame_max_bytes).unwrap_or(usize::MAX).saturating_sub(FRAME_OVERHEAD_BYTES);
        let headers_bytes: usize =
            self.headers.iter().map(|(name, value)| 1 + name.as_str().len() + encoded(value)).sum();
        let size_bytes = self.size_bytes + headers_bytes;
        if size_bytes > limit {
            return Err(format!(
                "the headers have {size_bytes} bytes, the broker takes at most {limit} (its `frame_max`): send less in headers"
            ));
        }
        if self.headers.is_empty() {
            return Ok(self.properties);
        }
        Ok(self.properties.with_headers(FieldTable::from(self.headers)))
    }

    /// Id, kind, source, content type, correlation id: as property if short enough, otherwise as CloudEvents header.
    fn identify(&mut self, message: &Message) -> Result<(), String> {
        type Setter = fn(BasicProperties, ShortString) -> BasicProperties;
        let rows: [(&str, Option<&str>, Setter); 5] = [
            ("cloudEvents:id", Some(&message.id), BasicProperties::with_message_id),
            ("cloudEvents:type", Some(&message.kind), BasicProperties::with_type),
            ("cloudEvents:source", Some(&message.source), BasicProperties::with_app_id),
            ("cloudEvents:datacontenttype", message.content_type.as_deref(), BasicProperties::with_content_type),
            ("cloudEvents:correlationid", message.correlation_id.as_deref(), BasicProperties::with_correlation_id),
        ];
        for (attribute, text, setter) in rows {
            let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
            if !self.with(setter, text) {
                self.set(attribute, text)?;
            }
        }
        Ok(())
    }

    fn time(&mut self, message: &Message) -> Result<(), String> {
        let properties = std::mem::take(&mut self.properties);
        self.properties = properties.with_timestamp(message.time_ms / 1_000);
        self.size_bytes += 8;
        if !message.time_ms.is_multiple_of(1_000) {
            self.set("cloudEvents:time", print_time(message.time_ms))?;
        }
        Ok(())
    }

    /// Takes a header that stands for a property; says whether it did.
    fn take_property(&mut self, name: &str, value: &Bytes) -> bool {
        let Ok(text) = std::str::from_utf8(value) else { return false };
        match name {
            PRIORITY => match text.parse() {
                Ok(priority) => {
                    let properties = std::mem::take(&mut self.properties);
                    self.properties = properties.with_priority(priority);
                    true
                }
                Err(_) => false,
            },
            REPLY_TO => self.with(BasicProperties::with_reply_to, text),
            CONTENT_ENCODING => self.with(BasicProperties::with_content_encoding, text),
            _ => false,
        }
    }

    /// Sets a property if `text` is short enough; says whether it was.
    fn with(&mut self, setter: impl Fn(BasicProperties, ShortString) -> BasicProperties, text: &str) -> bool {
        let Ok(short) = ShortString::try_new(text) else { return false };
        self.size_bytes += text.len() + 1;
        self.properties = setter(std::mem::take(&mut self.properties), short);
        true
    }

    /// Adds a header; a repeated one becomes an array.
    fn append(&mut self, name: &str, value: &Bytes) -> Result<(), String> {
        let name = header_name(name)?;
        let value = AMQPValue::LongString(LongString::from(value.to_vec()));
        let value = match self.headers.remove(&name) {
            None => value,
            Some(AMQPValue::FieldArray(mut array)) => {
                array.push(value);
                AMQPValue::FieldArray(array)
            }
            Some(first) => AMQPValue::FieldArray(FieldArray::from(vec![first, value])),
        };
        self.headers.insert(name, value);
        Ok(())
    }
}

/// Bytes of a value of this module on the wire, its type included.
fn encoded(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 5 + text.len(),
        AMQPValue::FieldArray(values) => 5 + values.as_slice().iter().map(encoded).sum::<usize>(),
        // Numbers; nothing else is written.
        _ => 9,
    }
}

fn header_name(name: &str) -> Result<ShortString, String> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(32).collect();
        format!("the name of header `{start}…` has {} bytes, AMQP allows 255: rename it", name.len())
    })
}
