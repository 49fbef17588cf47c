//! JSON as text: what parsing would lose (the digits of a number, the order of repeated keys) stays as it was written.
//!
//! Every function here expects text that a parser has accepted already; on any other text the answer is unspecified,
//! but there is no panic.

use serde_json::Value;

/// Whether a media type says JSON: `application/json`, `text/json` or anything ending in `+json`, parameters ignored.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// The same JSON without whitespace between its tokens: one line, since strings cannot hold a raw line break.
pub fn compact(json: &[u8]) -> Vec<u8> {
    let mut compacted = Vec::with_capacity(json.len());
    let mut strings = InString::default();
    for &byte in json {
        if strings.step(byte) || !byte.is_ascii_whitespace() {
            compacted.push(byte);
        }
    }
    compacted
}

/// How deep arrays and objects nest: 0 for a scalar.
pub fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut strings = InString::default();
    for &byte in json {
        if strings.step(byte) {
            continue;
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The text of the value of member `name` of an object; of the last one where the name repeats, as parsers do.
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    items(object)
        .into_iter()
        .rev()
        .find_map(|item| split_member(item).filter(|(key, _)| *key == *name).map(|(_, value)| value))
}

/// The texts of the elements of an array.
pub fn elements(array: &[u8]) -> Vec<&[u8]> {
    items(array)
}

/// A JSON string literal with `text` in it.
pub fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// What stands between the outermost brackets, split at the commas of that level.
fn items(json: &[u8]) -> Vec<&[u8]> {
    let json = json.trim_ascii();
    let Some(inner) = json.get(1..json.len().saturating_sub(1)) else { return Vec::new() };
    let (mut items, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    let mut strings = InString::default();
    for (at, &byte) in inner.iter().enumerate() {
        if strings.step(byte) {
            continue;
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                items.push(inner[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = inner[start..].trim_ascii();
    if !last.is_empty() {
        items.push(last);
    }
    items
}

fn split_member(item: &[u8]) -> Option<(String, &[u8])> {
    let mut strings = InString::default();
    let colon = item.iter().position(|&byte| !strings.step(byte) && byte == b':')?;
    let key = serde_json::from_slice(item[..colon].trim_ascii()).ok()?;
    Some((key, item[colon + 1..].trim_ascii()))
}

/// Follows string literals from byte to byte.
#[derive(Default)]
struct InString {
    inside: bool,
    escaped: bool,
}

impl InString {
    /// Whether `byte`, the next one, belongs to a string literal, its quotes included.
    fn step(&mut self, byte: u8) -> bool {
        if !self.inside {
            self.inside = byte == b'"';
            return self.inside;
        }
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.inside = false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    #[test]
    fn compacting_keeps_numbers_and_strings_as_written() {
        let json = b" { \"a b\" : [ 1.10 , 12345678901234567890123 ] ,\n\t\"q\\\" \" : \"x , y\" } ";
        assert_eq!(
            String::from_utf8(compact(json)).expect("UTF-8"),
            r#"{"a b":[1.10,12345678901234567890123],"q\" ":"x , y"}"#
        );
    }

    #[test]
    fn a_member_is_found_as_text_and_the_last_of_a_name_wins() {
        let json = br#"{ "x": {"data": 1}, "d\u0061ta" : [1.0, "}"] , "y": 2, "data": 3.00 }"#;
        assert_eq!(member(json, "data"), Some(&b"3.00"[..]));
        assert_eq!(member(json, "x"), Some(&br#"{"data": 1}"#[..]));
        assert_eq!(member(json, "z"), None);
        assert_eq!(member(br#"{"d\u0061ta":[1.0, "}"]}"#, "data"), Some(&br#"[1.0, "}"]"#[..]));
    }

    #[test]
    fn nothing_panics_on_text_that_is_not_json() {
        for text in ["", "{", "}", "\"", "{\"a", "[,", "{:}", "{\"a\":"] {
            let _: Vec<u8> = compact(text.as_bytes());
            assert_eq!(member(text.as_bytes(), "zz"), None, "{text}");
        }
        assert!(elements(b"[]").is_empty());
        assert!(elements(b" [ ] ").is_empty());
    }

    #[test]
    fn media_types_of_json_are_known() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "text/json"] {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["text/plain", "application/jsonl", "", "application/xml"] {
            assert!(!is_json(no), "{no}");
        }
    }

    proptest! {
        #[test]
        fn members_and_elements_match_the_parser(value in arbitrary::object(), pretty: bool) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let parsed: Value = serde_json::from_str(&text).expect("JSON");
            for (name, expected) in parsed.as_object().expect("object") {
                let found = member(text.as_bytes(), name).expect("member");
                prop_assert_eq!(&serde_json::from_slice::<Value>(found).expect("JSON"), expected);
                if let Some(array) = expected.as_array() {
                    prop_assert_eq!(elements(found).len(), array.len());
                }
            }
            prop_assert_eq!(serde_json::from_slice::<Value>(&compact(text.as_bytes())).expect("JSON"), parsed);
        }
    }
}
