//! What tenants make: `/api/v1/pipelines`, `/api/v1/schemas`, `/api/v1/routes`, `/api/v1/subscriptions`. One shape
//! for all: a document with a revision, a history, and what has become of it.

mod check;
mod documents;
mod dry_run;
mod schemas;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_connectors::cloudevents::print_time;
use sluicegate_store::resource::{Edit, Edited, MAX_RESOURCES, Resource, ResourceId, ResourceKind};
use sluicegate_store::tenant::{Realm, TenantName, is_name};
use tokio::time::timeout;

use super::queues::{PageQuery, page_items};
use super::{Answer, Api, ApiCode, ApiError, Input, Query, Segments};
use crate::identity::{Caller, Scope};
use crate::tenancy::{PipelineState, RESERVED_PREFIXES};

/// How long a request waits for its change to be live at this gateway before it is answered without.
const LIVE_LIMIT: Duration = Duration::from_secs(3);

pub(super) fn routes() -> Router<Api> {
    let pipelines = Router::new()
        .route("/pipelines", get(list_pipelines).post(create::<PIPELINE>))
        .route("/pipelines/validate", post(check::validate))
        .route("/pipelines/{name}", get(show::<PIPELINE>).put(update::<PIPELINE>).delete(remove::<PIPELINE>))
        .route("/pipelines/{name}/pause", post(pause::<PIPELINE>))
        .route("/pipelines/{name}/resume", post(resume::<PIPELINE>))
        .route("/pipelines/{name}/history", get(history::<PIPELINE>))
        .route("/pipelines/{name}/dry-run", post(dry_run::dry_run));
    let routes = Router::new()
        .route("/routes", get(list::<ROUTE>).post(create::<ROUTE>))
        .route("/routes/{name}", get(show::<ROUTE>).put(update::<ROUTE>).delete(remove::<ROUTE>))
        .route("/routes/{name}/pause", post(pause::<ROUTE>))
        .route("/routes/{name}/resume", post(resume::<ROUTE>))
        .route("/routes/{name}/history", get(history::<ROUTE>));
    let subscriptions = Router::new()
        .route("/subscriptions", get(list::<SUBSCRIPTION>).post(create::<SUBSCRIPTION>))
        .route(
            "/subscriptions/{name}",
            get(show::<SUBSCRIPTION>).put(update::<SUBSCRIPTION>).delete(remove::<SUBSCRIPTION>),
        )
        .route("/subscriptions/{name}/pause", post(pause::<SUBSCRIPTION>))
        .route("/subscriptions/{name}/resume", post(resume::<SUBSCRIPTION>))
        .route("/subscriptions/{name}/history", get(history::<SUBSCRIPTION>));
    let schemas = Router::new()
        .route("/schemas", get(list::<SCHEMA>).post(create::<SCHEMA>))
        .route("/schemas/{name}", get(show::<SCHEMA>).put(update::<SCHEMA>).delete(remove::<SCHEMA>))
        .route("/schemas/{name}/history", get(history::<SCHEMA>))
        .route("/schemas/{name}/compatibility", post(schemas::compatibility));
    pipelines.merge(routes).merge(subscriptions).merge(schemas)
}

// Kinds as constants of types, so that one function serves each path.
const PIPELINE: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const SCHEMA: u8 = 2;
const ROUTE: u8 = 3;

fn kind(number: u8) -> ResourceKind {
    match number {
        SUBSCRIPTION => ResourceKind::Subscription,
        SCHEMA => ResourceKind::Schema,
        ROUTE => ResourceKind::Route,
        _pipeline => ResourceKind::Pipeline,
    }
}

/// The tenant that calls, if its credential allows it.
fn tenant(caller: &Caller, scope: Scope) -> Result<TenantName, ApiError> {
    caller.require(scope)?;
    match &caller.realm {
        Realm::Tenant(tenant) => Ok(tenant.clone()),
        Realm::Operator => {
            let text = "what an operator runs stands in the gateway's configuration files; this path is for tenants";
            Err(ApiError::new(ApiCode::Conflict, text))
        }
    }
}

fn id(tenant: &TenantName, kind: ResourceKind, name: &str) -> ResourceId {
    ResourceId { tenant: tenant.clone(), kind, name: name.to_owned() }
}

fn not_found(id: &ResourceId) -> ApiError {
    let text = format!("you have no {} `{}`", id.kind.name(), id.name);
    ApiError::new(ApiCode::ResourceNotFound, text)
}

/// A resource to make or change.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ResourceForm {
    name: Option<String>,
    /// What it says: an object, or YAML or JSON as a text.
    #[serde(alias = "pipeline", alias = "schema", alias = "route", alias = "subscription")]
    document: Value,
    #[serde(default)]
    paused: bool,
    /// The revision that the change is based on.
    revision: Option<u64>,
    /// Of a schema: whether it must accept all that the one before did. It must, unless this says `none`.
    #[serde(default)]
    compatibility: Compatibility,
}

/// What a new version of a schema must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compatibility {
    #[default]
    Backward,
    None,
}

/// The revision that a removal is based on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevisionQuery {
    revision: Option<u64>,
}

async fn list_pipelines(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Value>, ApiError> {
    if caller.realm == Realm::Operator {
        caller.require(Scope::Read)?;
        let in_force = Arc::clone(&api.in_force.borrow());
        let shown = in_force.pipelines().map(|pipeline| {
            let targets: Vec<_> = pipeline
                .targets
                .iter()
                .map(|(name, target)| json!({ "name": **name, "system": target.system() }))
                .collect();
            let steps: Vec<_> =
                pipeline.steps.iter().map(|step| json!({ "kind": step.kind(), "subject": step.subject() })).collect();
            json!({ "name": *pipeline.name, "source": pipeline.source.system(), "steps": steps, "targets": targets })
        });
        return Ok(Answer(json!({ "pipelines": shown.collect::<Vec<_>>(), "next": null })));
    }
    listed(&api, &caller, ResourceKind::Pipeline, &query).await
}

async fn list<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Value>, ApiError> {
    listed(&api, &caller, kind(KIND), &query).await
}

async fn listed(api: &Api, caller: &Caller, kind: ResourceKind, query: &PageQuery) -> Result<Answer<Value>, ApiError> {
    let tenant = tenant(caller, Scope::Read)?;
    let limit = page_items(query.limit)?;
    let found = api.store.reader().resources(&tenant, kind, limit + 1, query.after.as_deref()).await?;
    let next = (found.len() > limit).then(|| found[limit - 1].id.name.clone());
    let shown: Vec<Value> = found.iter().take(limit).map(|resource| shown(api, resource, false)).collect();
    Ok(Answer(json!({ (plural(kind)): shown, "next": next })))
}

fn plural(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Pipeline => "pipelines",
        ResourceKind::Subscription => "subscriptions",
        ResourceKind::Schema => "schemas",
        ResourceKind::Route => "routes",
    }
}

async fn create<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Input(form): Input<ResourceForm>,
) -> Result<Response, ApiError> {
    let (tenant, kind) = (tenant(&caller, Scope::Admin)?, kind(KIND));
    let invalid = |text: String| ApiError::new(ApiCode::InvalidRequest, text);
    let Some(name) = &form.name else {
        return Err(invalid("`name` is missing: a new resource needs one".to_owned()));
    };
    if !is_name(name) {
        let text =
            "`name` is not usable: a name has at most 64 of a-z, 0-9, `-` and `_`, and begins with a letter or digit";
        return Err(invalid(text.to_owned()));
    }
    if kind == ResourceKind::Pipeline && RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(invalid(format!(
            "`name` begins as the pipelines of subscriptions and routes do ({}); choose another",
            RESERVED_PREFIXES.join(", ")
        )));
    }
    let id = id(&tenant, kind, name);
    let document = documents::written(&form.document, None)?;
    check::document(&api, &id, &document).await?;
    check::quota(&api, &id).await?;
    let edit = Edit::Create { document, is_paused: form.paused };
    let made = edited(&api, &caller, &id, edit, None).await?;
    Ok(Answer(live(&api, &made).await).created())
}

async fn show<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let id = id(&tenant(&caller, Scope::Read)?, kind(KIND), &name);
    let resource = api.store.reader().resource(&id).await?.ok_or_else(|| not_found(&id))?;
    Ok(Answer(shown(&api, &resource, true)))
}

async fn update<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
    Input(form): Input<ResourceForm>,
) -> Result<Answer<Value>, ApiError> {
    let id = id(&tenant(&caller, Scope::Admin)?, kind(KIND), &name);
    if form.name.as_ref().is_some_and(|new| *new != name) {
        let text = "`name` differs from the URL's: a resource keeps its name";
        return Err(ApiError::new(ApiCode::InvalidRequest, text));
    }
    let before = api.store.reader().resource(&id).await?.ok_or_else(|| not_found(&id))?;
    let document = documents::written(&form.document, Some(&before.document))?;
    check::document(&api, &id, &document).await?;
    if id.kind == ResourceKind::Schema && form.compatibility == Compatibility::Backward {
        schemas::refuse_incompatible(&before.document, &document)?;
    }
    let made = edited(&api, &caller, &id, Edit::Update { document }, form.revision).await?;
    Ok(Answer(live(&api, &made).await))
}

async fn remove<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
    Query(query): Query<RevisionQuery>,
) -> Result<Answer<Value>, ApiError> {
    let id = id(&tenant(&caller, Scope::Admin)?, kind(KIND), &name);
    check::unused(&api, &id).await?;
    edited(&api, &caller, &id, Edit::Delete, query.revision).await?;
    Ok(Answer(json!({ "deleted": name })))
}

async fn pause<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    turn(&api, &caller, kind(KIND), &name, Edit::Pause).await
}

async fn resume<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    turn(&api, &caller, kind(KIND), &name, Edit::Resume).await
}

async fn turn(
    api: &Api,
    caller: &Caller,
    kind: ResourceKind,
    name: &str,
    edit: Edit,
) -> Result<Answer<Value>, ApiError> {
    let id = id(&tenant(caller, Scope::Admin)?, kind, name);
    let made = edited(api, caller, &id, edit, None).await?;
    Ok(Answer(live(api, &made).await))
}

async fn history<const KIND: u8>(
    State(api): State<Api>,
    caller: Caller,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let id = id(&tenant(&caller, Scope::Read)?, kind(KIND), &name);
    let revisions = api.store.reader().resource_history(&id).await?;
    if revisions.is_empty() {
        return Err(not_found(&id));
    }
    let shown = revisions.iter().map(|revision| {
        json!({
            "revision": revision.revision,
            "change": revision.change,
            "at": print_time(revision.at_ms),
            "by": revision.by,
            "document": documents::shown(&revision.document),
        })
    });
    Ok(Answer(json!({ "history": shown.collect::<Vec<_>>() })))
}

async fn edited(
    api: &Api,
    caller: &Caller,
    id: &ResourceId,
    edit: Edit,
    revision: Option<u64>,
) -> Result<Resource, ApiError> {
    let conflict = |text: String| ApiError::new(ApiCode::Conflict, text);
    match api.store.edit_resource(id, edit, revision, &caller.credential.to_string()).await? {
        Edited::Done(resource) => Ok(resource),
        Edited::NotFound => Err(not_found(id)),
        Edited::Exists => {
            let text = format!("you have a {} `{}` already; PUT changes it", id.kind.name(), id.name);
            Err(ApiError::new(ApiCode::ResourceExists, text))
        }
        Edited::Conflict(now) => Err(conflict(format!(
            "`{}` has been changed meanwhile: it has revision {now}; read it again and repeat your change on that",
            id.name
        ))
        .with_details(json!({ "revision": now }))),
        Edited::Full => {
            let text = format!("a tenant has at most {MAX_RESOURCES} resources of a kind; delete one first");
            Err(ApiError::new(ApiCode::QuotaExceeded, text))
        }
    }
}

/// The resource as this gateway runs it; within [`LIVE_LIMIT`] what has become of it is known, too.
async fn live(api: &Api, resource: &Resource) -> Value {
    if resource.id.kind != ResourceKind::Schema {
        let mut states = api.states.clone();
        let is_known = states.wait_for(|states| states.of(&resource.id, resource.revision).is_some());
        // Without an answer in time it is shown as pending.
        drop(timeout(LIVE_LIMIT, is_known).await);
    }
    shown(api, resource, true)
}

fn shown(api: &Api, resource: &Resource, whole: bool) -> Value {
    let mut shown = json!({
        "name": resource.id.name,
        "revision": resource.revision,
        "createdAt": print_time(resource.created_at_ms),
        "updatedAt": print_time(resource.updated_at_ms),
    });
    if resource.id.kind != ResourceKind::Schema {
        shown["paused"] = json!(resource.is_paused);
        let states = Arc::clone(&api.states.borrow());
        let (state, why) = match states.of(&resource.id, resource.revision) {
            None => ("pending", None),
            Some(PipelineState::Running) => ("running", None),
            Some(PipelineState::Paused) => ("paused", None),
            Some(PipelineState::Mistaken(diagnostics)) => ("mistaken", Some(diagnostics.to_json())),
            Some(PipelineState::NotBuilt(why)) => ("not_built", Some(json!({ "text": **why }))),
        };
        shown["state"] = json!(state);
        if let Some(why) = why {
            shown["why"] = why;
        }
    }
    if whole {
        shown["document"] = documents::shown(&resource.document);
    }
    shown
}
