//! The messages that are sent: JSON objects of one size, with the time at which they were sent.

use std::time::Instant;

/// The CloudEvents type of every message.
pub(super) const KIND: &str = "order.created";
/// The media type of every message.
pub(super) const CONTENT_TYPE: &str = "application/json";

const SENT: &str = "{\"sent_us\":";

/// A body of `body_bytes` bytes, or as few more as its fields need.
pub(super) fn body(number: u64, sent_us: u64, body_bytes: usize) -> Vec<u8> {
    let mut text = format!(
        "{SENT}{sent_us},\"id\":\"o-{number:010}\",\"test\":false,\"customer\":{{\"tier\":\"gold\"}},\"note\":\""
    );
    let end = "\"}";
    let padding = body_bytes.saturating_sub(text.len() + end.len());
    text.extend(std::iter::repeat_n('x', padding));
    text.push_str(end);
    text.into_bytes()
}

/// The stamp of a body.
pub(super) fn sent_us(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(SENT.as_bytes())?;
    let digits = rest.split(|byte| *byte == b',').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Microseconds since `start`, for a stamp.
pub(super) fn stamp_us(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_its_size_and_carries_its_stamp() {
        let stamp = stamp_us(Instant::now());
        for body_bytes in [128, 1_024, 4_096] {
            let body = body(7, stamp, body_bytes);
            assert_eq!(body.len(), body_bytes);
            let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(value["id"], "o-0000000007");
            assert_eq!(value["sent_us"], stamp);
            assert_eq!(sent_us(&body), Some(stamp));
        }
        assert_eq!(sent_us(b"{}"), None);
    }
}
