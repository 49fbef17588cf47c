//! Routing keys made from messages: `orders.{kind}`.

use sluicegate_engine::message::Message;

/// Longest routing key AMQP can carry.
const MAX_ROUTING_KEY_BYTES: usize = 255;

/// A routing key with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutingKey(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Kind,
    Key,
    Subject,
    Id,
    Source,
    Header(String),
}

impl RoutingKey {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(template: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            let (text, after) = rest.split_at(open);
            push_text(&mut parts, text)?;
            let Some((name, behind)) = after[1..].split_once('}') else {
                return Err(format!("`{template}` has a `{{` without its `}}`"));
            };
            parts.push(Part::parse(name)?);
            rest = behind;
        }
        push_text(&mut parts, rest)?;
        Ok(Self(parts))
    }

    /// This text, whatever characters it has.
    pub fn verbatim(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// The key for `message`.
    ///
    /// # Errors
    /// What the message lacks, or that the key is longer than AMQP allows.
    pub fn fill(&self, message: &Message) -> Result<String, String> {
        let mut key = String::new();
        for part in &self.0 {
            key.push_str(part.of(message)?);
        }
        if key.len() > MAX_ROUTING_KEY_BYTES {
            return Err(format!("the routing key has {} bytes, AMQP allows {MAX_ROUTING_KEY_BYTES}", key.len()));
        }
        Ok(key)
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "kind" => Self::Kind,
            "key" => Self::Key,
            "subject" => Self::Subject,
            "id" => Self::Id,
            "source" => Self::Source,
            _ => match name.strip_prefix("header:") {
                Some(header) if !header.is_empty() => Self::Header(header.to_owned()),
                Some(_) | None => {
                    return Err(format!(
                        "`{{{name}}}` is none of {{kind}}, {{key}}, {{subject}}, {{id}}, {{source}}, {{header:NAME}}"
                    ));
                }
            },
        })
    }

    fn of<'m>(&'m self, message: &'m Message) -> Result<&'m str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Kind => Ok(&message.kind),
            Self::Id => Ok(&message.id),
            Self::Source => Ok(&message.source),
            Self::Key => {
                let key = message.key.as_ref().ok_or("the message has no key, and the routing key asks for `{key}`")?;
                std::str::from_utf8(key).map_err(|_| "the message's key is not UTF-8 text".to_owned())
            }
            Self::Subject => message
                .subject
                .as_deref()
                .ok_or_else(|| "the message has no subject, and the routing key asks for `{subject}`".to_owned()),
            Self::Header(name) => message.headers.text(name).ok_or_else(|| {
                format!("the message has no header `{name}` of UTF-8 text, and the routing key asks for it")
            }),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err(format!("`{text}` has a `}}` without its `{{`"));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Message {
        let mut message = Message::new("shop", "order.created", "{}");
        message.headers.append("region", "eu");
        message
    }

    fn filled(template: &str, message: &Message) -> Result<String, String> {
        RoutingKey::parse(template).expect("a template").fill(message)
    }

    #[test]
    fn places_are_filled_from_the_message() {
        assert_eq!(filled("{header:region}.{kind}.x", &order()).as_deref(), Ok("eu.order.created.x"));
        assert_eq!(filled("eu", &order()).as_deref(), Ok("eu"));
        assert_eq!(filled("", &order()).as_deref(), Ok(""));
    }

    #[test]
    fn what_the_message_lacks_is_named() {
        assert!(filled("{key}", &order()).expect_err("no key").contains("{key}"));
        assert!(filled("{subject}", &order()).expect_err("no subject").contains("{subject}"));
        assert!(filled("{header:tier}", &order()).expect_err("no header").contains("tier"));
        let binary = Message { key: Some(vec![0xff].into()), ..order() };
        assert!(filled("{key}", &binary).expect_err("binary").contains("UTF-8"));
    }

    #[test]
    fn slips_in_templates_are_named() {
        for template in ["{", "a.{kind", "a}b", "{knd}", "{header:}", "{}"] {
            assert!(RoutingKey::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_key_longer_than_amqp_allows_is_refused() {
        let message = Message { kind: "k".repeat(300), ..order() };
        assert!(filled("{kind}", &message).expect_err("too long").contains("255"));
    }
}
