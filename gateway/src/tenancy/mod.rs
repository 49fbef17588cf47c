//! Tenants' pipelines: from the documents in the store to pipelines that run.
//!
//! [`Tenancy::look`] reads what all tenants have and resolves what has changed since it looked last; the gateway then swaps
//! pipelines as it does after a reload ([`Gateway::follow_tenants`](crate::gateway::Gateway::follow_tenants)). A document
//! with a mistake (a grant was taken back, a queue deleted) stops its own pipeline and nothing else; the API shows why.

mod holdings;
mod states;
mod translation;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_store::Store;
use sluicegate_store::queue::Queues;
use sluicegate_store::tenant::TenantName;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::config::{Config, Diagnostics, Document, Holdings, Loaded, load_tenant};

pub use holdings::{Estate, Wanted};
pub use states::{PipelineState, States};
pub use translation::{RESERVED_PREFIXES, translate};

/// Reads and resolves what tenants have.
pub struct Tenancy {
    store: Arc<Store>,
    queues: Queues,
    /// What each tenant had when it was last looked at.
    known: BTreeMap<TenantName, Arc<Estate>>,
    states: watch::Sender<Arc<States>>,
}

/// What a tenant has now.
pub struct Changed {
    /// Who it is.
    pub tenant: TenantName,
    /// Its pipelines that can run.
    pub loaded: Arc<Loaded>,
    /// What is wrong with the documents of the others, by the document's [title](Document::title).
    pub mistakes: BTreeMap<String, Arc<Diagnostics>>,
    /// All its resources that are pipelines.
    pub wanted: Vec<Wanted>,
}

impl Tenancy {
    /// Knows nothing yet.
    pub fn new(store: Arc<Store>, queues: Queues) -> Self {
        Self { store, queues, known: BTreeMap::new(), states: watch::Sender::default() }
    }

    /// What becomes of every tenant's pipelines, as it changes.
    pub fn states(&self) -> watch::Receiver<Arc<States>> {
        self.states.subscribe()
    }

    /// Shows what has become of pipelines.
    pub(crate) fn show(&self, states: States) {
        self.states.send_replace(Arc::new(states));
    }

    /// Tenants that have something else than when they were last looked at; all of them if the operator's configuration
    /// has changed (`afresh`). One that has nothing any more is among them, with no pipelines. If this fails or is
    /// dropped, the next look finds the same again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn look(&mut self, operator: &Arc<Config>, afresh: bool) -> anyhow::Result<Vec<Changed>> {
        let mut all = holdings::all(&self.store, &self.queues).await?;
        for gone in self.known.keys().filter(|tenant| !all.contains_key(*tenant)).cloned().collect::<Vec<_>>() {
            all.insert(gone.clone(), holdings::nothing(gone));
        }
        let is_new = |tenant: &TenantName, now: &Estate| self.known.get(tenant).is_none_or(|before| **before != *now);
        let changed: Vec<_> = all.into_iter().filter(|(tenant, now)| afresh || is_new(tenant, now)).collect();
        // Parsing and compiling schemas takes processor time: not on a worker of the runtime.
        let operator = Arc::clone(operator);
        let resolving = tokio::task::spawn_blocking(move || {
            let resolve = |(_, estate): (TenantName, Estate)| {
                let resolved = resolved(&operator, &estate);
                (Arc::new(estate), resolved)
            };
            changed.into_iter().map(resolve).collect::<Vec<_>>()
        });
        let resolved = resolving.await.map_err(|error: JoinError| anyhow::anyhow!("resolving failed: {error}"))?;
        let mut changed = Vec::with_capacity(resolved.len());
        for (estate, resolved) in resolved {
            if estate.holdings.documents.is_empty() && estate.wanted.is_empty() {
                self.known.remove(&estate.holdings.tenant);
            } else {
                self.known.insert(estate.holdings.tenant.clone(), estate);
            }
            changed.push(resolved);
        }
        Ok(changed)
    }
}

/// Takes out documents with mistakes until the others can be resolved.
fn resolved(operator: &Config, estate: &Estate) -> Changed {
    let (mut holdings, wanted) = (estate.holdings.clone(), estate.wanted.clone());
    let tenant = holdings.tenant.clone();
    let mut mistakes = BTreeMap::new();
    loop {
        let diagnostics = match load_tenant(operator, &holdings) {
            Ok(loaded) => return Changed { tenant, loaded: Arc::new(loaded), mistakes, wanted },
            Err(diagnostics) => Arc::new(diagnostics),
        };
        let is_wrong = |document: &Document| diagnostics.concern(&document.title());
        // What stands in no document is wrong with all of them.
        let all = !holdings.documents.iter().any(is_wrong);
        let (wrong, right) = std::mem::take(&mut holdings.documents).into_iter().partition(|d| all || is_wrong(d));
        let wrong: Vec<Document> = wrong;
        assert!(!wrong.is_empty(), "a tenant without documents has mistakes: {diagnostics}");
        mistakes.extend(wrong.iter().map(|document| (document.title(), Arc::clone(&diagnostics))));
        holdings.documents = right;
    }
}

/// What is wrong with one more document beside those that a tenant has, without taking it; `Ok` has what it would be.
///
/// # Errors
/// Every mistake that concerns the document.
pub fn try_document(operator: &Config, mut holdings: Holdings, document: Document) -> Result<Loaded, Diagnostics> {
    let title = document.title();
    holdings.documents.retain(|other| other.title() != title);
    holdings.documents.push(document);
    loop {
        let diagnostics = match load_tenant(operator, &holdings) {
            Ok(loaded) => return Ok(loaded),
            Err(diagnostics) => diagnostics,
        };
        // Mistakes of others are theirs; schemas stay, for what refers to one that is wrong is wrong, too.
        let before = holdings.documents.len();
        holdings.documents.retain(|other| other.title() == title || !diagnostics.concern(&other.title()));
        if diagnostics.concern(&title) || holdings.documents.len() == before {
            return Err(diagnostics);
        }
    }
}

/// What a tenant has at this moment; none if there is no such tenant.
///
/// # Errors
/// The store cannot be read.
pub async fn estate(store: &Arc<Store>, queues: &Queues, tenant: &TenantName) -> anyhow::Result<Option<Estate>> {
    holdings::of(store, queues, tenant).await
}
