//! Tenants' pipelines: from the documents in the store to pipelines that run.
//!
//! [`Tenancy::look`] reads what all tenants have and resolves what has changed since it looked last; the gateway then swaps
//! pipelines as it does after a reload ([`Gateway::follow_tenants`](crate::gateway::Gateway::follow_tenants)). A document
//! with a mistake (a grant was taken back, a queue deleted) stops its own pipeline and nothing else; the API shows why.

mod holdings;
mod states;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_store::Store;
use sluicegate_store::queue::Queues;
use sluicegate_store::tenant::TenantName;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::config::{Config, Diagnostics, Document, Holdings, Loaded, load_tenant};

pub use holdings::{Grants, Translated, translate};
pub use states::{PipelineState, States};

/// Most mistaken documents that are taken out one after the other before a tenant is given up as a whole.
const MAX_ROUNDS: usize = 1_000;

/// Reads and resolves what tenants have.
pub struct Tenancy {
    store: Arc<Store>,
    queues: Queues,
    /// What each tenant had when it was last looked at.
    known: BTreeMap<TenantName, Arc<Holdings>>,
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
        let is_new = |tenant: &TenantName, now: &Holdings| self.known.get(tenant).is_none_or(|before| **before != *now);
        let changed: Vec<_> = all.into_iter().filter(|(tenant, now)| afresh || is_new(tenant, now)).collect();
        // Parsing and compiling schemas takes processor time: not on a worker of the runtime.
        let operator = Arc::clone(operator);
        let resolving = tokio::task::spawn_blocking(move || {
            let resolve = |(tenant, holdings): (TenantName, Holdings)| {
                let holdings = Arc::new(holdings);
                (Arc::clone(&holdings), resolved(&operator, tenant, &holdings))
            };
            changed.into_iter().map(resolve).collect::<Vec<_>>()
        });
        let resolved = resolving.await.map_err(|error: JoinError| anyhow::anyhow!("resolving failed: {error}"))?;
        let mut changed = Vec::with_capacity(resolved.len());
        for (holdings, resolved) in resolved {
            if holdings.documents.is_empty() {
                self.known.remove(&holdings.tenant);
            } else {
                self.known.insert(holdings.tenant.clone(), holdings);
            }
            changed.push(resolved);
        }
        Ok(changed)
    }
}

/// Takes out documents with mistakes until the others can be resolved.
fn resolved(operator: &Config, tenant: TenantName, holdings: &Holdings) -> Changed {
    let mut holdings = holdings.clone();
    let mut mistakes = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let diagnostics = match load_tenant(operator, &holdings) {
            Ok(loaded) => return Changed { tenant, loaded: Arc::new(loaded), mistakes },
            Err(diagnostics) => Arc::new(diagnostics),
        };
        let is_wrong = |document: &Document| diagnostics.concern(&document.title());
        let wrong: Vec<String> = holdings.documents.iter().filter(|d| is_wrong(d)).map(Document::title).collect();
        // What stands in no document is wrong with all of them.
        let all = wrong.is_empty();
        holdings.documents.retain(|document| !all && !is_wrong(document));
        let titles = if all { Vec::new() } else { wrong };
        mistakes.extend(titles.into_iter().map(|title| (title, Arc::clone(&diagnostics))));
    }
    let nothing = load_tenant(operator, &holdings::nothing(tenant.clone()));
    let loaded = nothing.unwrap_or_else(|wrong| unreachable!("a tenant without documents has mistakes: {wrong}"));
    Changed { tenant, loaded: Arc::new(loaded), mistakes }
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

impl Tenancy {
    /// What a tenant has at this moment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn holdings(store: &Arc<Store>, queues: &Queues, tenant: &TenantName) -> anyhow::Result<Holdings> {
        holdings::of(store, queues, tenant).await
    }
}
