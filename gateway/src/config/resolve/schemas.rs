//! Schemas: their documents, and whether they compile.

use std::sync::Arc;

use serde_json::Value;

use super::Resolver;
use crate::config::diagnostic::Diagnostic;
use crate::config::resolved::SchemaConfig;
use crate::config::tree::join;
use crate::config::written::SchemaSection;
use crate::validation::{SchemaMistake, SchemaStep};

impl Resolver<'_> {
    pub(super) fn schemas(&mut self) {
        for (name, section) in self.written.schemas.iter() {
            let schema = match section {
                SchemaSection::Inline(document) => {
                    SchemaConfig { name: name.into(), document: Arc::new(document.clone()), file: None }
                }
                SchemaSection::File(_) => match self.attachments.schemas.get(name) {
                    Some(file) => SchemaConfig {
                        name: name.into(),
                        document: Arc::clone(&file.document),
                        file: Some(file.path.clone()),
                    },
                    // It could not be read, and that has been said.
                    None => continue,
                },
            };
            self.schemas.push(Arc::new(schema));
        }
        let complete = self.schemas.len() == self.defined("schemas").len();
        for schema in self.schemas.clone() {
            for mistake in SchemaStep::build(&schema.name, &self.schemas).err().into_iter().flatten() {
                // A schema that could not be read may be the one that is referred to.
                if complete || !mistake.text.contains("which is not configured") {
                    self.schema_mistake(&schema, mistake);
                }
            }
        }
    }

    fn schema_mistake(&mut self, schema: &SchemaConfig, mistake: SchemaMistake) {
        let entry = join("/schemas", &schema.name);
        let at = if mistake.pointer.is_empty() { String::new() } else { format!(" at `{}`", mistake.pointer) };
        let text = format!("the schema `{}` is wrong{at}: {}", schema.name, mistake.text);
        match self.attachments.schemas.get(&*schema.name) {
            None => {
                let pointer = format!("{}{}", join(&entry, "inline"), mistake.pointer);
                self.wrong(&pointer, text).hint = mistake.hint;
            }
            Some(file) => {
                let pointer = join(&entry, "file");
                let place = match &file.tree {
                    Some(tree) => tree.place(&mistake.pointer),
                    None => self.root.place(&pointer),
                };
                let mut diagnostic = Diagnostic::new(place, self.root.path(&pointer), text);
                diagnostic.hint = mistake.hint;
                self.wrong.push((pointer, diagnostic));
            }
        }
    }

    /// A schema that a step names.
    pub(super) fn schema(&mut self, pointer: &str, name: &str) -> Option<Arc<SchemaConfig>> {
        let found = self.schemas.iter().find(|schema| &*schema.name == name).cloned();
        let defined = self.defined("schemas");
        if found.is_none() && !defined.iter().any(|schema| schema == name) {
            let known: Vec<&str> = defined.iter().map(String::as_str).collect();
            self.unknown(pointer, "schema", name, &known, "define it under `schemas:`");
        }
        found
    }
}

/// Whether a schema refers to another document.
pub(super) fn refers_elsewhere(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(key, member)| {
            let reference = key == "$ref" || key == "$dynamicRef" || key == "$recursiveRef";
            let elsewhere = reference && member.as_str().is_some_and(|target| !target.starts_with('#'));
            elsewhere || refers_elsewhere(member)
        }),
        Value::Array(items) => items.iter().any(refers_elsewhere),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
