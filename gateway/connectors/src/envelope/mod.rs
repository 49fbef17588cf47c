//! The JSON envelope of requirement A2: `{id, type, timestamp, source, correlationId, data, metadata}`.
//!
//! | message | envelope |
//! |---|---|
//! | id, kind, source, correlation id | `id`, `type`, `source`, `correlationId` |
//! | time | `timestamp`: RFC 3339; milliseconds since the Unix epoch are read as well |
//! | body | `data`: the JSON text as it is; a string if it is text but not JSON; base64 if neither |
//! | a header with one value that is UTF-8 | the member of `metadata` with its name |
//! | all headers, if one of them is not like that | `metadata.$headers`, a list of `[name, text]` and `[name, base64, "base64"]` |
//! | subject, content type, key, expiry, deliver-at, trace context | `metadata.$subject`, `$contentType`, `$key` or `$keyBase64`, `$expiresAt`, `$deliverAt`, `traceparent`, `tracestate` |
//!
//! Without `$contentType` the body is `application/json`; other bodies have `$dataEncoding`: `text` or `base64`. Values
//! of `metadata` that are not strings become headers with their JSON text. The attempt is not part of an envelope.

mod decode;
mod encode;

use serde_json::Value;

pub use decode::decode;
pub use encode::encode;

const MEMBERS: [&str; 7] = ["id", "type", "timestamp", "source", "correlationId", "data", "metadata"];
const JSON: &str = "application/json";
/// Most members of `metadata`.
pub const MAX_METADATA: usize = 256;

/// Whether a JSON value is meant as an envelope: an object with `type`, `data`, at least one more of the seven members
/// and nothing else.
pub fn looks_like(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        object.len() >= 3
            && object.contains_key("type")
            && object.contains_key("data")
            && object.keys().all(|name| MEMBERS.contains(&name.as_str()))
    })
}

/// Members of `metadata` that are fields of a message, so that no header may use their names.
const RESERVED: [&str; 10] = [
    "$subject",
    "$contentType",
    "$key",
    "$keyBase64",
    "$expiresAt",
    "$deliverAt",
    "$headers",
    "$dataEncoding",
    "traceparent",
    "tracestate",
];

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

#[cfg(test)]
mod tests;
