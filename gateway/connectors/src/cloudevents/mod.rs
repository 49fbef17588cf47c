//! CloudEvents 1.0 in its JSON event format, and the context attributes that every CloudEvents mapping shares.
//!
//! | message | attribute |
//! |---|---|
//! | id, source, kind, subject, time | `id`, `source`, `type`, `subject`, `time` (RFC 3339, milliseconds, UTC) |
//! | content type | `datacontenttype` |
//! | key | `partitionkey`; `partitionkeybase64` if it is not printable UTF-8 |
//! | trace context, correlation id | `traceparent`, `tracestate`, `correlationid` |
//! | expiry, deliver-at | `expirytime`, `deliverytime` (RFC 3339) |
//! | a header with a legal attribute name, one value, printable UTF-8 | the extension attribute of that name |
//! | all headers, if one of them is not like that | also `sluicegateheaders`, see [`HEADER_LIST`] |
//! | body | `data`: the JSON text as it is, or a string if the content type is not JSON; else `data_base64` |
//!
//! The attempt is not part of an event: it starts at 1 where the event arrives.

mod attributes;
mod decode;
mod encode;
mod rfc3339;

use std::fmt;

pub use attributes::{Draft, HEADER_LIST, MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES, attributes};
pub use decode::{decode, decode_batch};
pub use encode::{encode, encode_batch};
pub use rfc3339::{parse as parse_time, print as print_time};

/// Media type of one event in JSON.
pub const EVENT_MEDIA_TYPE: &str = "application/cloudevents+json";
/// Media type of a JSON array of events.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

/// Why bytes are no event or envelope: everything that is wrong with them, not just the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// At least one.
    pub problems: Vec<FieldProblem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) to the offending attribute; empty for the whole.
    pub pointer: String,
    /// What is wrong with it.
    pub text: String,
}

impl FieldProblem {
    /// Both parts.
    pub fn new(pointer: impl Into<String>, text: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), text: text.into() }
    }

    /// With member `name` as the place.
    pub fn at(name: &str, text: impl Into<String>) -> Self {
        Self::new(format!("/{}", name.replace('~', "~0").replace('/', "~1")), text)
    }
}

impl DecodeError {
    /// The whole is wrong.
    pub fn whole(text: impl Into<String>) -> Self {
        Self { problems: vec![FieldProblem::new("", text)] }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            if problem.pointer.is_empty() {
                f.write_str(&problem.text)?;
            } else {
                write!(f, "{}: {}", problem.pointer, problem.text)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
