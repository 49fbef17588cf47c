//! The shape check: the JSON Schema of the configuration, made from the [written](super::written) types, and everything in
//! a tree that does not fit it.

use std::sync::LazyLock;

use jsonschema::{ValidationError, Validator, error::TypeKind, error::ValidationErrorKind};
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::diagnostic::Diagnostic;
use super::explanation::Explainer;
use super::location::Sources;
use super::reserved::Reserved;
use super::tree::{Filling, Node, NodeValue};
use super::written::ConfigFile;
use super::yaml;

static SCHEMA: LazyLock<Value> = LazyLock::new(schema_of::<ConfigFile>);

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::options().offline().build(&SCHEMA).expect("a test compiles the schema of the configuration")
});

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Checks the shape of a tree. Texts that came from `${…}` become the numbers and booleans that are wanted in their
/// place.
pub(crate) fn check(root: &mut Node, reserved: &Reserved) -> Vec<(String, Diagnostic)> {
    drop_empty_sections(root);
    let instance = root.to_json();
    let instance = if coerce(root, &instance) { root.to_json() } else { instance };
    let explainer = Explainer::new(&SCHEMA, root, reserved);
    VALIDATOR.iter_errors(&instance).flat_map(|error| explainer.explain(&error)).collect()
}

/// Names of all keys whose values are secret, wherever they stand.
pub fn secret_keys() -> &'static [String] {
    static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| secret_keys_of(&SCHEMA));
    &SECRETS
}

/// Never shows the values of keys that hold secrets.
pub(crate) fn conceal_secrets(root: &Node, sources: &mut Sources) {
    root.walk(&mut |pointer, node| {
        // The messages of tests have headers, too, but no secrets.
        for entry in node.entries().iter().filter(|_| !pointer.starts_with("/tests")) {
            if secret_keys().contains(&entry.key) {
                entry.value.walk(&mut |_, node| {
                    if !matches!(node.value, NodeValue::Map(_) | NodeValue::List(_)) {
                        sources.conceal(node.at);
                    }
                });
            }
        }
    });
}

/// Names of all keys whose values are secret wherever they stand; one key too many does no harm.
fn secret_keys_of(schema: &Value) -> Vec<String> {
    fn is_secret(schema: &Value, property: &Value) -> bool {
        let target = property["$ref"].as_str().and_then(|r| schema.pointer(r.strip_prefix('#')?));
        let held = [&property["additionalProperties"], &property["items"]];
        property["writeOnly"] == true
            || target.is_some_and(|target| target["writeOnly"] == true)
            || held.into_iter().any(|held| held.is_object() && is_secret(schema, held))
    }
    fn below(schema: &Value, part: &Value, keys: &mut Vec<String>) {
        if let Some(properties) = part["properties"].as_object() {
            keys.extend(properties.iter().filter(|(_, p)| is_secret(schema, p)).map(|(key, _)| key.clone()));
        }
        match part {
            Value::Array(items) => items.iter().for_each(|item| below(schema, item, keys)),
            Value::Object(members) => members.values().for_each(|member| below(schema, member, keys)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut keys = Vec::new();
    below(schema, schema, &mut keys);
    keys
}

/// A section of which everything is commented out is a section that is not there.
fn drop_empty_sections(root: &mut Node) {
    if let NodeValue::Map(entries) = &mut root.value {
        entries.retain(|entry| entry.value.value != NodeValue::Null || !entry.value.filling.eq(&Filling::None));
    }
}

fn coerce(root: &mut Node, instance: &Value) -> bool {
    let wanted: Vec<String> = VALIDATOR
        .iter_errors(instance)
        .filter(|error| wants_number_or_boolean(error))
        .map(|error| error.instance_path().as_str().to_owned())
        .collect();
    let mut changed = false;
    for pointer in wanted {
        let Some(node) = root.find_mut(&pointer) else { continue };
        if node.filling != Filling::Filled {
            continue;
        }
        let value = node.text().map(yaml::plain);
        if let Some(value @ (NodeValue::Bool(_) | NodeValue::Number(_))) = value {
            node.value = value;
            changed = true;
        }
    }
    changed
}

fn wants_number_or_boolean(error: &ValidationError<'_>) -> bool {
    use jsonschema::JsonType::{Boolean, Integer, Number};
    match error.kind() {
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => matches!(kind, Boolean | Integer | Number),
        ValidationErrorKind::Enum { options } => {
            options.as_array().is_some_and(|options| options.iter().any(|o| o.is_boolean() || o.is_number()))
        }
        _ => false,
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(tagged_as_properties))
        .with_transform(RecursiveTransform(named_values))
        .with_transform(Root);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// What only the whole file has.
#[derive(Clone)]
struct Root;

impl Transform for Root {
    fn transform(&mut self, schema: &mut Schema) {
        let note = json!("Keys that begin with `x-` are ignored: a place for anchors.");
        schema.insert("patternProperties".to_owned(), json!({ "^x-": { "description": note } }));
    }
}

/// An optional key is left out, not written without a value.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if choices.len() == 1 {
            let only = choices.pop();
            object.shift_remove("anyOf");
            if let Some(Value::Object(only)) = only {
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.shift_remove("default");
    }
}

/// An externally tagged choice, as one object that has exactly one of its properties: mistakes inside it are then found
/// where they are, and not as `not valid under any of the schemas`.
fn tagged_as_properties(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let Some(Value::Array(choices)) = object.get("oneOf") else { return };
    let mut properties = Map::new();
    for choice in choices {
        let Some(Value::Object(tagged)) = choice.get("properties") else { return };
        let (1, Some((tag, content))) = (tagged.len(), tagged.iter().next()) else { return };
        let mut content = content.clone();
        if let (Value::Object(content), Some(description)) = (&mut content, choice.get("description")) {
            content.insert("description".to_owned(), description.clone());
        }
        properties.insert(tag.clone(), content);
    }
    object.shift_remove("oneOf");
    object.insert("type".to_owned(), json!("object"));
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("additionalProperties".to_owned(), json!(false));
    object.insert("minProperties".to_owned(), json!(1));
    object.insert("maxProperties".to_owned(), json!(1));
}

/// A choice of documented words, as `enum`: `oneOf` says nothing useful about a word that is none of them.
fn named_values(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let Some(Value::Array(choices)) = object.get("oneOf") else { return };
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for choice in choices {
        let several = choice.get("enum").and_then(Value::as_array).cloned();
        let Some(these) = several.or_else(|| choice.get("const").map(|word| vec![word.clone()])) else { return };
        if let (Some(word), Some(meaning)) = (these[0].as_str(), choice.get("description").and_then(Value::as_str)) {
            meanings.push(format!("{word}: {meaning}"));
        }
        words.extend(these);
    }
    object.shift_remove("oneOf");
    let head = object.get("description").and_then(Value::as_str).unwrap_or_default();
    let description = [head].into_iter().chain(meanings.iter().map(String::as_str)).collect::<Vec<_>>().join("\n");
    object.insert("description".to_owned(), json!(description.trim()));
    object.insert("type".to_owned(), json!("string"));
    object.insert("enum".to_owned(), Value::Array(words));
}

/// Whether a schema is a choice made by [`tagged_as_properties`].
pub(crate) fn is_choice(schema: &Value) -> bool {
    schema["minProperties"] == 1 && schema["maxProperties"] == 1 && schema["properties"].is_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_valid_and_has_no_choice_left_that_hides_mistakes() {
        jsonschema::meta::validate(schema()).expect("a valid JSON Schema");
        let text = schema().to_string();
        assert!(!text.contains("\"oneOf\""), "{:#}", schema());
        assert!(!text.contains("\"null\""), "{:#}", schema());
        assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }

    #[test]
    fn a_key_is_secret_wherever_its_type_says_so() {
        let keys = secret_keys();
        for key in ["url", "password", "signing_secret", "headers"] {
            assert!(keys.iter().any(|secret| secret == key), "{key} is not in {keys:?}");
        }
    }
}
