//! What is said of a document before it is kept: the same as `sluicegate check` says of a file.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_store::resource::{ResourceId, ResourceKind};
use sluicegate_store::tenant::TenantName;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::documents;
use crate::api::{Answer, Api, ApiCode, ApiError, Input};
use crate::config::{self, Diagnostics, Document, DocumentKind, Loaded};
use crate::identity::{Caller, Scope};
use crate::tenancy::{self, Estate, translate, try_document};
use crate::trial::{Bench, BlockingBench};

/// The tenant's estate.
pub(super) async fn estate(api: &Api, tenant: &TenantName) -> Result<Estate, ApiError> {
    let found = tenancy::estate(&api.store, api.queues.store(), tenant).await;
    let found =
        found.map_err(|error| ApiError::new(ApiCode::StoreUnavailable, format!("{error:#}")).with_retry_after(5))?;
    found.ok_or_else(|| ApiError::new(ApiCode::Conflict, format!("the tenant `{tenant}` has been deleted")))
}

/// Refuses a document with mistakes.
///
/// # Errors
/// All mistakes in it, with their places; the store's trouble.
pub(super) async fn document(api: &Api, id: &ResourceId, text: &str) -> Result<(), ApiError> {
    match resolve(api, &id.tenant, id.kind, &id.name, text).await? {
        Ok(_) => Ok(()),
        Err(diagnostics) => Err(refusal(id.kind, &diagnostics)),
    }
}

/// Resolves a document among what its tenant has.
pub(super) async fn resolve(
    api: &Api,
    tenant: &TenantName,
    kind: ResourceKind,
    name: &str,
    text: &str,
) -> Result<Result<Loaded, Diagnostics>, ApiError> {
    let holdings = estate(api, tenant).await?.holdings;
    let (document_kind, (name, text)) = match kind {
        ResourceKind::Schema => (DocumentKind::Schema, (name.to_owned(), text.to_owned())),
        kind => (DocumentKind::Pipeline, translate(kind, name, text.to_owned())),
    };
    let document = Document { kind: document_kind, name, text: text.into() };
    let title = document.title();
    let (operator, host) = (Arc::clone(&api.config.borrow()), api.host.clone());
    Ok(block_in_place(|| {
        let loaded = try_document(&operator, holdings, document)?;
        let bench = Bench::new(host);
        match config::check_plugins(&loaded, &BlockingBench { bench: &bench, runtime: Handle::current() }) {
            Err(diagnostics) if diagnostics.concern(&title) => Err(diagnostics),
            Ok(()) | Err(_) => Ok(loaded),
        }
    }))
}

pub(super) fn refusal(kind: ResourceKind, diagnostics: &Diagnostics) -> ApiError {
    let first = diagnostics.iter().next().map(|diagnostic| diagnostic.text.clone()).unwrap_or_default();
    let text = match diagnostics.len() {
        1 => format!("the {} has a mistake: {first}", kind.name()),
        count => format!("the {} has {count} mistakes, the first: {first}", kind.name()),
    };
    ApiError::new(ApiCode::DocumentInvalid, text).with_details(diagnostics.to_json())
}

/// Refuses one pipeline more than the tenant's quota allows.
///
/// # Errors
/// The quota is used up; the store's trouble.
pub(super) async fn quota(api: &Api, id: &ResourceId) -> Result<(), ApiError> {
    if id.kind == ResourceKind::Schema {
        return Ok(());
    }
    let Some(tenant) = api.store.reader().tenant(&id.tenant).await? else { return Ok(()) };
    let has = estate(api, &id.tenant).await?.wanted.len() as u64;
    if has < tenant.quotas.pipelines {
        return Ok(());
    }
    let text =
        format!("you have {has} pipelines, subscriptions and routes, and your quota is {}", tenant.quotas.pipelines);
    Err(ApiError::new(ApiCode::QuotaExceeded, text).with_hint("delete one, or ask the operator for more"))
}

/// Refuses to remove a schema that a pipeline still names.
///
/// # Errors
/// The pipelines that do; the store's trouble.
pub(super) async fn unused(api: &Api, id: &ResourceId) -> Result<(), ApiError> {
    if id.kind != ResourceKind::Schema {
        return Ok(());
    }
    let in_force = Arc::clone(&api.in_force.borrow());
    let Some(config) = in_force.tenants.get(&id.tenant) else { return Ok(()) };
    let names =
        |step: &config::StepConfig| matches!(step, config::StepConfig::Validate { schema } if *schema.name == *id.name);
    let users = config.pipelines.iter().filter(|pipeline| pipeline.steps.iter().any(names));
    let users: Vec<&str> = users.map(config::PipelineConfig::written_name).collect();
    if users.is_empty() {
        return Ok(());
    }
    let text = format!("the schema `{}` is used by {}; change these first", id.name, users.join(", "));
    Err(ApiError::new(ApiCode::Conflict, text))
}

/// A pipeline that is not kept.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValidateForm {
    #[serde(default = "some_name")]
    name: String,
    #[serde(alias = "pipeline")]
    document: Value,
}

fn some_name() -> String {
    "pipeline".to_owned()
}

/// 200 in either case: the question was answered.
pub(super) async fn validate(
    State(api): State<Api>,
    caller: Caller,
    Input(form): Input<ValidateForm>,
) -> Result<Answer<Value>, ApiError> {
    let tenant = super::tenant(&caller, Scope::Read)?;
    let before = api.store.reader().resource(&super::id(&tenant, ResourceKind::Pipeline, &form.name)).await?;
    let text = documents::written(&form.document, before.as_ref().map(|before| before.document.as_str()))?;
    let answer = match resolve(&api, &tenant, ResourceKind::Pipeline, &form.name, &text).await? {
        Ok(loaded) => {
            let name = format!("{tenant}/{}", form.name);
            let guarantee = loaded.config.pipeline(&name).map(|pipeline| guarantee(&loaded, pipeline));
            json!({ "valid": true, "guarantee": guarantee, "diagnostics": [] })
        }
        Err(diagnostics) => {
            let mut answer = diagnostics.to_json();
            answer["valid"] = json!(false);
            answer
        }
    };
    Ok(Answer(answer))
}

fn guarantee(loaded: &Loaded, pipeline: &config::PipelineConfig) -> Value {
    let guarantee = config::guarantee(loaded, pipeline);
    json!({ "atLeastOnce": guarantee.at_least_once, "duplicates": guarantee.duplicates, "order": guarantee.order })
}
