//! Context attributes as names and texts, the part that all CloudEvents formats (JSON, HTTP headers) have in common.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use sluicegate_engine::message::{Body, Headers, Message};

use super::{DecodeError, FieldProblem, rfc3339};
use crate::header_list;

/// Longest name of an attribute. CloudEvents advises at most 20.
pub const MAX_ATTRIBUTE_NAME_BYTES: usize = 64;
/// Most attributes of one event.
pub const MAX_ATTRIBUTES: usize = 256;
/// The extension attribute that carries all headers when one of them cannot be an attribute of its own (an upper-case
/// name, a repeat, a binary value): a JSON array of `[name, text]` and `[name, base64, "base64"]`, in order. Where it
/// names a header that also is an attribute, the attribute holds the value: an intermediary may have changed it.
pub const HEADER_LIST: &str = "sluicegateheaders";

const KEY_BASE64: &str = "partitionkeybase64";
/// Attributes that are fields of a message, so that no header may use their names.
const RESERVED: [&str; 16] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "partitionkey",
    KEY_BASE64,
    "traceparent",
    "tracestate",
    "correlationid",
    "expirytime",
    "deliverytime",
    HEADER_LIST,
];
/// Headers that may become attributes of their own, so that an event never has more than [`MAX_ATTRIBUTES`].
const MAX_HEADER_ATTRIBUTES: usize = MAX_ATTRIBUTES - RESERVED.len();

/// All context attributes of a message, `specversion` first, each a name and its text.
///
/// They always make a valid event: control characters, which CloudEvents forbids, are written as U+FFFD, and an empty
/// id, source or type as `unknown`.
pub fn attributes(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
    let mut all = vec![
        ("specversion", Cow::from("1.0")),
        ("id", required(&message.id)),
        ("source", required(&message.source)),
        ("type", required(&message.kind)),
    ];
    let optional = [
        ("subject", &message.subject),
        ("datacontenttype", &message.content_type),
        ("traceparent", &message.trace_parent),
        ("tracestate", &message.trace_state),
        ("correlationid", &message.correlation_id),
    ];
    for (name, text) in optional {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            all.push((name, printable(text)));
        }
    }
    all.push(("time", rfc3339::print(message.time_ms).into()));
    if let Some(at) = message.expires_at_ms {
        all.push(("expirytime", rfc3339::print(at).into()));
    }
    if let Some(at) = message.deliver_at_ms {
        all.push(("deliverytime", rfc3339::print(at).into()));
    }
    if let Some(key) = &message.key {
        all.push(match std::str::from_utf8(key) {
            Ok(text) if !text.is_empty() && is_printable(text) => ("partitionkey", text.into()),
            _ => (KEY_BASE64, BASE64.encode(key).into()),
        });
    }
    header_attributes(&message.headers, &mut all);
    all
}

fn header_attributes<'a>(headers: &'a Headers, all: &mut Vec<(&'a str, Cow<'a, str>)>) {
    let mut fitting = Vec::new();
    for (name, value) in headers.iter().take(MAX_HEADER_ATTRIBUTES) {
        let unique = || headers.iter().filter(|(other, _)| *other == name).count() == 1;
        match std::str::from_utf8(value) {
            Ok(text) if is_name(name) && !RESERVED.contains(&name) && is_printable(text) && unique() => {
                fitting.push((name, Cow::from(text)));
            }
            _ => {}
        }
    }
    let all_fit = fitting.len() == headers.len();
    all.extend(fitting);
    if !all_fit {
        // JSON escapes only some of the characters that CloudEvents forbids.
        let list = header_list::to_json(headers).to_string();
        let mut escaped = String::with_capacity(list.len());
        for c in list.chars() {
            if c.is_control() {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                escaped.push(c);
            }
        }
        all.push((HEADER_LIST, escaped.into()));
    }
}

/// A message being put together from the attributes of an event, in any order. It collects every problem.
#[derive(Debug)]
pub struct Draft {
    message: Message,
    /// Which of [`REQUIRED`] have been seen.
    seen: [bool; REQUIRED.len()],
    attribute_count: usize,
    header_list: Option<Vec<(String, Bytes)>>,
    problems: Vec<FieldProblem>,
}

const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

impl Default for Draft {
    fn default() -> Self {
        Self::new()
    }
}

impl Draft {
    /// Nothing known yet; the time is now until an attribute says otherwise.
    pub fn new() -> Self {
        Self {
            message: Message::new("", "", Bytes::new()),
            seen: [false; REQUIRED.len()],
            attribute_count: 0,
            header_list: None,
            problems: Vec::new(),
        }
    }

    /// Takes in one attribute; unknown ones become headers.
    pub fn set(&mut self, name: &str, text: &str) {
        self.attribute_count += 1;
        if self.attribute_count > MAX_ATTRIBUTES {
            if self.attribute_count == MAX_ATTRIBUTES + 1 {
                self.refuse("", format!("more than {MAX_ATTRIBUTES} attributes"));
            }
            return;
        }
        if let Some(index) = REQUIRED.iter().position(|required| *required == name) {
            self.seen[index] = true;
        }
        if !is_printable(text) {
            return self.refuse(name, "contains a control character, which CloudEvents forbids");
        }
        if let Err(problem) = self.take(name, text) {
            self.refuse(name, problem);
        }
    }

    /// Notes a problem of the attribute `name`; empty for the whole event.
    pub fn refuse(&mut self, name: &str, text: impl Into<String>) {
        // A required attribute with a problem of its own is not missing as well.
        if let Some(index) = REQUIRED.iter().position(|required| *required == name) {
            self.seen[index] = true;
        }
        self.problems.push(if name.is_empty() { FieldProblem::new("", text) } else { FieldProblem::at(name, text) });
    }

    /// The content type so far.
    pub fn content_type(&self) -> Option<&str> {
        self.message.content_type.as_deref()
    }

    /// The message, with this body.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn finish(mut self, body: Body) -> Result<Message, DecodeError> {
        for (name, seen) in REQUIRED.iter().zip(self.seen) {
            if !seen {
                self.problems.push(FieldProblem::at(name, "is missing; CloudEvents requires it"));
            }
        }
        if !self.problems.is_empty() {
            return Err(DecodeError { problems: self.problems });
        }
        if let Some(list) = self.header_list {
            let attributes = std::mem::replace(&mut self.message.headers, Headers::from_iter(list));
            for (name, value) in attributes.iter() {
                self.message.headers.set(name, value.clone());
            }
        }
        self.message.body = body;
        Ok(self.message)
    }

    fn take(&mut self, name: &str, text: &str) -> Result<(), String> {
        let message = &mut self.message;
        match name {
            "specversion" if text == "1.0" => {}
            "specversion" => return Err(format!("is `{text}`; only CloudEvents 1.0 is supported")),
            "id" => message.id = non_empty(text)?,
            "source" => message.source = non_empty(text)?,
            "type" => message.kind = non_empty(text)?,
            "subject" => message.subject = Some(non_empty(text)?),
            "datacontenttype" => message.content_type = Some(non_empty(text)?),
            "time" => message.time_ms = rfc3339::parse(text)?,
            "expirytime" => message.expires_at_ms = Some(rfc3339::parse(text)?),
            "deliverytime" => message.deliver_at_ms = Some(rfc3339::parse(text)?),
            "traceparent" => message.trace_parent = Some(text.to_owned()),
            "tracestate" => message.trace_state = Some(text.to_owned()),
            "correlationid" => message.correlation_id = Some(text.to_owned()),
            "partitionkey" => message.key = Some(Bytes::from(non_empty(text)?)),
            KEY_BASE64 => {
                message.key = Some(BASE64.decode(text).map_err(|error| format!("is not base64: {error}"))?.into())
            }
            HEADER_LIST => {
                let list = serde_json::from_str(text).ok().and_then(|list| header_list::from_json(&list));
                self.header_list = Some(list.ok_or(header_list::SHAPE)?);
            }
            _ if name.len() > MAX_ATTRIBUTE_NAME_BYTES => {
                return Err(format!(
                    "is a name of {} bytes; at most {MAX_ATTRIBUTE_NAME_BYTES} are allowed",
                    name.len()
                ));
            }
            _ if !is_name(name) => {
                return Err("is not a name of an attribute: CloudEvents allows only a-z and 0-9".to_owned());
            }
            _ => message.headers.append(name, text.to_owned()),
        }
        Ok(())
    }
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_ATTRIBUTE_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// CloudEvents forbids U+0000–U+001F and U+007F–U+009F in strings.
fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn printable(text: &str) -> Cow<'_, str> {
    if is_printable(text) { text.into() } else { text.replace(char::is_control, "\u{FFFD}").into() }
}

fn required(text: &str) -> Cow<'_, str> {
    if text.is_empty() { "unknown".into() } else { printable(text) }
}
