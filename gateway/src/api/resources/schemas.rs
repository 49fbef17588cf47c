//! Whether a new version of a schema accepts all that the one before did.

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_store::resource::ResourceKind;

use super::documents;
use crate::api::{Answer, Api, ApiCode, ApiError, Input, Segments};
use crate::config;
use crate::identity::{Caller, Scope};
use crate::schema_compatibility::incompatibilities;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CompatibilityForm {
    #[serde(alias = "schema")]
    document: Value,
}

pub(super) async fn compatibility(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
    Input(form): Input<CompatibilityForm>,
) -> Result<Answer<Value>, ApiError> {
    let id = super::id(&super::tenant(&caller, Scope::Read)?, ResourceKind::Schema, &name);
    let kept = api.store.reader().resource(&id).await?.ok_or_else(|| super::not_found(&id))?;
    let text = documents::written(&form.document, None)?;
    let found = incompatibilities(&read(&kept.document)?, &read(&text)?);
    let shown: Vec<Value> = found.iter().map(|one| json!({ "pointer": one.pointer, "text": one.text })).collect();
    Ok(Answer(json!({ "compatible": shown.is_empty(), "against": kept.revision, "incompatibilities": shown })))
}

fn read(text: &str) -> Result<Value, ApiError> {
    let unreadable = || ApiError::new(ApiCode::DocumentInvalid, "the schema is neither JSON nor YAML");
    config::document_json(text).ok_or_else(unreadable)
}

/// Refuses a schema that does not accept all that the one before did.
///
/// # Errors
/// Everything that is tighter.
pub(super) fn refuse_incompatible(before: &str, after: &str) -> Result<(), ApiError> {
    let found = incompatibilities(&read(before)?, &read(after)?);
    let Some(first) = found.first() else { return Ok(()) };
    let shown: Vec<Value> = found.iter().map(|one| json!({ "pointer": one.pointer, "text": one.text })).collect();
    let text = format!("the new schema may refuse what the one before accepted: {} at `{}`", first.text, first.pointer);
    let refused = ApiError::new(ApiCode::DocumentInvalid, text).with_details(json!({ "incompatibilities": shown }));
    Err(refused.with_hint("say `\"compatibility\": \"none\"` to take it all the same"))
}
