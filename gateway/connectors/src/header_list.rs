//! Headers as a JSON list, for mappings whose own places for headers cannot hold repeats, odd names or binary values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value;
use sluicegate_engine::message::Headers;

/// What a list that is refused is not.
pub(crate) const SHAPE: &str = r#"is not a JSON list of [name, text] and [name, base64, "base64"]"#;

/// `[name, text]` for values that are UTF-8, `[name, base64, "base64"]` for others, in order.
pub(crate) fn to_json(headers: &Headers) -> Value {
    headers
        .iter()
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => Value::from(vec![name, text]),
            Err(_) => Value::from(vec![name, &BASE64.encode(value), "base64"]),
        })
        .collect()
}

/// Reads such a list; `None` if it has another [`SHAPE`].
pub(crate) fn from_json(list: &Value) -> Option<Vec<(String, Bytes)>> {
    let entry = |entry: &Value| {
        let texts: Option<Vec<&str>> = entry.as_array()?.iter().map(Value::as_str).collect();
        match texts.as_deref() {
            Some([name, text]) => Some(((*name).to_owned(), Bytes::from((*text).to_owned()))),
            Some([name, encoded, "base64"]) => Some(((*name).to_owned(), BASE64.decode(encoded).ok()?.into())),
            _ => None,
        }
    };
    list.as_array()?.iter().map(entry).collect()
}
