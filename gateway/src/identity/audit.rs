//! What is written to the audit: every change, and denied attempts so far as they say something new.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sluicegate_store::audit::{AuditEntry, AuditOutcome};
use sluicegate_store::{Store, StoreError};
use tokio::time::Instant;

/// What a handler adds to the audit's entry of its change, among the extensions of its answer.
#[derive(Debug, Clone, Default)]
pub struct Audited {
    /// What was changed, where the path does not say it.
    pub resource: Option<String>,
    /// As it was.
    pub before: Option<Value>,
    /// As it is.
    pub after: Option<Value>,
}

/// For so long, further denials of one address are counted and not written.
const QUIET: Duration = Duration::from_secs(60);
/// Most addresses whose denials are counted apart; those of all others are counted together.
const MAX_ADDRESSES: usize = 1_024;

/// See the module.
pub struct Audit {
    store: Arc<Store>,
    denials: Mutex<HashMap<Option<IpAddr>, Denials>>,
}

/// Those of one address since one of them was written.
struct Denials {
    until: Instant,
    /// The last of those not written.
    last: Option<AuditEntry>,
    count: u64,
}

impl Audit {
    /// Writes to this store.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, denials: Mutex::default() }
    }

    /// Writes what was done or failed. It is durable when this returns, or the failure to write it was logged: what was
    /// done cannot be undone for that.
    pub async fn note(&self, entry: AuditEntry) {
        let (actor, action, resource) = (entry.actor.clone(), entry.action.clone(), entry.resource.clone());
        if let Err(error) = self.store.append_audit(vec![entry]).await {
            metrics::counter!("sluicegate_audit_failures_total").increment(1);
            tracing::error!(%error, actor, action, resource, "this change could not be written to the audit");
        }
    }

    /// Writes a denial, or counts it where the address was denied something a moment ago: whoever tries keys must not
    /// fill the disk with it.
    pub fn deny(&self, entry: AuditEntry) {
        metrics::counter!("sluicegate_denied_requests_total").increment(1);
        let (key, now) = (entry.address.map(neighbourhood), Instant::now());
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if denials.contains_key(&key) || denials.len() < MAX_ADDRESSES { key } else { None };
        match denials.get_mut(&key) {
            Some(quiet) if now < quiet.until => {
                quiet.count += 1;
                quiet.last = Some(entry);
            }
            _ => {
                let before = denials.insert(key, Denials { until: now + QUIET, last: None, count: 0 });
                drop(denials);
                for entry in before.and_then(Denials::rest).into_iter().chain([entry]) {
                    self.submit(entry);
                }
            }
        }
    }

    /// Writes how many denials were not written, of addresses whose time is over; with `all` of every address.
    pub fn settle_denials(&self, all: bool) {
        let now = Instant::now();
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<Denials> = denials.extract_if(|_, denials| all || denials.until <= now).map(|(_, d)| d).collect();
        drop(denials);
        for entry in over.into_iter().filter_map(Denials::rest) {
            self.submit(entry);
        }
    }

    /// Removes what is older than `keep`.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn trim(&self, keep: Duration) -> Result<(), StoreError> {
        let before_ms = sluicegate_engine::message::now_ms().saturating_sub(keep.as_millis() as u64);
        while self.store.trim_audit(before_ms).await? {}
        Ok(())
    }

    fn submit(&self, entry: AuditEntry) {
        if !self.store.submit_audit(entry) {
            metrics::counter!("sluicegate_audit_failures_total").increment(1);
            tracing::warn!("a denied attempt could not be written to the audit: the store has no room for it now");
        }
    }
}

impl Denials {
    /// An entry for those that were not written.
    fn rest(self) -> Option<AuditEntry> {
        let last = self.last?;
        Some(AuditEntry { repeats: self.count - 1, outcome: AuditOutcome::Denied, ..last })
    }
}

/// Who has one IPv6 address has all of its /64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_store::Location;
    use sluicegate_store::audit::AuditFilter;
    use sluicegate_store::tenant::Realm;

    use super::*;

    fn denial(address: &str) -> AuditEntry {
        AuditEntry {
            at_ms: 1,
            actor: "nobody".to_owned(),
            realm: Realm::Operator,
            action: "queue.list".to_owned(),
            resource: "/mq/queues".to_owned(),
            before: None,
            after: None,
            outcome: AuditOutcome::Denied,
            address: Some(address.parse().expect("an address")),
            repeats: 0,
        }
    }

    #[tokio::test]
    async fn whoever_is_denied_again_and_again_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
        let audit = Audit::new(Arc::clone(&store));
        for number in 0..10_000_u32 {
            audit.deny(denial("10.0.0.1"));
            audit.deny(denial(&format!("2001:db8::{:x}", number % 0xffff)));
        }
        audit.settle_denials(true);
        // What is handed in later is written later.
        audit.note(AuditEntry { outcome: AuditOutcome::Done, ..denial("10.0.0.1") }).await;
        let denied = AuditFilter { outcome: Some(AuditOutcome::Denied), ..AuditFilter::default() };
        let entries = store.reader().audit(&denied, 1_000, None).await.expect("entries").items;
        let mut repeats: Vec<u64> = entries.iter().map(|record| record.entry.repeats).collect();
        repeats.sort_unstable();
        assert_eq!(repeats, [0, 0, 9_998, 9_998], "each address once, and once how many more there were");
        store.close().await;
    }

    #[tokio::test]
    async fn many_addresses_take_bounded_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(Store::open(&Location::embedded(folder.path())).await.expect("a store"));
        let audit = Audit::new(Arc::clone(&store));
        for number in 0..(3 * MAX_ADDRESSES as u32) {
            audit.deny(denial(&std::net::Ipv4Addr::from_bits(number).to_string()));
        }
        assert_eq!(audit.denials.lock().expect("not poisoned").len(), MAX_ADDRESSES + 1);
        store.close().await;
    }
}
