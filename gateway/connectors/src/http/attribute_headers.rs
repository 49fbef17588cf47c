//! CloudEvents attributes as HTTP headers: `ce-` before the name, the value percent-encoded (HTTP protocol binding
//! 1.0.2, section 3.1.3).

use http::{HeaderMap, HeaderName, HeaderValue};
use sluicegate_engine::message::Message;

use crate::cloudevents::{Draft, attributes};

/// Before the name of every attribute that is a header.
pub(super) const PREFIX: &str = "ce-";

/// The attribute that is the header `Content-Type` instead.
const CONTENT_TYPE_ATTRIBUTE: &str = "datacontenttype";

/// Reads the attributes of a request in binary mode; mistakes are kept in the draft.
pub(super) fn read(headers: &HeaderMap, content_type: Option<&str>) -> Draft {
    let mut draft = Draft::new();
    if let Some(content_type) = content_type {
        draft.set(CONTENT_TYPE_ATTRIBUTE, content_type);
    }
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if attribute == CONTENT_TYPE_ATTRIBUTE {
            draft.refuse(attribute, "has no header of its own in binary mode: it is `content-type`");
            continue;
        }
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => match decode_value(value.as_bytes()) {
                Ok(text) => draft.set(attribute, &text),
                Err(problem) => draft.refuse(attribute, problem),
            },
            _ => draft.refuse(attribute, "comes more than once"),
        }
    }
    draft
}

/// Writes the attributes of a message for a request in binary mode. Left out are those whose name or value no header
/// can have, which `attributes` does not produce.
pub(super) fn write(message: &Message, headers: &mut HeaderMap) {
    for (name, text) in attributes(message) {
        if name == CONTENT_TYPE_ATTRIBUTE {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert(http::header::CONTENT_TYPE, value);
            }
            continue;
        }
        let header = HeaderName::from_bytes(format!("{PREFIX}{name}").as_bytes());
        let value = HeaderValue::from_str(&encode_value(&text));
        if let (Ok(header), Ok(value)) = (header, value) {
            headers.insert(header, value);
        }
    }
}

/// Percent-encodes the UTF-8 of what is not printable ASCII, and of space, `"` and `%`.
pub(super) fn encode_value(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | ..=b' ' | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

/// Undoes double quotes, then one round of percent-encoding.
pub(super) fn decode_value(value: &[u8]) -> Result<String, &'static str> {
    if !value.iter().all(|b| (b' '..=b'~').contains(b)) {
        return Err("has bytes other than printable ASCII; percent-encode them");
    }
    let unquoted = unquote(value.trim_ascii());
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err("has a `%` without two hex digits after it; write `%25` for the character itself"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 once its percent-encoding is undone")
}

/// RFC 9110, 5.6.4; the value as it is when it is not a quoted string.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut plain = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for &byte in inner {
        if byte == b'\\' && !escaped {
            escaped = true;
        } else {
            plain.push(byte);
            escaped = false;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_shows() {
        assert_eq!(encode_value("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encode_value("100% \"x\"\u{7f}"), "100%25%20%22x%22%7F");
        assert_eq!(decode_value(b"Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Ok("Euro € 😀"));
        assert_eq!(decode_value(br#""a \"b\" %41""#).as_deref(), Ok("a \"b\" A"));
        assert_eq!(decode_value(b"%2541").as_deref(), Ok("%41"), "one round only");
    }

    #[test]
    fn impossible_values_are_refused() {
        for bad in [&b"%"[..], b"%4", b"%GG", b"\xe2\x82\xac", b"%FF", b"tab\there"] {
            assert!(decode_value(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repeated_attributes_and_a_misplaced_content_type_are_refused() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("ce-id", "1"), ("ce-id", "2"), ("ce-datacontenttype", "text/plain")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let error = read(&headers, None).finish("".into()).unwrap_err();
        let mut pointers: Vec<_> = error.problems.iter().map(|p| p.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/datacontenttype", "/id", "/source", "/specversion", "/type"]);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,40}") {
            let encoded = encode_value(&text);
            prop_assert!(HeaderValue::from_str(&encoded).is_ok());
            prop_assert_eq!(decode_value(encoded.as_bytes()), Ok(text));
        }

        #[test]
        fn no_bytes_panic(value: Vec<u8>) {
            if let Ok(text) = decode_value(&value) {
                prop_assert!(text.len() <= value.len());
            }
        }

        #[test]
        fn a_message_comes_back_through_headers(message in crate::arbitrary::message()) {
            let mut headers = HeaderMap::new();
            write(&message, &mut headers);
            let content_type = headers.get("content-type").map(|v| String::from_utf8(v.as_bytes().to_vec()).unwrap());
            let back = read(&headers, content_type.as_deref()).finish(message.body.clone()).unwrap();
            prop_assert_eq!(back, message);
        }
    }
}
