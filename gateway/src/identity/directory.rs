//! The keys and tenants as this gateway knows them: a copy of what requests need, kept up with the store.
//!
//! A request costs a look into memory, a SHA-256 and a comparison. The copy is renewed when the store announces a change,
//! and twice a second it is looked whether there was one: commands in other processes cannot announce to a gateway on SQLite.
//! While the store cannot answer, the copy serves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sluicegate_engine::message::now_ms;
use sluicegate_store::api_key::{PresentedKey, Refused, StoredKey};
use sluicegate_store::tenant::{IdentityVersion, Tenant, TenantName};
use sluicegate_store::{Store, StoreError};
use tokio::sync::{Semaphore, watch};

use super::caller::{Scope, Scopes};

/// Most keys that are known at the same time; of more, those unused for longest are looked up again.
const MAX_KNOWN_KEYS: usize = 4_096;
/// Most look-ups of unknown keys and tenants at the same time, so that whoever tries keys does not keep others from the store.
const MAX_LOOKUPS: usize = 2;
/// How precise the last use of a key is kept.
const USE_PRECISION_MS: u64 = 60_000;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Directory(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    keys: Mutex<HashMap<String, Arc<KnownKey>>>,
    tenants: watch::Sender<Arc<HashMap<TenantName, Arc<Tenant>>>>,
    /// Of which all of this is a copy, and how many look-ups there had been before.
    version: Mutex<Option<(IdentityVersion, u64)>>,
    /// Grows with each look-up of a key beside the renewals. What it has read may be older than the renewal that ended
    /// before it put it here, so the next renewal reads all again.
    lookups: AtomicU64,
    looking_up: Semaphore,
}

struct KnownKey {
    stored: StoredKey,
    scopes: Scopes,
    used_ms: AtomicU64,
    noted_ms: AtomicU64,
}

/// A key that is good.
pub(super) struct GoodKey {
    pub stored: StoredKey,
    pub scopes: Scopes,
}

/// Why a key is not accepted.
pub(super) enum KeyRefused {
    /// Unknown, wrong, expired or revoked.
    Refused(Option<Refused>),
    /// Nobody can say now.
    Store(StoreError),
}

impl Directory {
    /// Knows nothing yet; [`keep_up`](super::keep_up) keeps it up.
    pub fn new(store: Arc<Store>) -> Self {
        Self(Arc::new(Shared {
            store,
            keys: Mutex::default(),
            tenants: watch::Sender::default(),
            version: Mutex::default(),
            lookups: AtomicU64::new(0),
            looking_up: Semaphore::new(MAX_LOOKUPS),
        }))
    }

    /// All tenants, as they are known here. Changes as they do.
    pub fn tenants(&self) -> watch::Receiver<Arc<HashMap<TenantName, Arc<Tenant>>>> {
        self.0.tenants.subscribe()
    }

    /// Judges a key.
    pub(super) async fn check(&self, presented: &PresentedKey) -> Result<GoodKey, KeyRefused> {
        let known = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&presented.prefix).cloned();
        let known = match known {
            Some(known) => known,
            None => {
                self.look_up(&presented.prefix).await.map_err(KeyRefused::Store)?.ok_or(KeyRefused::Refused(None))?
            }
        };
        let now_ms = now_ms();
        known.stored.check(presented, now_ms).map_err(|refused| KeyRefused::Refused(Some(refused)))?;
        known.used_ms.fetch_max(now_ms, Ordering::Relaxed);
        Ok(GoodKey { stored: known.stored.clone(), scopes: known.scopes })
    }

    /// One tenant, if there is one.
    pub(super) async fn tenant(&self, name: &TenantName) -> Result<Option<Arc<Tenant>>, StoreError> {
        if let Some(tenant) = self.0.tenants.borrow().get(name) {
            return Ok(Some(Arc::clone(tenant)));
        }
        // Made a moment ago, or not at all.
        let _turn = self.0.looking_up.acquire().await;
        Ok(self.0.store.reader().tenant(name).await?.map(Arc::new))
    }

    async fn look_up(&self, prefix: &str) -> Result<Option<Arc<KnownKey>>, StoreError> {
        let _turn = self.0.looking_up.acquire().await;
        let found = self.0.store.reader().stored_keys(vec![prefix.to_owned()]).await?;
        let Some(stored) = found.into_iter().next() else { return Ok(None) };
        let known = Arc::new(KnownKey::new(stored));
        let mut keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= MAX_KNOWN_KEYS {
            let unused = keys.iter().min_by_key(|(_, known)| known.used_ms.load(Ordering::Relaxed));
            let unused = unused.map(|(prefix, _)| prefix.clone());
            unused.and_then(|prefix| keys.remove(&prefix));
        }
        keys.insert(prefix.to_owned(), Arc::clone(&known));
        self.0.lookups.fetch_add(1, Ordering::SeqCst);
        Ok(Some(known))
    }

    /// Renews the copy if anything has changed.
    ///
    /// # Errors
    /// The store cannot answer; the copy stays as it is.
    pub async fn renew(&self) -> Result<(), StoreError> {
        let shared = &*self.0;
        let (reader, lookups) = (shared.store.reader(), shared.lookups.load(Ordering::SeqCst));
        let version = reader.identity_version().await?;
        let copied = Some((version, lookups));
        if *shared.version.lock().unwrap_or_else(PoisonError::into_inner) == copied {
            return Ok(());
        }
        let prefixes: Vec<String> =
            shared.keys.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let mut found: HashMap<String, StoredKey> = HashMap::new();
        if !prefixes.is_empty() {
            let stored = reader.stored_keys(prefixes.clone()).await?;
            found.extend(stored.into_iter().map(|stored| (stored.key.prefix.clone(), stored)));
        }
        let tenants = reader.all_tenants().await?;
        let mut keys = shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for prefix in prefixes {
            let Some(known) = keys.remove(&prefix) else { continue };
            if let Some(stored) = found.remove(&prefix) {
                keys.insert(prefix, Arc::new(known.renewed(stored)));
            }
        }
        drop(keys);
        let tenants = tenants.into_iter().map(|tenant| (tenant.name.clone(), Arc::new(tenant))).collect();
        shared.tenants.send_replace(Arc::new(tenants));
        *shared.version.lock().unwrap_or_else(PoisonError::into_inner) = copied;
        Ok(())
    }

    /// Notes the use of keys that were used since it was last noted, each once a minute at most.
    ///
    /// # Errors
    /// The store cannot take it; it is tried again.
    pub async fn note_use(&self) -> Result<(), StoreError> {
        let known: Vec<Arc<KnownKey>> =
            self.0.keys.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let used = |known: &&Arc<KnownKey>| {
            let (used_ms, noted_ms) = (known.used_ms.load(Ordering::Relaxed), known.noted_ms.load(Ordering::Relaxed));
            used_ms >= noted_ms.saturating_add(USE_PRECISION_MS)
        };
        let due: Vec<(Arc<KnownKey>, u64)> =
            known.iter().filter(used).map(|known| (Arc::clone(known), known.used_ms.load(Ordering::Relaxed))).collect();
        if due.is_empty() {
            return Ok(());
        }
        let uses = due.iter().map(|(known, used_ms)| (known.stored.key.prefix.clone(), *used_ms)).collect();
        self.0.store.note_api_key_use(uses).await?;
        for (known, used_ms) in due {
            known.noted_ms.store(used_ms, Ordering::Relaxed);
            // A renewal may have put another in its place meanwhile.
            let keys = self.0.keys.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(present) = keys.get(&known.stored.key.prefix) {
                present.noted_ms.fetch_max(used_ms, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whose copy it is.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }
}

impl KnownKey {
    fn new(stored: StoredKey) -> Self {
        let scopes = stored.key.scopes.iter().filter_map(|name| Scope::parse(name)).collect();
        let noted_ms = AtomicU64::new(stored.key.last_used_ms.unwrap_or(0));
        Self { stored, scopes, used_ms: AtomicU64::new(0), noted_ms }
    }

    fn renewed(&self, stored: StoredKey) -> Self {
        let renewed = Self::new(stored);
        renewed.used_ms.store(self.used_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        renewed.noted_ms.fetch_max(self.noted_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        renewed
    }
}
