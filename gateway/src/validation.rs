//! JSON Schemas: compiled once, references only to other configured schemas, every violation with its pointer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ReferencingError, Retrieve, Uri, Validator};
use serde_json::Value;
use sluicegate_engine::failure::{SchemaError, StepFailure};
use sluicegate_engine::message::Message;
use sluicegate_engine::step::Validate;

use crate::config::SchemaConfig;

/// Most violations reported for one message.
pub const MAX_ERRORS: usize = 100;

/// Longest text of one violation, in characters.
pub const MAX_ERROR_CHARS: usize = 500;

/// Longest pointer of one violation, in characters; a longer one is cut.
pub const MAX_POINTER_CHARS: usize = 1_000;

/// Schemas refer to each other by name below this address: in a schema without `$id`, `{"$ref": "customer"}` is the
/// configured schema `customer`.
const BASE: &str = "sluicegate:///schemas/";

/// A `validate` step. Cheap to call, shared by all messages.
pub struct SchemaStep {
    name: String,
    validator: Validator,
}

/// Why a document is no usable JSON Schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SchemaMistake {
    /// JSON pointer to the mistake in the schema's document.
    pub pointer: String,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl SchemaStep {
    /// Compiles the schema `name` of `schemas`; the others are what its `$ref`s may refer to. CPU-bound: milliseconds
    /// for a large schema.
    ///
    /// # Errors
    /// The mistakes in the schema: against its draft's meta-schema, or a `$ref` to what is not configured.
    pub fn build(name: &str, schemas: &[Arc<SchemaConfig>]) -> Result<Self, Vec<SchemaMistake>> {
        let Some(schema) = schemas.iter().find(|schema| &*schema.name == name) else {
            return Err(vec![SchemaMistake {
                pointer: String::new(),
                text: format!("there is no schema `{name}`"),
                hint: Some("define it under `schemas:`".to_owned()),
            }]);
        };
        let validator = compile(schema, schemas)?;
        Ok(Self { name: name.to_owned(), validator })
    }
}

impl Validate for SchemaStep {
    fn validate(&self, message: &Message) -> Result<(), StepFailure> {
        let errors = match message.body.json() {
            Err(error) => vec![SchemaError { pointer: String::new(), text: error.to_string() }],
            Ok(value) if self.validator.is_valid(value) => return Ok(()),
            Ok(value) => self.validator.iter_errors(value).take(MAX_ERRORS).map(|error| describe(&error)).collect(),
        };
        Err(StepFailure::Schema { schema: self.name.clone(), errors })
    }
}

impl fmt::Debug for SchemaStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaStep").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One violation. The offending value itself is left out: it may be large or private, and the pointer leads to it.
fn describe(error: &jsonschema::ValidationError<'_>) -> SchemaError {
    SchemaError {
        pointer: shortened(error.instance_path().as_str().to_owned(), MAX_POINTER_CHARS),
        text: shortened(error.masked_with("the value").to_string(), MAX_ERROR_CHARS),
    }
}

/// Keys of a hostile body can be as long as the body.
fn shortened(mut text: String, max_chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(max_chars) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn compile(schema: &SchemaConfig, schemas: &[Arc<SchemaConfig>]) -> Result<Validator, Vec<SchemaMistake>> {
    // The meta-schema first: building stops at the first mistake, this finds all.
    if let Ok(meta) = jsonschema::meta::validator_for(&schema.document) {
        let mistakes: Vec<SchemaMistake> =
            meta.iter_errors(&schema.document).take(MAX_ERRORS).map(|error| misuse(&error)).collect();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
    }
    jsonschema::options()
        .with_base_uri(format!("{BASE}{}", schema.name))
        .with_retriever(Configured::new(schemas))
        .build(&schema.document)
        .map_err(|error| vec![mistake(schema, schemas, &error)])
}

/// What is wrong with a keyword, by its meta-schema.
fn misuse(error: &jsonschema::ValidationError<'_>) -> SchemaMistake {
    let SchemaError { pointer, text } = describe(error);
    let text = match error.kind() {
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            "this value is none that the keyword takes".to_owned()
        }
        _ => text,
    };
    SchemaMistake { pointer, text, hint: None }
}

fn mistake(
    schema: &SchemaConfig,
    schemas: &[Arc<SchemaConfig>],
    error: &jsonschema::ValidationError<'_>,
) -> SchemaMistake {
    let pointer = error.instance_path().as_str().to_owned();
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => {
            let names: Vec<&str> = schemas.iter().map(|schema| &*schema.name).collect();
            let written = uri.strip_prefix(BASE).unwrap_or(uri);
            SchemaMistake {
                pointer: find_reference(&schema.document, written).unwrap_or(pointer),
                text: format!("`$ref` to `{written}`, which is not configured"),
                hint: Some(format!(
                    "a `$ref` reaches configured schemas only, by name or by their `$id`, never the network or files; \
                     configured: {}",
                    names.join(", ")
                )),
            }
        }
        ValidationErrorKind::Referencing(error) => {
            SchemaMistake { pointer, text: format!("a `$ref` leads nowhere: {error}"), hint: None }
        }
        _ => SchemaMistake { pointer, text: describe(error).text, hint: None },
    }
}

/// The pointer of the `$ref` that says `written`, as far as it can be told.
fn find_reference(document: &Value, written: &str) -> Option<String> {
    fn below(value: &Value, written: &str, pointer: &str) -> Option<String> {
        match value {
            Value::Object(members) => members.iter().find_map(|(key, member)| {
                let here = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                let text = member.as_str().filter(|_| key == "$ref" || key == "$schema");
                let found = text
                    .is_some_and(|text| text.split('#').next().is_some_and(|t| written.ends_with(t) && !t.is_empty()));
                if found { Some(here) } else { below(member, written, &here) }
            }),
            Value::Array(items) => {
                items.iter().enumerate().find_map(|(index, item)| below(item, written, &format!("{pointer}/{index}")))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    below(document, written, "")
}

/// Serves the configured schemas, and nothing else, to whoever refers to them.
struct Configured(HashMap<String, Value>);

impl Configured {
    fn new(schemas: &[Arc<SchemaConfig>]) -> Self {
        let mut by_uri = HashMap::new();
        for schema in schemas {
            by_uri.insert(format!("{BASE}{}", schema.name), (*schema.document).clone());
            if let Some(id) = schema.document.get("$id").and_then(Value::as_str) {
                by_uri.insert(id.trim_end_matches('#').to_owned(), (*schema.document).clone());
            }
        }
        Self(by_uri)
    }
}

impl Retrieve for Configured {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        self.0.get(uri.as_str()).cloned().ok_or_else(|| "it is not configured".into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schemas(documents: &[(&str, Value)]) -> Vec<Arc<SchemaConfig>> {
        documents
            .iter()
            .map(|(name, document)| {
                Arc::new(SchemaConfig { name: (*name).into(), document: Arc::new(document.clone()), file: None })
            })
            .collect()
    }

    fn errors(step: &SchemaStep, body: &str) -> Vec<(String, String)> {
        match step.validate(&Message::new("test", "test", body.to_owned())) {
            Ok(()) => Vec::new(),
            Err(StepFailure::Schema { errors, .. }) => errors.into_iter().map(|e| (e.pointer, e.text)).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn every_violation_comes_with_its_pointer_and_without_the_value() {
        let schema = json!({"type": "object", "required": ["id"], "properties": {
            "id": {"type": "string"}, "lines": {"items": {"properties": {"sku": {"type": "string"}}}}}});
        let step = SchemaStep::build("order", &schemas(&[("order", schema)])).expect("schema");
        assert_eq!(errors(&step, r#"{"id": "o-1"}"#), []);
        let found = errors(&step, r#"{"id": 4711, "lines": [{"sku": "a"}, {"sku": 5}]}"#);
        assert_eq!(found.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), ["/id", "/lines/1/sku"]);
        assert!(found.iter().all(|(_, text)| !text.contains("4711")), "{found:?}");
    }

    #[test]
    fn a_body_that_is_no_json_is_one_error_of_the_whole() {
        let step = SchemaStep::build("any", &schemas(&[("any", json!(true))])).expect("schema");
        let found = errors(&step, "{\"a\": }");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "");
        assert!(found[0].1.contains("line 1 column 7"), "{found:?}");
    }

    #[test]
    fn violations_are_limited_in_number_and_length() {
        let schema = json!({"items": {"type": "string"}, "properties": {"a": true}, "additionalProperties": false});
        let step = SchemaStep::build("list", &schemas(&[("list", schema)])).expect("schema");
        let body = serde_json::to_string(&vec![1; MAX_ERRORS + 50]).expect("JSON");
        assert_eq!(errors(&step, &body).len(), MAX_ERRORS);
        let found = errors(&step, &format!(r#"{{"{}": 1}}"#, "k".repeat(10_000)));
        assert_eq!(found[0].1.chars().count(), MAX_ERROR_CHARS + 1);
        let schema = json!({"additionalProperties": {"type": "string"}});
        let step = SchemaStep::build("map", &schemas(&[("map", schema)])).expect("schema");
        let found = errors(&step, &format!(r#"{{"{}": 1}}"#, "k".repeat(10_000)));
        assert_eq!(found[0].0.chars().count(), MAX_POINTER_CHARS + 1);
    }

    #[test]
    fn references_reach_configured_schemas_by_name_and_by_id() {
        let all = schemas(&[
            (
                "order",
                json!({"properties": {"buyer": {"$ref": "customer"}, "home": {"$ref": "customer#/$defs/address"},
                                            "seller": {"$ref": "https://example.com/party"}}}),
            ),
            ("customer", json!({"type": "string", "$defs": {"address": {"type": "array"}}})),
            ("party", json!({"$id": "https://example.com/party", "type": "number"})),
        ]);
        let step = SchemaStep::build("order", &all).expect("schema");
        assert_eq!(errors(&step, r#"{"buyer": "b", "home": [], "seller": 1}"#), []);
        assert_eq!(errors(&step, r#"{"buyer": 1, "home": 1, "seller": "s"}"#).len(), 3);
    }

    #[test]
    fn a_reference_to_anything_else_is_refused() {
        for reference in ["nobody", "https://json.example.com/schema", "file:///etc/passwd"] {
            let all = schemas(&[("order", json!({"properties": {"a": {"$ref": reference}}}))]);
            let mistakes = SchemaStep::build("order", &all).expect_err(reference);
            assert_eq!(mistakes[0].pointer, "/properties/a/$ref", "{mistakes:?}");
            assert!(mistakes[0].text.contains("not configured"), "{mistakes:?}");
        }
        let all = schemas(&[("order", json!({"$ref": "#/$defs/none"}))]);
        assert!(SchemaStep::build("order", &all).expect_err("nowhere")[0].text.contains("leads nowhere"));
    }

    #[test]
    fn all_mistakes_of_a_schema_are_found_with_their_pointers() {
        let all = schemas(&[("order", json!({"type": "objekt", "properties": {"a": {"minimum": "1"}}}))]);
        let mistakes = SchemaStep::build("order", &all).expect_err("mistakes");
        let pointers: Vec<&str> = mistakes.iter().map(|mistake| mistake.pointer.as_str()).collect();
        assert!(pointers.contains(&"/type") && pointers.contains(&"/properties/a/minimum"), "{mistakes:?}");
    }

    #[test]
    fn the_draft_is_what_the_schema_says() {
        // `dependencies` is a keyword of draft 7 and none of 2020-12.
        let body = r#"{"a": 1}"#;
        let rule = json!({"a": ["b"]});
        let old = json!({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": rule});
        let new = json!({"dependentRequired": rule});
        for schema in [old, new] {
            let step = SchemaStep::build("s", &schemas(&[("s", schema)])).expect("schema");
            assert_eq!(errors(&step, body).len(), 1);
        }
    }
}
