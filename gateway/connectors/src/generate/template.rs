//! Texts with placeholders: `{{n}}` the message's number, `{{n % 10}}` its remainder, `{{uuid}}` a new UUID (version 7),
//! `{{now}}` milliseconds since the Unix epoch.

use std::fmt::Write;

use serde_json::Value;
use sluicegate_engine::message::now_ms;
use uuid::Uuid;

use crate::json_text;

/// A text with placeholders, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Number,
    /// Never by 0.
    Remainder(u64),
    Uuid,
    Now,
}

impl Template {
    /// A plain text.
    ///
    /// # Errors
    /// Which placeholder is not known.
    pub fn text(text: &str) -> Result<Self, String> {
        Ok(Self(pieces(text)?))
    }

    /// Any JSON with placeholders in its strings. A string that is `{{n}}`, `{{n % 10}}` or `{{now}}` alone becomes a
    /// number.
    ///
    /// # Errors
    /// Which placeholder is not known.
    pub fn json(value: &Value) -> Result<Self, String> {
        let mut template = Self(Vec::new());
        template.add_json(value)?;
        Ok(template)
    }

    /// A JSON object of exactly `size_bytes` bytes, or a few more if they are too few to hold the number.
    pub(super) fn of_size(n: u64, size_bytes: usize) -> String {
        let start = format!(r#"{{"n":{n},"filler":""#);
        let filler = size_bytes.saturating_sub(start.len() + 2);
        let mut body = String::with_capacity(size_bytes);
        body.push_str(&start);
        body.extend(std::iter::repeat_n('x', filler));
        body.push_str("\"}");
        body
    }

    /// The text for message number `n`.
    pub fn fill(&self, n: u64) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            // Writing to a string cannot fail.
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Number => write!(text, "{n}").unwrap_or_default(),
                Piece::Remainder(divisor) => write!(text, "{}", n % divisor).unwrap_or_default(),
                Piece::Uuid => write!(text, "{}", Uuid::now_v7()).unwrap_or_default(),
                Piece::Now => write!(text, "{}", now_ms()).unwrap_or_default(),
            }
        }
        text
    }

    fn add_json(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal(&value.to_string()),
            Value::String(text) => match pieces(text)?.as_slice() {
                [number @ (Piece::Number | Piece::Remainder(_) | Piece::Now)] => self.0.push(number.clone()),
                pieces => {
                    self.literal("\"");
                    for piece in pieces {
                        match piece {
                            Piece::Literal(text) => {
                                let quoted = json_text::string(text);
                                self.literal(&quoted[1..quoted.len() - 1]);
                            }
                            Piece::Number | Piece::Remainder(_) | Piece::Uuid | Piece::Now => {
                                self.0.push(piece.clone())
                            }
                        }
                    }
                    self.literal("\"");
                }
            },
            Value::Array(items) => {
                self.literal("[");
                for (index, item) in items.iter().enumerate() {
                    self.literal(if index > 0 { "," } else { "" });
                    self.add_json(item)?;
                }
                self.literal("]");
            }
            Value::Object(members) => {
                self.literal("{");
                for (index, (name, member)) in members.iter().enumerate() {
                    self.literal(if index > 0 { "," } else { "" });
                    self.literal(&json_text::string(name));
                    self.literal(":");
                    self.add_json(member)?;
                }
                self.literal("}");
            }
        }
        Ok(())
    }

    fn literal(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Literal(last)) => last.push_str(text),
            _ => self.0.push(Piece::Literal(text.to_owned())),
        }
    }
}

fn pieces(mut text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while let Some(open) = text.find("{{") {
        if open > 0 {
            pieces.push(Piece::Literal(text[..open].to_owned()));
        }
        let rest = &text[open + 2..];
        let close = rest.find("}}").ok_or_else(|| format!("`{{{{` without `}}}}` in `{text}`"))?;
        pieces.push(placeholder(rest[..close].trim())?);
        text = &rest[close + 2..];
    }
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
    Ok(pieces)
}

fn placeholder(name: &str) -> Result<Piece, String> {
    if let Some((left, divisor)) = name.split_once('%')
        && left.trim() == "n"
    {
        return match divisor.trim().parse() {
            Ok(divisor) if divisor > 0 => Ok(Piece::Remainder(divisor)),
            _ => Err(format!("`{{{{{name}}}}}` does not divide by a whole number above 0")),
        };
    }
    match name {
        "n" => Ok(Piece::Number),
        "uuid" => Ok(Piece::Uuid),
        "now" => Ok(Piece::Now),
        _ => Err(format!("`{{{{{name}}}}}` is no placeholder")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::arbitrary;

    #[test]
    fn placeholders_are_filled_in() {
        let template = Template::text("a-{{n}}-{{ n % 10 }}{{n%3}}").expect("a template");
        assert_eq!(template.fill(25), "a-25-51");
        let uuids = Template::text("{{uuid}}").expect("a template");
        assert_ne!(uuids.fill(1), uuids.fill(1));
    }

    #[test]
    fn a_placeholder_alone_is_a_number_in_json() {
        let value = json!({ "id": "o-{{n}}", "n": "{{n}}", "quoted\"{{": ["{{n % 2}}", "say \"{{n}}\"", null, 1.5, "{{uuid}}"] });
        let filled: Value = serde_json::from_str(&Template::json(&value).expect("a template").fill(3)).expect("JSON");
        assert_eq!(filled["id"], json!("o-3"));
        assert_eq!(filled["n"], json!(3));
        assert_eq!(filled["quoted\"{{"][0], json!(1));
        assert_eq!(filled["quoted\"{{"][1], json!("say \"3\""));
        assert_eq!(filled["quoted\"{{"][4].as_str().map(str::len), Some(36));
    }

    #[test]
    fn unknown_placeholders_are_told() {
        for text in ["{{m}}", "{{n % 0}}", "{{n % x}}", "{{n", "{{}}", "{{m % 2}}"] {
            assert!(Template::text(text).is_err(), "{text}");
        }
        assert_eq!(Template::text("}} { {").expect("no placeholder").fill(1), "}} { {");
    }

    #[test]
    fn a_body_of_a_size_has_it_and_is_json() {
        for size in [32, 33, 1_024, 70_000] {
            let body = Template::of_size(12_345, size);
            assert_eq!(body.len(), size);
            assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["n"], json!(12_345));
        }
    }

    proptest! {
        #[test]
        fn json_without_placeholders_stays_what_it_is(value in arbitrary::any_json()) {
            if let Ok(template) = Template::json(&value) {
                let filled: Value = serde_json::from_str(&template.fill(1)).expect("JSON");
                let has_placeholder = value.to_string().contains("{{");
                prop_assert!(filled == value || has_placeholder);
            }
        }
    }
}
