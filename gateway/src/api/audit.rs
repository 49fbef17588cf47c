//! `/api/v1/audit`: who changed or was denied what, of the caller's own realm; of all for the operator. And `/api/v1/whoami`.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::{parse_time, print_time};
use sluicegate_store::StoreError;
use sluicegate_store::audit::{AuditFilter, AuditOutcome, AuditRecord};
use sluicegate_store::tenant::{Realm, TenantName};

use super::queues::page_items;
use super::{Answer, Api, ApiCode, ApiError, Query};
use crate::identity::{Caller, Scope};

/// Entries that an export reads at a time.
const EXPORT_PAGE_ENTRIES: usize = 500;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/audit", get(list)).route("/audit/export", get(export)).route("/whoami", get(whoami))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    tenant: Option<String>,
    actor: Option<String>,
    action: Option<String>,
    resource: Option<String>,
    outcome: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

fn invalid(text: String) -> ApiError {
    ApiError::new(ApiCode::InvalidRequest, text)
}

impl Wanted {
    /// A tenant sees its own, whatever it asks for.
    fn filter(self, caller: &Caller) -> Result<AuditFilter, ApiError> {
        let realm = match (&caller.realm, self.tenant.as_deref()) {
            (Realm::Operator, None) => None,
            (Realm::Operator, Some(name)) => {
                let tenant =
                    TenantName::parse(name).ok_or_else(|| invalid(format!("`{name}` is not the name of a tenant")))?;
                Some(Realm::Tenant(tenant))
            }
            (own @ Realm::Tenant(_), _) => Some(own.clone()),
        };
        let outcome = self.outcome.as_deref().map(|name| {
            AuditOutcome::parse(name).ok_or_else(|| {
                invalid(format!("`outcome` is none of {}", AuditOutcome::ALL.map(AuditOutcome::name).join(", ")))
            })
        });
        let time = |name: &str, text: Option<&str>| {
            text.map(parse_time).transpose().map_err(|problem| invalid(format!("`{name}`: {problem}")))
        };
        Ok(AuditFilter {
            realm,
            outcome: outcome.transpose()?,
            since_ms: time("since", self.since.as_deref())?,
            until_ms: time("until", self.until.as_deref())?,
            actor: self.actor,
            action: self.action,
            resource: self.resource,
        })
    }
}

/// An entry as JSON.
pub(crate) fn shown(record: &AuditRecord) -> Value {
    let entry = &record.entry;
    json!({
        "seq": record.seq,
        "at": print_time(entry.at_ms),
        "actor": entry.actor,
        "tenant": entry.realm.tenant().map(TenantName::as_str),
        "action": entry.action,
        "resource": entry.resource,
        "before": entry.before,
        "after": entry.after,
        "outcome": entry.outcome.name(),
        "address": entry.address,
        "repeats": entry.repeats,
    })
}

async fn list(State(api): State<Api>, caller: Caller, Query(wanted): Query<Wanted>) -> Result<Answer<Value>, ApiError> {
    let (limit, after) = (page_items(wanted.limit)?, wanted.after.clone());
    let page = api.store.reader().audit(&wanted.filter(&caller)?, limit, after.as_deref()).await.map_err(refused)?;
    let entries: Vec<Value> = page.items.iter().map(shown).collect();
    Ok(Answer(json!({ "entries": entries, "next": page.next })))
}

/// JSON Lines, newest first.
async fn export(State(api): State<Api>, caller: Caller, Query(wanted): Query<Wanted>) -> Result<Response, ApiError> {
    if wanted.limit.is_some() {
        return Err(invalid("an export has no `limit`; `since` and `until` bound it".to_owned()));
    }
    let after = wanted.after.clone();
    let filter = wanted.filter(&caller)?;
    let first = api.store.reader().audit(&filter, EXPORT_PAGE_ENTRIES, after.as_deref()).await.map_err(refused)?;
    let pages = stream::try_unfold(Some((first, None::<String>)), move |state| {
        let (store, filter) = (api.store.clone(), filter.clone());
        async move {
            let Some((mut page, after)) = state else { return Ok::<_, StoreError>(None) };
            if let Some(after) = after {
                page = store.reader().audit(&filter, EXPORT_PAGE_ENTRIES, Some(&after)).await?;
            }
            let lines: String = page.items.iter().map(|record| format!("{}\n", shown(record))).collect();
            let next = page.next.take();
            Ok(Some((lines, next.map(|next| (page, Some(next))))))
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pages)).into_response())
}

fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::PageToken { .. } => invalid(error.to_string()),
        other => other.into(),
    }
}

async fn whoami(caller: Caller) -> Answer<Value> {
    Answer(json!({
        "identity": caller.credential.to_string(),
        "tenant": caller.realm.tenant().map(TenantName::as_str),
        "scopes": caller.scopes.iter().map(Scope::name).collect::<Vec<_>>(),
        "address": caller.address,
    }))
}
