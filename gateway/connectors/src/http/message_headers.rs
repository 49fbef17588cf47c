//! Which headers travel with a message, in and out.
//!
//! A request's headers become the message's headers but for those that speak about the connection, the framing or the
//! sender's credentials, or that have a field of their own in the message. The same list keeps a message's headers from
//! steering a webhook's connection.

use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate_engine::message::Headers;

/// About one connection or one transfer (RFC 9110, 7.6.1), never about the message.
const HOP_BY_HOP: [&str; 16] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Meant for the gateway alone: credentials, and what the client wishes for the answer.
const FOR_THE_GATEWAY: [&str; 8] = [
    "accept",
    "accept-encoding",
    "authorization",
    "cookie",
    "idempotency-key",
    "set-cookie",
    "x-api-key",
    "x-service-token",
];

/// Fields of the message, not headers of it.
const FIELDS: [&str; 4] = ["content-type", "traceparent", "tracestate", "x-correlation-id"];

/// The message's headers of a request, in order, repeats kept. Names listed in `Connection` are left out as well.
pub(super) fn from_request(headers: &HeaderMap) -> Headers {
    let named_by_connection: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| {
            let name = name.as_str();
            !HOP_BY_HOP.contains(&name)
                && !FOR_THE_GATEWAY.contains(&name)
                && !FIELDS.contains(&name)
                && !named_by_connection.iter().any(|named| named == name)
        })
        .map(|(name, value)| (name.as_str(), bytes::Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

/// Whether a webhook's request never takes this header (in lower case) from a message or from the configuration: it
/// would break the framing, or it is set from the message or its signature.
pub(super) fn is_reserved_outgoing(name: &str) -> bool {
    HOP_BY_HOP.contains(&name) || FIELDS.contains(&name) || name.starts_with("ce-") || name.starts_with("webhook-")
}

/// Adds a message's headers to a webhook's request. Left out: reserved ones, credentials and agents of another hop,
/// and those that HTTP cannot carry (a name that is no token, a value with control characters).
pub(super) fn to_request(headers: &Headers, request: &mut HeaderMap) {
    for (name, value) in headers.iter() {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
        let its_own = name == http::header::USER_AGENT;
        if its_own || is_reserved_outgoing(name.as_str()) || FOR_THE_GATEWAY.contains(&name.as_str()) {
            continue;
        }
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_and_credentials_stay_behind_and_the_rest_comes_along() {
        let mut request = HeaderMap::new();
        for (name, value) in [
            ("host", "x"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("authorization", "Bearer hunter2"),
            ("cookie", "a=b"),
            ("content-type", "text/plain"),
            ("x-tag", "one"),
            ("x-tag", "two"),
            ("user-agent", "curl"),
        ] {
            request.append(name, HeaderValue::from_static(value));
        }
        request.append("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        let headers = from_request(&request);
        let mut got: Vec<_> = headers.iter().map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
        got.sort();
        assert_eq!(
            got,
            [
                ("user-agent".to_owned(), b"curl".to_vec()),
                ("x-bytes".to_owned(), b"\xff\xfe".to_vec()),
                ("x-tag".to_owned(), b"one".to_vec()),
                ("x-tag".to_owned(), b"two".to_vec()),
            ]
        );
    }

    #[test]
    fn a_message_cannot_steer_the_webhooks_connection() {
        let headers: Headers = [
            ("Content-Length", "1"),
            ("transfer-encoding", "chunked"),
            ("webhook-signature", "v1,x"),
            ("ce-id", "x"),
            ("Authorization", "x"),
            ("no token", "x"),
            ("x-line", "a\r\nhost: b"),
            ("X-Good", "yes"),
        ]
        .into_iter()
        .collect();
        let mut request = HeaderMap::new();
        to_request(&headers, &mut request);
        assert_eq!(request.len(), 1);
        assert_eq!(request["x-good"], "yes");
    }
}
