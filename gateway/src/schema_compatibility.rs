//! Backward compatibility of JSON Schemas: does a new one accept every value that the old one accepted?
//!
//! In general nobody can tell; this looks at what schemas of messages are made of and says what it finds tightened:
//! types, `required`, `properties`, `additionalProperties`, `items`, `enum`, `const` and the limits. Where the two differ
//! in anything else (`oneOf`, `if`, `pattern`, `$ref`, …) it says that it cannot tell, which counts as incompatible.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::join;

/// Deepest nesting that is compared.
const MAX_DEPTH: usize = 64;

/// Keywords that say nothing about what is accepted.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$anchor",
];
/// Limits from below: a larger one accepts less.
const LOWER: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
/// Limits from above: a smaller one accepts less.
const UPPER: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];
/// Compared by their own rules.
const UNDERSTOOD: [&str; 7] = ["type", "required", "properties", "additionalProperties", "items", "enum", "const"];

/// Something that was accepted and is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// JSON pointer (RFC 6901) into the new schema.
    pub pointer: String,
    /// What is tighter.
    pub text: String,
}

/// Everything in `new` that may refuse what `old` accepted; empty if nothing does.
pub fn incompatibilities(old: &Value, new: &Value) -> Vec<Incompatibility> {
    let mut found = Vec::new();
    compare(old, new, "", 0, &mut found);
    found
}

fn compare(old: &Value, new: &Value, at: &str, depth: usize, found: &mut Vec<Incompatibility>) {
    let mut note = |at: &str, text: String| found.push(Incompatibility { pointer: at.to_owned(), text });
    if old == new || *new == Value::Bool(true) || *old == Value::Bool(false) {
        return;
    }
    if depth > MAX_DEPTH {
        return note(at, "nested too deeply to compare".to_owned());
    }
    let empty = Map::new();
    let (old, new) = match (old, new) {
        (_, Value::Bool(_)) => return note(at, "nothing is accepted here any more".to_owned()),
        (Value::Bool(_), Value::Object(new)) => (&empty, new),
        (Value::Object(old), Value::Object(new)) => (old, new),
        (_, _) => return note(at, "this is no schema".to_owned()),
    };
    types(old, new, at, found);
    required(old, new, at, found);
    values(old, new, at, found);
    limits(old, new, at, found);
    members(old, new, at, depth, found);
    for keyword in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let known = [&ANNOTATIONS[..], &LOWER, &UPPER, &UNDERSTOOD].iter().any(|list| list.contains(&keyword.as_str()));
        // What is gone tightened something before, and does no more.
        if !known && new.get(keyword).is_some_and(|now| old.get(keyword) != Some(now)) {
            found.push(Incompatibility {
                pointer: join(at, keyword),
                text: format!("`{keyword}` differs, and what that refuses cannot be told"),
            });
        }
    }
}

fn types(old: &Map<String, Value>, new: &Map<String, Value>, at: &str, found: &mut Vec<Incompatibility>) {
    let Some(now) = new.get("type").map(names) else { return };
    let accepts = |name: &str| now.contains(name) || (name == "integer" && now.contains("number"));
    let text = match old.get("type").map(names) {
        None => format!("any type was accepted, now only {}", listing(&now)),
        Some(before) => {
            let gone: BTreeSet<&str> = before.into_iter().filter(|name| !accepts(name)).collect();
            if gone.is_empty() {
                return;
            }
            format!("{} was accepted, now only {}", listing(&gone), listing(&now))
        }
    };
    found.push(Incompatibility { pointer: join(at, "type"), text });
}

fn required(old: &Map<String, Value>, new: &Map<String, Value>, at: &str, found: &mut Vec<Incompatibility>) {
    let before = old.get("required").map(names).unwrap_or_default();
    for name in new.get("required").map(names).unwrap_or_default().difference(&before) {
        found.push(Incompatibility { pointer: join(at, "required"), text: format!("`{name}` is required now") });
    }
}

fn values(old: &Map<String, Value>, new: &Map<String, Value>, at: &str, found: &mut Vec<Incompatibility>) {
    let allowed = |schema: &Map<String, Value>| match (schema.get("const"), schema.get("enum")) {
        (Some(only), _) => Some(vec![only.clone()]),
        (None, Some(Value::Array(values))) => Some(values.clone()),
        (None, _) => None,
    };
    let Some(now) = allowed(new) else { return };
    let text = match allowed(old) {
        None => "only some values are accepted now".to_owned(),
        Some(before) => match before.iter().find(|value| !now.contains(value)) {
            Some(gone) => format!("`{gone}` is not accepted any more"),
            None => return,
        },
    };
    let keyword = if new.contains_key("const") { "const" } else { "enum" };
    found.push(Incompatibility { pointer: join(at, keyword), text });
}

fn limits(old: &Map<String, Value>, new: &Map<String, Value>, at: &str, found: &mut Vec<Incompatibility>) {
    let number = |schema: &Map<String, Value>, keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let mut check = |keyword: &str, is_tighter: fn(f64, f64) -> bool| {
        let Some(now) = number(new, keyword) else { return };
        if number(old, keyword).is_none_or(|before| is_tighter(before, now)) {
            found.push(Incompatibility { pointer: join(at, keyword), text: format!("`{keyword}` is {now} now") });
        }
    };
    LOWER.into_iter().for_each(|keyword| check(keyword, |before, now| now > before));
    UPPER.into_iter().for_each(|keyword| check(keyword, |before, now| now < before));
}

fn members(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    at: &str,
    depth: usize,
    found: &mut Vec<Incompatibility>,
) {
    let anything = Value::Bool(true);
    let empty = Map::new();
    let properties = |schema: &'_ Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    let (before, now) = (properties(old).unwrap_or_else(|| empty.clone()), properties(new).unwrap_or(empty));
    let others_before = old.get("additionalProperties").unwrap_or(&anything);
    let others_now = new.get("additionalProperties").unwrap_or(&anything);
    for (name, schema) in &now {
        compare(
            before.get(name).unwrap_or(others_before),
            schema,
            &join(&join(at, "properties"), name),
            depth + 1,
            found,
        );
    }
    for (name, schema) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        let mut gone = Vec::new();
        compare(schema, others_now, &join(at, "additionalProperties"), depth + 1, &mut gone);
        if !gone.is_empty() {
            let text = format!("`{name}` was accepted and is not described any more");
            found.push(Incompatibility { pointer: join(&join(at, "properties"), name), text });
        }
    }
    compare(others_before, others_now, &join(at, "additionalProperties"), depth + 1, found);
    compare(
        old.get("items").unwrap_or(&anything),
        new.get("items").unwrap_or(&anything),
        &join(at, "items"),
        depth + 1,
        found,
    );
}

fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::String(name) => BTreeSet::from([name.as_str()]),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => BTreeSet::new(),
    }
}

fn listing(names: &BTreeSet<&str>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(old: Value, new: Value) -> Vec<String> {
        incompatibilities(&old, &new).into_iter().map(|one| one.pointer).collect()
    }

    #[test]
    fn what_is_looser_is_compatible() {
        let old = json!({
            "type": "object", "required": ["id", "at"], "additionalProperties": false,
            "properties": { "id": { "type": "integer", "minimum": 1 }, "at": { "enum": ["a"] }, "n": { "type": "string", "maxLength": 5 } },
        });
        let new = json!({
            "title": "Order", "type": ["object", "null"], "required": ["id"],
            "properties": {
                "id": { "type": "number", "minimum": 0 }, "at": { "enum": ["a", "b"] }, "n": { "type": "string" },
                "more": true,
            },
        });
        assert_eq!(found(old.clone(), new), Vec::<String>::new());
        assert_eq!(found(old.clone(), json!({})), Vec::<String>::new());
        assert_eq!(found(old.clone(), old), Vec::<String>::new());
    }

    #[test]
    fn what_is_tighter_is_found_where_it_is() {
        let old = json!({ "type": ["object", "null"], "properties": { "id": { "type": "number" }, "tags": { "items": true }, "gone": {} } });
        let new = json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": { "id": { "type": "integer", "maximum": 9 }, "tags": { "items": { "type": "string" } } },
        });
        let expected = [
            "/type",
            "/required",
            "/properties/id/type",
            "/properties/id/maximum",
            "/properties/tags/items/type",
            "/properties/gone",
            "/additionalProperties",
        ];
        assert_eq!(found(old, new), expected);
    }

    #[test]
    fn a_new_property_is_tighter_where_others_were_free() {
        assert_eq!(found(json!({}), json!({ "properties": { "a": { "type": "string" } } })), ["/properties/a/type"]);
        let closed = json!({ "additionalProperties": false });
        let opened = json!({ "additionalProperties": false, "properties": { "a": { "type": "string" } } });
        assert_eq!(found(closed, opened), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_understood_counts_as_tighter() {
        assert_eq!(found(json!({}), json!({ "pattern": "^a" })), ["/pattern"]);
        assert_eq!(found(json!({ "pattern": "^a" }), json!({})), Vec::<String>::new());
        assert_eq!(found(json!({ "oneOf": [true] }), json!({ "oneOf": [false] })), ["/oneOf"]);
        assert_eq!(found(json!(true), json!(false)), [""]);
    }
}
