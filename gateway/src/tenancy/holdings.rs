//! What tenants have, read from the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_store::Store;
use sluicegate_store::queue::{MAX_PAGE_ITEMS, Queues};
use sluicegate_store::resource::{Resource, ResourceId, ResourceKind};
use sluicegate_store::tenant::{Realm, Tenant, TenantName};

use super::translation::translate;
use crate::config::{Document, DocumentKind, Holdings};

/// What a tenant has, and what it wants to run of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Estate {
    /// For its configuration: documents that rest are not in it.
    pub holdings: Holdings,
    /// All resources that are pipelines.
    pub wanted: Vec<Wanted>,
}

/// A resource that is a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: ResourceId,
    /// Its revision.
    pub revision: u64,
    /// The [title](Document::title) of its document.
    pub title: String,
    /// Whether it is not to run now.
    pub is_resting: bool,
}

/// All tenants that have any.
pub(super) async fn all(store: &Arc<Store>, queues: &Queues) -> anyhow::Result<BTreeMap<TenantName, Estate>> {
    let mut resources: BTreeMap<TenantName, Vec<Resource>> = BTreeMap::new();
    for resource in store.reader().all_resources(None).await? {
        resources.entry(resource.id.tenant.clone()).or_default().push(resource);
    }
    if resources.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut names = queue_names(queues, None).await?;
    let tenants = store.reader().all_tenants().await?.into_iter();
    let estates = tenants.filter_map(|tenant| {
        let resources = resources.remove(&tenant.name)?;
        let queues = names.remove(&Realm::Tenant(tenant.name.clone())).unwrap_or_default();
        Some((tenant.name.clone(), estate(&tenant, resources, queues)))
    });
    Ok(estates.collect())
}

/// One tenant's; none if there is no such tenant.
pub(super) async fn of(store: &Arc<Store>, queues: &Queues, name: &TenantName) -> anyhow::Result<Option<Estate>> {
    let Some(tenant) = store.reader().tenant(name).await? else { return Ok(None) };
    let resources = store.reader().all_resources(Some(name)).await?;
    let mut names = queue_names(queues, Some(name)).await?;
    let queues = names.remove(&Realm::Tenant(name.clone())).unwrap_or_default();
    Ok(Some(estate(&tenant, resources, queues)))
}

/// That of a tenant that has nothing.
pub(super) fn nothing(tenant: TenantName) -> Estate {
    let holdings = Holdings {
        tenant,
        documents: Vec::new(),
        queues: Vec::new(),
        plugins: Vec::new(),
        sources: Vec::new(),
        targets: Vec::new(),
        max_in_flight: 1,
    };
    Estate { holdings, wanted: Vec::new() }
}

fn estate(tenant: &Tenant, resources: Vec<Resource>, queues: Vec<String>) -> Estate {
    let mut wanted = Vec::new();
    let mut documents = Vec::new();
    for resource in resources {
        let (kind, (name, text)) = match resource.id.kind {
            ResourceKind::Schema => (DocumentKind::Schema, (resource.id.name.clone(), resource.document)),
            kind => (DocumentKind::Pipeline, translate(kind, &resource.id.name, resource.document)),
        };
        let document = Document { kind, name, text: text.into() };
        if kind == DocumentKind::Pipeline {
            let is_resting = resource.is_paused || tenant.suspended;
            let title = document.title();
            wanted.push(Wanted { id: resource.id, revision: resource.revision, title, is_resting });
            if is_resting {
                continue;
            }
        }
        documents.push(document);
    }
    let holdings = Holdings {
        tenant: tenant.name.clone(),
        documents,
        queues,
        plugins: Vec::new(),
        sources: tenant.grants.sources.iter().cloned().collect(),
        targets: tenant.grants.targets.iter().cloned().collect(),
        max_in_flight: tenant.quotas.in_flight.max(1),
    };
    Estate { holdings, wanted }
}

/// Queues by whose they are, under the names their owners know them by.
async fn queue_names(queues: &Queues, of: Option<&TenantName>) -> anyhow::Result<BTreeMap<Realm, Vec<String>>> {
    let prefix = of.map(|tenant| Realm::Tenant(tenant.clone())).and_then(|realm| realm.prefix()).unwrap_or_default();
    let mut names: BTreeMap<Realm, Vec<String>> = BTreeMap::new();
    let mut after = (!prefix.is_empty()).then(|| prefix.clone());
    loop {
        let page = queues.list(MAX_PAGE_ITEMS, after.as_deref()).await?;
        for queue in &page.items {
            if !queue.name.starts_with(&prefix) {
                return Ok(names);
            }
            let realm = Realm::of(&queue.name);
            let short = realm.short(&queue.name).unwrap_or(&queue.name).to_owned();
            names.entry(realm).or_default().push(short);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}
