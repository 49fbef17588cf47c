//! Says in plain words, at the right place and with a hint, what a JSON Schema validator found.

use jsonschema::{JsonType, ValidationError, error::TypeKind, error::ValidationErrorKind as Kind};
use serde_json::Value;

use super::diagnostic::{Diagnostic, did_you_mean, listing};
use super::reserved::Reserved;
use super::shape::is_choice;
use super::tree::{Filling, Node, NodeValue, join, split_last};

/// Longest value that is shown, in characters.
const MAX_VALUE_CHARS: usize = 40;

/// Explains the errors of one tree.
pub(crate) struct Explainer<'t> {
    schema: &'t Value,
    root: &'t Node,
    reserved: &'t Reserved,
}

impl<'t> Explainer<'t> {
    pub(crate) fn new(schema: &'t Value, root: &'t Node, reserved: &'t Reserved) -> Self {
        Self { schema, root, reserved }
    }

    /// The diagnostics of an error, each with the pointer of its value; none if enough was said about that place.
    pub(crate) fn explain(&self, error: &ValidationError<'_>) -> Vec<(String, Diagnostic)> {
        let pointer = error.instance_path().as_str();
        let failed = self.root.find(pointer).is_some_and(|node| node.filling == Filling::Failed);
        if failed || self.reserved.covers(pointer) {
            return Vec::new();
        }
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                unexpected.iter().filter_map(|key| self.unknown_key(pointer, key, error)).collect()
            }
            // What `additionalProperties: false` says, once, of a mapping that may have no keys at all.
            Kind::FalseSchema => {
                let keys = self.root.find(pointer).map(Node::entries).unwrap_or_default();
                keys.iter().filter_map(|entry| self.unknown_key(pointer, &entry.key, error)).collect()
            }
            // What is none of some words is also of the wrong type; once is enough.
            Kind::Type { .. } if self.schema_of(error)["enum"].is_array() => Vec::new(),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.choose(error, context),
            _ => self.single(pointer, error).into_iter().collect(),
        }
    }

    fn single(&self, pointer: &str, error: &ValidationError<'_>) -> Option<(String, Diagnostic)> {
        let schema = self.schema_of(error);
        let (text, hint) = match error.kind() {
            Kind::Required { property } => return Some(self.missing(pointer, property.as_str()?, schema)),
            Kind::MinProperties { .. } | Kind::MaxProperties { .. } if is_choice(schema) => {
                if self.reserved.is_within(pointer) {
                    return None;
                }
                self.wrong_number_of_choices(pointer, schema)?
            }
            Kind::Type { kind } => {
                let quotes = self.unquoted(pointer, kind).then(|| "put it in quotes to make it a text".to_owned());
                (self.wrong_type(pointer, kind, schema), self.expectation(schema).or(quotes))
            }
            Kind::Pattern { .. } | Kind::Format { .. } => {
                let what = format_words(schema).map_or("what is expected here", |(what, _)| what);
                (format!("{} is not {what}", self.shown(pointer, schema)), self.expectation(schema))
            }
            Kind::Enum { options } => self.unknown_word(pointer, options, schema),
            Kind::Constant { expected_value } => {
                (format!("{} is not {expected_value}", self.shown(pointer, schema)), None)
            }
            Kind::Minimum { limit } => (format!("{} is less than {limit}", self.shown(pointer, schema)), range(schema)),
            Kind::Maximum { limit } => (format!("{} is more than {limit}", self.shown(pointer, schema)), range(schema)),
            Kind::MinItems { limit } => (format!("the list has fewer than {limit} items"), None),
            Kind::MaxItems { limit } => (format!("the list has more than {limit} items"), None),
            Kind::MinLength { limit } => (format!("the text is shorter than {limit} characters"), None),
            Kind::MaxLength { limit } => (format!("the text is longer than {limit} characters"), None),
            _ => (error.masked_with("the value").to_string(), self.expectation(schema)),
        };
        Some(self.at(pointer, text, hint))
    }

    fn at(&self, pointer: &str, text: String, hint: Option<String>) -> (String, Diagnostic) {
        let mut diagnostic = Diagnostic::new(self.root.place(pointer), self.root.path(pointer), text);
        diagnostic.hint = hint;
        (pointer.to_owned(), diagnostic)
    }

    fn unknown_key(&self, parent: &str, key: &str, error: &ValidationError<'_>) -> Option<(String, Diagnostic)> {
        let pointer = join(parent, key);
        if self.reserved.covers(&pointer) {
            return None;
        }
        let schema = self.schema_of(error);
        let known: Vec<&str> =
            schema["properties"].as_object().map_or(Vec::new(), |p| p.keys().map(String::as_str).collect());
        let one_of = if known.is_empty() {
            "there are no keys here".to_owned()
        } else {
            format!("known here: {}", listing(known.iter().copied()))
        };
        let hint = match did_you_mean(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => one_of,
        };
        let what = if is_choice(schema) { choice_name(parent) } else { "key" };
        let text = format!("unknown {what} `{key}`");
        let diagnostic = Diagnostic::new(self.root.key_place(&pointer), self.root.path(&pointer), text).hint(hint);
        Some((pointer, diagnostic))
    }

    fn missing(&self, pointer: &str, key: &str, schema: &Value) -> (String, Diagnostic) {
        let purpose = self.resolved(&schema["properties"][key])["description"].as_str();
        let purpose = schema["properties"][key]["description"].as_str().or(purpose).map(first_sentence);
        self.at(pointer, format!("`{key}` is missing"), purpose.map(|purpose| format!("{key}: {purpose}")))
    }

    fn wrong_number_of_choices(&self, pointer: &str, schema: &Value) -> Option<(String, Option<String>)> {
        let known = listing(schema["properties"].as_object()?.keys().map(String::as_str));
        let written: Vec<&str> = self.root.find(pointer)?.entries().iter().map(|entry| entry.key.as_str()).collect();
        let what = choice_name(pointer);
        if written.is_empty() {
            return Some((format!("there is no {what} here"), Some(format!("name one: {known}"))));
        }
        let text = format!("more than one {what} here: {}", written.join(", "));
        let hint = match what {
            "step" => "each step is an item of the list: begin each with `- `",
            _ => "keep one of them",
        };
        Some((text, Some(hint.to_owned())))
    }

    fn wrong_type(&self, pointer: &str, kind: &TypeKind, schema: &Value) -> String {
        let wanted = match (format_words(schema), kind) {
            (Some((what, _)), _) => what.to_owned(),
            (None, TypeKind::Single(kind)) => type_words(*kind).to_owned(),
            (None, TypeKind::Multiple(kinds)) => listing(kinds.iter().map(type_words)),
        };
        format!("expected {wanted}, found {}", self.shown(pointer, schema))
    }

    /// Whether a number or boolean stands where a text is wanted.
    fn unquoted(&self, pointer: &str, kind: &TypeKind) -> bool {
        let scalar = |node: &Node| matches!(node.value, NodeValue::Bool(_) | NodeValue::Number(_));
        matches!(kind, TypeKind::Single(JsonType::String)) && self.root.find(pointer).is_some_and(scalar)
    }

    fn unknown_word(&self, pointer: &str, options: &Value, schema: &Value) -> (String, Option<String>) {
        let as_written = |option: &Value| option.as_str().map_or_else(|| option.to_string(), ToOwned::to_owned);
        let options: Vec<String> = options.as_array().map_or(Vec::new(), |o| o.iter().map(as_written).collect());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let known = options.join(", ");
        let text = format!("{} is not one of {known}", self.shown(pointer, schema));
        let word = self.root.find(pointer).filter(|node| node.filling == Filling::None).and_then(Node::text);
        let near = word.and_then(|word| did_you_mean(word, options.iter().copied()));
        (text, near.map(|near| format!("did you mean `{near}`?")))
    }

    /// The errors of the alternative that was most likely meant: the one that fits the value's type and has the fewest
    /// mistakes; if none fits, what types are possible.
    fn choose(
        &self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
    ) -> Vec<(String, Diagnostic)> {
        let here = error.instance_path().as_str();
        let at_once = |e: &ValidationError<'_>| {
            e.instance_path().as_str() == here
                && matches!(e.kind(), Kind::Type { .. } | Kind::Constant { .. } | Kind::Enum { .. })
        };
        let meant = context.iter().filter(|branch| !branch.iter().any(at_once)).min_by_key(|branch| branch.len());
        if let Some(branch) = meant {
            return branch.iter().flat_map(|e| self.explain(e)).collect();
        }
        let mut wanted: Vec<String> = Vec::new();
        for kind in context.iter().flatten().map(ValidationError::kind) {
            let words = match kind {
                Kind::Type { kind: TypeKind::Single(kind) } => type_words(*kind).to_owned(),
                Kind::Type { kind: TypeKind::Multiple(kinds) } => listing(kinds.iter().map(type_words)),
                Kind::Constant { expected_value } => expected_value.to_string(),
                Kind::Enum { options } => options.to_string(),
                _ => continue,
            };
            if !wanted.contains(&words) {
                wanted.push(words);
            }
        }
        let schema = self.schema_of(error);
        let expected = listing(wanted.iter().map(String::as_str));
        vec![self.at(
            here,
            format!("expected {expected}, found {}", self.shown(here, schema)),
            self.expectation(schema),
        )]
    }

    /// What stands at `pointer`, briefly. Never a secret and never what came from `${…}`.
    fn shown(&self, pointer: &str, schema: &Value) -> String {
        let Some(node) = self.root.find(pointer) else { return "nothing".to_owned() };
        let value = node.to_json();
        let kind = match &value {
            Value::Null => return "nothing".to_owned(),
            Value::Bool(_) => "",
            Value::Number(_) => "the number ",
            Value::String(_) => "the text ",
            Value::Array(_) => return "a list".to_owned(),
            Value::Object(_) => return "a mapping".to_owned(),
        };
        if node.filling != Filling::None {
            return format!("{kind}that `${{…}}` stands for");
        }
        if schema["writeOnly"] == true {
            return format!("{kind}that is secret").trim_start().to_owned();
        }
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let short: String = text.chars().take(MAX_VALUE_CHARS).collect();
        let dots = if short.len() < text.len() { "…" } else { "" };
        format!("{kind}`{short}{dots}`")
    }

    /// What is expected in a place, from its format or else its description.
    fn expectation(&self, schema: &Value) -> Option<String> {
        if let Some((_, example)) = format_words(schema) {
            return Some(example.to_owned());
        }
        if let Some(choices) = schema["properties"].as_object().filter(|_| is_choice(schema)) {
            let first = choices.keys().next().map_or("", String::as_str);
            let known = listing(choices.keys().map(String::as_str));
            return Some(format!("{known}, followed by its settings: `{first}: {{ … }}`"));
        }
        range(schema).or_else(|| schema["description"].as_str().map(|text| first_sentence(text).to_owned()))
    }

    /// The schema that holds the keyword that failed.
    fn schema_of(&self, error: &ValidationError<'_>) -> &'t Value {
        let (parent, _) = split_last(error.schema_path().as_str());
        self.schema.pointer(parent).unwrap_or(&Value::Null)
    }

    fn resolved(&self, schema: &'t Value) -> &'t Value {
        let target = schema["$ref"].as_str().and_then(|r| self.schema.pointer(r.strip_prefix('#')?));
        target.unwrap_or(schema)
    }
}

/// What the alternatives at `pointer` are called.
fn choice_name(pointer: &str) -> &'static str {
    let (parent, last) = split_last(pointer);
    let (_, group) = split_last(parent);
    match (group.as_str(), last.as_str()) {
        ("steps", _) => "step",
        ("schemas", _) => "origin of a schema",
        (_, "source") => "source",
        ("targets", _) => "target",
        (_, "dead_letter") => "dead-letter connector",
        _ => "choice",
    }
}

fn type_words(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a mapping",
        JsonType::String => "a text",
    }
}

/// What a text of a format is, and an example.
fn format_words(schema: &Value) -> Option<(&'static str, &'static str)> {
    match schema["format"].as_str()? {
        "rate" => Some(("a rate", "a rate such as 50/s, 600/m or 1000/h")),
        "span" => Some(("a length of time", "a length of time such as 500ms, 2s, 5m, 1h or 7d")),
        "size" => Some(("a size", "a size such as 512B, 64KiB, 16MiB or 1GB")),
        "address" => Some(("an address", "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080")),
        "sha256" => Some(("a sha256", "64 hexadecimal digits in quotes, as `sha256sum FILE` prints them")),
        _ => None,
    }
}

fn range(schema: &Value) -> Option<String> {
    match (&schema["minimum"], &schema["maximum"]) {
        (Value::Number(min), Value::Number(max)) => Some(format!("{min} to {max}")),
        (Value::Number(min), _) => Some(format!("at least {min}")),
        (_, Value::Number(max)) => Some(format!("at most {max}")),
        _ => None,
    }
}

fn first_sentence(text: &str) -> &str {
    let end = text.find(". ").or_else(|| text.find(".\n")).unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}
