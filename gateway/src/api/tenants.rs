//! `/api/v1/tenants`: the operator's alone.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_store::tenant::{Grants, Quotas, Tenant, TenantError, TenantName, TenantUpdate};

use super::queue_form::given;
use super::queues::{PageQuery, page_items};
use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::identity::{Audited, Caller};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/tenants", get(list).post(create))
        .route("/tenants/{name}", get(show).patch(update).delete(remove))
        .route("/tenants/{name}/suspend", post(suspend))
        .route("/tenants/{name}/resume", post(resume))
}

/// A tenant as JSON.
pub(crate) fn shown(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name.as_str(),
        "display": tenant.display,
        "suspended": tenant.suspended,
        "revision": tenant.revision,
        "quotas": tenant.quotas,
        "grants": tenant.grants,
        "createdAt": print_time(tenant.created_at_ms),
        "updatedAt": print_time(tenant.updated_at_ms),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateForm {
    name: String,
    #[serde(default)]
    display: String,
    #[serde(default)]
    quotas: Option<Value>,
    #[serde(default)]
    grants: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateForm {
    revision: u64,
    #[serde(default, deserialize_with = "given")]
    display: Option<String>,
    #[serde(default, deserialize_with = "given")]
    quotas: Option<Value>,
    #[serde(default, deserialize_with = "given")]
    grants: Option<Value>,
}

/// A document whose members are all known: a misspelt quota must not be one that does not hold. What it leaves out has
/// `base`'s value.
fn complete<T: DeserializeOwned + Serialize>(what: &str, given: Option<Value>, base: &T) -> Result<T, ApiError> {
    let invalid = |text: String| ApiError::new(ApiCode::InvalidRequest, format!("`{what}` {text}"));
    let mut whole = serde_json::to_value(base).map_err(|error| invalid(error.to_string()))?;
    match given {
        None => {}
        Some(Value::Object(members)) => {
            for (name, value) in members {
                let Some(member) = whole.get_mut(&name) else {
                    let known = whole.as_object().map(|whole| whole.keys().cloned().collect::<Vec<_>>().join(", "));
                    return Err(invalid(format!("has no member `{name}`; there are {}", known.unwrap_or_default())));
                };
                *member = value;
            }
        }
        Some(_) => return Err(invalid("is not an object".to_owned())),
    }
    serde_path_to_error::deserialize(whole)
        .map_err(|error| invalid(format!("does not fit at `{}`: {}", error.path(), error.inner())))
}

fn name(text: &str) -> Result<TenantName, ApiError> {
    TenantName::parse(text).ok_or_else(|| TenantError::NotFound { tenant: text.to_owned() }.into())
}

async fn found(api: &Api, text: &str) -> Result<Tenant, ApiError> {
    let tenant = api.store.reader().tenant(&name(text)?).await?;
    tenant.ok_or_else(|| TenantError::NotFound { tenant: text.to_owned() }.into())
}

fn changed(before: Option<&Tenant>, after: Option<&Tenant>, mut response: Response) -> Response {
    let resource = before.or(after).map(|tenant| format!("/tenants/{}", tenant.name));
    response.extensions_mut().insert(Audited { resource, before: before.map(shown), after: after.map(shown) });
    response
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Value>, ApiError> {
    caller.require_operator()?;
    let page = api.store.reader().tenants(page_items(query.limit)?, query.after.as_deref()).await?;
    let tenants: Vec<Value> = page.items.iter().map(shown).collect();
    Ok(Answer(json!({ "tenants": tenants, "next": page.next })))
}

async fn create(State(api): State<Api>, caller: Caller, Input(form): Input<CreateForm>) -> Result<Response, ApiError> {
    caller.require_operator()?;
    let name = TenantName::parse(&form.name).ok_or_else(|| {
        let text = "`name` is not a name: 1 to 64 of a-z, 0-9, `-` and `_`, beginning with a letter or digit";
        ApiError::new(ApiCode::InvalidRequest, text)
    })?;
    let quotas = complete("quotas", form.quotas, &Quotas::default())?;
    let grants = complete("grants", form.grants, &Grants::default())?;
    let tenant = api.store.create_tenant(&name, &form.display, quotas, grants).await?;
    Ok(changed(None, Some(&tenant), Answer(shown(&tenant)).created()))
}

async fn show(
    State(api): State<Api>,
    caller: Caller,
    Segments(text): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    caller.require_operator()?;
    Ok(Answer(shown(&found(&api, &text).await?)))
}

async fn update(
    State(api): State<Api>,
    caller: Caller,
    Segments(text): Segments<String>,
    Input(form): Input<UpdateForm>,
) -> Result<Response, ApiError> {
    caller.require_operator()?;
    let before = found(&api, &text).await?;
    let update = TenantUpdate {
        display: form.display,
        suspended: None,
        quotas: form.quotas.map(|quotas| complete("quotas", Some(quotas), &before.quotas)).transpose()?,
        grants: form.grants.map(|grants| complete("grants", Some(grants), &before.grants)).transpose()?,
    };
    let after = api.store.update_tenant(&before.name, Some(form.revision), update).await?;
    Ok(changed(Some(&before), Some(&after), Answer(shown(&after)).into_response()))
}

async fn set_suspended(api: &Api, caller: &Caller, text: &str, suspended: bool) -> Result<Response, ApiError> {
    caller.require_operator()?;
    let before = found(api, text).await?;
    let update = TenantUpdate { suspended: Some(suspended), ..TenantUpdate::default() };
    let after = api.store.update_tenant(&before.name, None, update).await?;
    Ok(changed(Some(&before), Some(&after), Answer(shown(&after)).into_response()))
}

async fn suspend(
    State(api): State<Api>,
    caller: Caller,
    Segments(text): Segments<String>,
) -> Result<Response, ApiError> {
    set_suspended(&api, &caller, &text, true).await
}

async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Segments(text): Segments<String>,
) -> Result<Response, ApiError> {
    set_suspended(&api, &caller, &text, false).await
}

async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Segments(text): Segments<String>,
) -> Result<Response, ApiError> {
    caller.require_operator()?;
    let before = api.store.delete_tenant(&name(&text)?).await?;
    Ok(changed(Some(&before), None, Answer(json!({ "deleted": text })).into_response()))
}

impl From<TenantError> for ApiError {
    fn from(error: TenantError) -> Self {
        let text = error.to_string();
        match error {
            TenantError::NotFound { .. } => Self::new(ApiCode::TenantNotFound, text),
            TenantError::Exists { .. } => Self::new(ApiCode::TenantExists, text),
            TenantError::Conflict { revision, .. } => {
                Self::new(ApiCode::Conflict, text).with_details(json!({ "revision": revision }))
            }
            TenantError::InUse { .. } | TenantError::TooMany { .. } => Self::new(ApiCode::Conflict, text),
            TenantError::Invalid { what, .. } => {
                Self::new(ApiCode::InvalidRequest, text).with_details(json!({ "what": what }))
            }
            TenantError::Store(error) => error.into(),
        }
    }
}
