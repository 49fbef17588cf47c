//! `/api/v1/keys`: API keys of the caller's own realm, and for the operator those of tenants.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::{parse_time, print_time};
use sluicegate_connectors::quantity::Span;
use sluicegate_store::api_key::{ApiKey, KeyError, KeyText, NewKey};
use sluicegate_store::tenant::{Realm, TenantName};

use super::queues::page_items;
use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::identity::{Audited, Caller, Scope};

/// How long the secret of before stays good after a rotation, unless it is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(3_600);
/// And at most.
const LONGEST_GRACE: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/keys", get(list).post(create))
        .route("/keys/{prefix}", get(show).delete(revoke))
        .route("/keys/{prefix}/rotate", post(rotate))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}

/// A key as JSON; nothing of its secret.
pub(crate) fn shown(key: &ApiKey) -> Value {
    json!({
        "prefix": key.prefix,
        "tenant": key.realm.tenant().map(TenantName::as_str),
        "name": key.name,
        "scopes": key.scopes,
        "createdAt": print_time(key.created_at_ms),
        "rotatedAt": key.rotated_at_ms.map(print_time),
        "previousUntil": key.previous_until_ms.map(print_time),
        "expiresAt": key.expires_at_ms.map(print_time),
        "revokedAt": key.revoked_at_ms.map(print_time),
        "lastUsedAt": key.last_used_ms.map(print_time),
    })
}

/// The same with the key's text, which is shown this once.
pub(crate) fn shown_once(key: &ApiKey, text: &KeyText) -> Value {
    let mut document = shown(key);
    document["key"] = text.expose().into();
    document
}

/// The realm that is meant: the caller's, or for the operator that of the tenant it names. To a tenant, other realms do not
/// exist.
fn realm(caller: &Caller, tenant: Option<&str>) -> Result<Realm, ApiError> {
    let Some(name) = tenant else { return Ok(caller.realm.clone()) };
    let none = || KeyError::TenantNotFound { tenant: name.to_owned() };
    let named = TenantName::parse(name).ok_or_else(none)?;
    match &caller.realm {
        Realm::Operator => Ok(Realm::Tenant(named)),
        own if own.tenant() == Some(&named) => Ok(own.clone()),
        Realm::Tenant(_) => Err(none().into()),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    tenant: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantQuery {
    tenant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CreateForm {
    name: String,
    scopes: Vec<String>,
    tenant: Option<String>,
    expires_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateForm {
    grace: Option<Span>,
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Value>, ApiError> {
    let realm = realm(&caller, query.tenant.as_deref())?;
    let page = api.store.reader().api_keys(&realm, page_items(query.limit)?, query.after.as_deref()).await?;
    let keys: Vec<Value> = page.items.iter().map(shown).collect();
    Ok(Answer(json!({ "keys": keys, "next": page.next })))
}

async fn create(State(api): State<Api>, caller: Caller, Input(form): Input<CreateForm>) -> Result<Response, ApiError> {
    let realm = realm(&caller, form.tenant.as_deref())?;
    if let Some(unknown) = form.scopes.iter().find(|name| Scope::parse(name).is_none()) {
        let known = Scope::ALL.map(Scope::name).join(", ");
        return Err(invalid(format!("`{unknown}` is no scope; there are {known}")));
    }
    let expires_at_ms = form.expires_at.as_deref().map(parse_time).transpose();
    let expires_at_ms = expires_at_ms.map_err(|problem| invalid(format!("`expiresAt`: {problem}")))?;
    let new = NewKey { realm, name: form.name, scopes: form.scopes, expires_at_ms };
    let (key, text) = api.store.create_api_key(new).await?;
    Ok(changed(None, &key, Answer(shown_once(&key, &text)).created()))
}

async fn one(api: &Api, realm: &Realm, prefix: &str) -> Result<ApiKey, ApiError> {
    let found = api.store.reader().stored_keys(vec![prefix.to_owned()]).await?;
    let own = found.into_iter().map(|stored| stored.key).find(|key| key.realm == *realm);
    own.ok_or_else(|| KeyError::NotFound { prefix: prefix.to_owned() }.into())
}

async fn show(
    State(api): State<Api>,
    caller: Caller,
    Segments(prefix): Segments<String>,
    Query(query): Query<TenantQuery>,
) -> Result<Answer<Value>, ApiError> {
    Ok(Answer(shown(&one(&api, &realm(&caller, query.tenant.as_deref())?, &prefix).await?)))
}

async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Segments(prefix): Segments<String>,
    Query(query): Query<TenantQuery>,
    Input(form): Input<RotateForm>,
) -> Result<Response, ApiError> {
    let grace = form.grace.map_or(DEFAULT_GRACE, |grace| grace.0);
    if grace > LONGEST_GRACE {
        return Err(invalid("`grace` is longer than 30d"));
    }
    let realm = realm(&caller, query.tenant.as_deref())?;
    let before = one(&api, &realm, &prefix).await?;
    let (key, text) = api.store.rotate_api_key(&realm, &prefix, grace).await?;
    Ok(changed(Some(&before), &key, Answer(shown_once(&key, &text)).into_response()))
}

async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Segments(prefix): Segments<String>,
    Query(query): Query<TenantQuery>,
) -> Result<Response, ApiError> {
    let realm = realm(&caller, query.tenant.as_deref())?;
    let before = one(&api, &realm, &prefix).await?;
    let key = api.store.revoke_api_key(&realm, &prefix).await?;
    Ok(changed(Some(&before), &key, Answer(shown(&key)).into_response()))
}

fn changed(before: Option<&ApiKey>, after: &ApiKey, mut response: Response) -> Response {
    let resource = Some(format!("/keys/{}", after.prefix));
    response.extensions_mut().insert(Audited { resource, before: before.map(shown), after: Some(shown(after)) });
    response
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let text = error.to_string();
        match error {
            KeyError::NotFound { .. } => Self::new(ApiCode::KeyNotFound, text),
            KeyError::TenantNotFound { .. } => Self::new(ApiCode::TenantNotFound, text),
            KeyError::Revoked { .. } | KeyError::Taken { .. } | KeyError::TooMany { .. } => {
                Self::new(ApiCode::Conflict, text)
            }
            KeyError::Invalid { what, .. } => {
                Self::new(ApiCode::InvalidRequest, text).with_details(json!({ "what": what }))
            }
            KeyError::NoRandomness => Self::new(ApiCode::Internal, text),
            KeyError::Store(error) => error.into(),
        }
    }
}
