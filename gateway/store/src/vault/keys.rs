//! The keys in the database: made, read, wrapped anew, listed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::cipher::{Key, NoRandomness};
use super::{DEFAULT_TENANT, Encryption, MAX_TENANT_BYTES, Ring, Vault, Versions};
use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::reader::{Question, Reader};
use crate::signals::Signals;
use crate::store::Store;

/// Announced when there are new keys.
const KEYS: &str = "keys";
/// How often a gateway looks for new keys: SQLite tells no other process of a change.
const LOOK: Duration = Duration::from_secs(2);

/// The keys of a store, without anything of the keys themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Fingerprint of the master key that wraps them; `None` where bodies are not encrypted.
    pub master_key: Option<String>,
    /// By tenant, oldest version first.
    pub versions: Vec<KeyVersion>,
}

/// A version of a tenant's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyVersion {
    /// Whose.
    pub tenant: String,
    /// From 1.
    pub version: u32,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Since when a newer one encrypts, milliseconds since the Unix epoch; `None` for the newest.
    pub retired_at_ms: Option<u64>,
}

impl Store {
    /// Makes a new version of the tenant's key, which encrypts from now on; older ones stay for what they have encrypted.
    /// Gateways that run take it up within seconds. Returns its number.
    ///
    /// # Errors
    /// `NotEncrypted`; `Encrypted` or `MasterKey` without the right master key; what is wrong with the store.
    pub async fn rotate_key(&self, tenant: &str) -> Result<u32, StoreError> {
        self.make_key(tenant, false).await
    }

    /// Makes the tenant's first key unless it has one; returns the number of the newest.
    ///
    /// # Errors
    /// As [`rotate_key`](Self::rotate_key).
    pub async fn ensure_key(&self, tenant: &str) -> Result<u32, StoreError> {
        self.make_key(tenant, true).await
    }

    async fn make_key(&self, tenant: &str, only_first: bool) -> Result<u32, StoreError> {
        let vault = Arc::clone(self.vault());
        let version = self.change(MakeKey { vault: Arc::clone(&vault), tenant: tenant.to_owned(), only_first }).await?;
        self.ask(Look(vault)).await?;
        Ok(version)
    }
}

impl Reader {
    /// All versions of all keys, as far as anybody may see them.
    ///
    /// # Errors
    /// What is wrong with the database. Cancel safe.
    pub async fn keys(&self) -> Result<Keys, StoreError> {
        self.ask(ListKeys).await
    }
}

/// For a gateway that opens the store: checks the master key, wraps the keys anew if one of before had wrapped them,
/// makes what is missing, and reads the keys.
///
/// # Errors
/// `Encrypted`, `MasterKey`; nothing is changed then.
pub(crate) async fn begin(connection: &mut Connection, vault: &Vault) -> Result<(), StoreError> {
    if let Some(encryption) = &vault.encryption {
        connection.set_doing("prepare the keys of bodies");
        connection.begin().await?;
        lock(connection).await?;
        match Proof::read(connection).await? {
            None => Proof::write(connection, vault, &encryption.master_key.0).await?,
            Some(proof) if encryption.master_key.0.proves(&proof.proof) => {}
            Some(proof) => {
                let Some(old) = encryption.key(&proof) else { return Err(proof.refuses(vault, encryption)) };
                wrap_anew(connection, vault, old, &encryption.master_key.0).await?;
                tracing::info!(
                    store = %vault.place, from = proof.fingerprint, to = encryption.master_key.fingerprint(),
                    "all keys of bodies are wrapped by the new master key"
                );
            }
        }
        if newest(connection, DEFAULT_TENANT).await?.is_none() {
            add(connection, vault, &encryption.master_key.0, DEFAULT_TENANT, 1).await?;
        }
        connection.commit().await?;
    }
    reload(connection, vault).await?;
    let is_encrypted = vault.ring.read().unwrap_or_else(PoisonError::into_inner).is_encrypted;
    match &vault.encryption {
        None if is_encrypted => Err(StoreError::Encrypted { place: vault.place.clone() }),
        None | Some(_) => Ok(()),
    }
}

/// Reads the keys. Without a master key none can be used, which is said when one is. Returns whether there are new ones.
///
/// # Errors
/// `MasterKey`: the keys known before are kept.
pub(crate) async fn reload(connection: &mut Connection, vault: &Vault) -> Result<bool, StoreError> {
    connection.set_doing("read the keys of bodies");
    let mut ring = Ring::default();
    if let Some(proof) = Proof::read(connection).await? {
        ring.is_encrypted = true;
        if let Some(encryption) = &vault.encryption {
            let master = encryption.key(&proof).ok_or_else(|| proof.refuses(vault, encryption))?;
            for row in connection.query("SELECT tenant, version, wrapped FROM data_keys", &[]).await? {
                let (tenant, version) = (row.text(0)?, version(&row, 1)?);
                let key = master.unwrap(&row.bytes(2)?, &tenant, version).map_err(|_| {
                    row.damaged(format!(
                        "key version {version} of tenant `{tenant}` cannot be unwrapped: it was changed"
                    ))
                })?;
                let versions: &mut Versions = ring.by_tenant.entry(tenant.into()).or_default();
                versions.newest = versions.newest.max(version);
                versions.keys.insert(version, Arc::new(key));
            }
        }
    }
    let mut known = vault.ring.write().unwrap_or_else(PoisonError::into_inner);
    let numbers = |ring: &Ring| -> HashMap<Arc<str>, u32> {
        ring.by_tenant.iter().map(|(tenant, versions)| (Arc::clone(tenant), versions.newest)).collect()
    };
    let is_new = (known.is_encrypted, numbers(&known)) != (ring.is_encrypted, numbers(&ring));
    *known = ring;
    Ok(is_new)
}

/// Takes up new keys until it is aborted.
pub(crate) async fn keep_up(vault: Arc<Vault>, reader: Reader, signals: Arc<Signals>) {
    let mut news = signals.subscribe(KEYS);
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_refused = false;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            changed = news.changed() => if changed.is_err() { break },
        }
        match reader.ask(Look(Arc::clone(&vault))).await {
            Ok(true) => tracing::info!(store = %vault.place, "new keys of bodies are taken up"),
            Ok(false) => {}
            Err(error @ StoreError::MasterKey { .. }) => {
                if !is_refused {
                    tracing::error!(%error, "another gateway has changed the master key; this one goes on with the keys it has");
                }
                is_refused = true;
                continue;
            }
            // Whoever writes or reads has said so already.
            Err(StoreError::Closed { .. }) => break,
            Err(error) => tracing::debug!(%error, "cannot look for new keys of bodies"),
        }
        is_refused = false;
    }
}

/// Keeps two from making keys at the same time, to the end of the transaction.
async fn lock(connection: &mut Connection) -> Result<(), StoreError> {
    match connection.backend() {
        Backend::Sqlite => Ok(()),
        Backend::Postgres => connection.batch("LOCK TABLE master_key, data_keys IN SHARE ROW EXCLUSIVE MODE").await,
    }
}

/// What shows whether a master key is the right one.
struct Proof {
    fingerprint: String,
    proof: bytes::Bytes,
}

impl Proof {
    async fn read(connection: &mut Connection) -> Result<Option<Self>, StoreError> {
        let row = connection.query_first("SELECT fingerprint, proof FROM master_key WHERE id = 1", &[]).await?;
        row.map(|row| Ok(Self { fingerprint: row.text(0)?, proof: row.bytes(1)? })).transpose()
    }

    async fn write(connection: &mut Connection, vault: &Vault, master: &Key) -> Result<(), StoreError> {
        let proof = master.proof().map_err(|NoRandomness| vault.no_randomness("prepare the keys of bodies"))?;
        let now_ms = connection.now_ms();
        let sql = "INSERT INTO master_key (id, fingerprint, proof, since_ms) VALUES (1, $1, $2, $3) \
            ON CONFLICT (id) DO UPDATE SET fingerprint = $1, proof = $2, since_ms = $3";
        connection.execute(sql, &[master.fingerprint().into(), proof.into(), now_ms.into()]).await.map(drop)
    }

    fn refuses(&self, vault: &Vault, encryption: &Encryption) -> StoreError {
        StoreError::MasterKey {
            place: vault.place.clone(),
            given: encryption.master_key.fingerprint(),
            wanted: self.fingerprint.clone(),
        }
    }
}

impl Encryption {
    /// The one of its keys that is the store's.
    fn key(&self, proof: &Proof) -> Option<&Key> {
        let mut keys = std::iter::once(&self.master_key).chain(&self.previous);
        keys.find(|key| key.0.proves(&proof.proof)).map(|key| &key.0)
    }
}

async fn wrap_anew(connection: &mut Connection, vault: &Vault, old: &Key, new: &Key) -> Result<(), StoreError> {
    for row in connection.query("SELECT tenant, version, wrapped FROM data_keys", &[]).await? {
        let (tenant, version) = (row.text(0)?, version(&row, 1)?);
        let key = old.unwrap(&row.bytes(2)?, &tenant, version).map_err(|_| {
            row.damaged(format!("key version {version} of tenant `{tenant}` cannot be unwrapped: it was changed"))
        })?;
        let wrapped = key
            .wrapped(new, &tenant, version)
            .map_err(|NoRandomness| vault.no_randomness("wrap the keys of bodies anew"))?;
        let sql = "UPDATE data_keys SET wrapped = $3 WHERE tenant = $1 AND version = $2";
        connection.execute(sql, &[tenant.into(), version.into(), wrapped.into()]).await?;
    }
    Proof::write(connection, vault, new).await
}

async fn newest(connection: &mut Connection, tenant: &str) -> Result<Option<u32>, StoreError> {
    let sql = "SELECT max(version) FROM data_keys WHERE tenant = $1";
    match connection.query_first(sql, &[tenant.into()]).await? {
        Some(row) if row.optional_integer(0)?.is_some() => version(&row, 0).map(Some),
        Some(_) | None => Ok(None),
    }
}

async fn add(
    connection: &mut Connection,
    vault: &Vault,
    master: &Key,
    tenant: &str,
    version: u32,
) -> Result<(), StoreError> {
    let wrapped = Key::random().and_then(|key| key.wrapped(master, tenant, version));
    let wrapped = wrapped.map_err(|NoRandomness| vault.no_randomness("make a key of bodies"))?;
    let now_ms = connection.now_ms();
    let retire = "UPDATE data_keys SET retired_at_ms = $2 WHERE tenant = $1 AND retired_at_ms IS NULL";
    connection.execute(retire, &[tenant.into(), now_ms.into()]).await?;
    let sql = "INSERT INTO data_keys (tenant, version, wrapped, created_at_ms) VALUES ($1, $2, $3, $4)";
    let arguments: [Value; 4] = [tenant.into(), version.into(), wrapped.into(), now_ms.into()];
    connection.execute(sql, &arguments).await.map(drop)
}

fn version(row: &crate::database::Row, column: usize) -> Result<u32, StoreError> {
    let number = row.integer(column)?;
    u32::try_from(number).map_err(|_| row.damaged(format!("{number} is not the version of a key")))
}

struct MakeKey {
    vault: Arc<Vault>,
    tenant: String,
    only_first: bool,
}

#[async_trait]
impl Change for MakeKey {
    type Output = u32;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "make a key of bodies"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<u32, StoreError> {
        let (vault, tenant) = (&self.vault, &self.tenant);
        if tenant.is_empty() || tenant.len() > MAX_TENANT_BYTES {
            let cause = format!("a tenant's name has 1 to {MAX_TENANT_BYTES} bytes");
            return Err(transaction.failed(cause));
        }
        lock(transaction).await?;
        let Some(proof) = Proof::read(transaction).await? else {
            return Err(StoreError::NotEncrypted { place: vault.place.clone() });
        };
        let Some(encryption) = &vault.encryption else {
            return Err(StoreError::Encrypted { place: vault.place.clone() });
        };
        // One of before will do: it is the gateways that change the master key.
        let master = encryption.key(&proof).ok_or_else(|| proof.refuses(vault, encryption))?;
        match newest(transaction, tenant).await? {
            Some(newest) if self.only_first => Ok(newest),
            newest => {
                let version = newest.unwrap_or(0) + 1;
                add(transaction, vault, master, tenant, version).await?;
                transaction.announce(KEYS);
                Ok(version)
            }
        }
    }
}

/// Reads the keys anew; answers whether there are new ones.
pub(crate) struct Look(pub Arc<Vault>);

#[async_trait]
impl Question for Look {
    type Output = bool;

    async fn ask(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        reload(connection, &self.0).await
    }
}

struct ListKeys;

#[async_trait]
impl Question for ListKeys {
    type Output = Keys;

    fn doing(&self) -> &'static str {
        "list the keys of bodies"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Keys, StoreError> {
        let master_key = Proof::read(connection).await?.map(|proof| proof.fingerprint);
        let sql = "SELECT tenant, version, created_at_ms, retired_at_ms FROM data_keys ORDER BY tenant, version";
        let rows = connection.query(sql, &[]).await?;
        let versions = rows.iter().map(|row| {
            Ok(KeyVersion {
                tenant: row.text(0)?,
                version: version(row, 1)?,
                created_at_ms: row.unsigned(2)?,
                retired_at_ms: row.optional_unsigned(3)?,
            })
        });
        Ok(Keys { master_key, versions: versions.collect::<Result<_, StoreError>>()? })
    }
}
