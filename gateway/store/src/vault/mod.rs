//! Encryption of bodies at rest: a data key for each tenant, in versions, wrapped by a master key that is not in the
//! store. Off unless a master key is configured; attributes and headers stay readable either way, for they are what
//! lists and searches go by.
//!
//! A body's encrypted form: a byte that says so, the tenant's name after its length, the version of its key, 24 random
//! bytes ([`cipher`]), then the encrypted plain or compressed form ([`body`]) and the tag. All that stands before is
//! authenticated, and so is an identity, what the body belongs to: such a body cannot be put in another's place.
//! A dead letter's body belongs to the letter's id, that of an inbox to its pipeline and its message's head, that of a
//! queue to the queue and its message's head (their rows have no number yet when bodies are sealed); so a head cannot be
//! exchanged either. Bodies of before encryption stay readable, so whoever may write to the database can still put a
//! plain body there.

mod cipher;
mod keys;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

pub(crate) use self::cipher::Identity;
use self::cipher::{Key, SALT_BYTES, TAG_BYTES};
pub use self::keys::{KeyVersion, Keys};
pub(crate) use self::keys::{Look, begin, keep_up, reload};
use crate::body;
use crate::error::StoreError;
use crate::place::Place;

/// Whose bodies those of pipelines in files are.
pub const DEFAULT_TENANT: &str = "default";

/// Longest name of a tenant with a key, in bytes.
pub const MAX_TENANT_BYTES: usize = 255;

/// The first byte of an encrypted body. [`body`] knows those of the others, which are far from it: no single bit that
/// flips on a disk turns ciphertext into a plain body.
const ENCRYPTED: u8 = 0xe5;

/// A master key: 32 random bytes. Never shown, zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(Key);

impl MasterKey {
    /// Of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Key::new(bytes))
    }

    /// 16 hexadecimal digits that tell it from other keys and tell nothing else of it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// How bodies are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Wraps the keys of bodies.
    pub master_key: MasterKey,
    /// Those of before: what one of them has wrapped is wrapped anew when a gateway starts.
    pub previous: Vec<MasterKey>,
}

/// The data keys of a store, as far as they can be read.
#[derive(Debug)]
pub(crate) struct Vault {
    place: Place,
    encryption: Option<Encryption>,
    ring: RwLock<Ring>,
}

/// All keys.
#[derive(Debug, Default)]
struct Ring {
    /// Whether the store's bodies are encrypted.
    is_encrypted: bool,
    by_tenant: HashMap<Arc<str>, Versions>,
}

#[derive(Debug, Default)]
struct Versions {
    newest: u32,
    keys: HashMap<u32, Arc<Key>>,
}

impl Vault {
    /// Knows no keys yet.
    pub fn new(place: Place, encryption: Option<Encryption>) -> Self {
        Self { place, encryption, ring: RwLock::default() }
    }

    /// A body as it is stored: encrypted where the store's bodies are, and compressed where that is wanted and makes it
    /// smaller. Encrypted, it opens only with the identity of what it belongs to.
    ///
    /// # Errors
    /// `Encrypted`: the store's bodies are encrypted and there is no master key. `UnknownKey`: the tenant has none yet.
    /// `Database`: the system has no random bytes.
    pub fn seal(&self, tenant: &str, body: &[u8], compress: bool, identity: Identity<'_>) -> Result<Bytes, StoreError> {
        let content = if compress { body::seal_compressed(body) } else { body::seal(body) };
        let Some((version, key)) = self.sealing_key(tenant)? else { return Ok(content) };
        let clear = 2 + tenant.len() + 4 + SALT_BYTES;
        let mut stored = Vec::with_capacity(clear + content.len() + TAG_BYTES);
        stored.push(ENCRYPTED);
        stored.push(u8::try_from(tenant.len()).map_err(|_| self.unknown(tenant, version))?);
        stored.extend_from_slice(tenant.as_bytes());
        stored.extend_from_slice(&version.to_be_bytes());
        stored.resize(clear, 0);
        stored.extend_from_slice(&content);
        key.encrypt(&mut stored, clear, identity)
            .map_err(|cipher::NoRandomness| self.no_randomness("encrypt a body"))?;
        Ok(stored.into())
    }

    /// The body of a stored form, shared with it where the form allows.
    ///
    /// # Errors
    /// `Encrypted`: there is no master key. `UnknownKey`: its key is not known here, or not yet. `Damaged`: it is not
    /// what was stored, or not where it was stored.
    pub fn open(&self, stored: Bytes, identity: Identity<'_>, doing: &'static str) -> Result<Bytes, StoreError> {
        let damaged = |cause: String| StoreError::Damaged { place: self.place.clone(), doing, cause };
        if stored.first() != Some(&ENCRYPTED) {
            return body::open(stored).map_err(damaged);
        }
        let Some((tenant, version, clear)) = head(&stored) else {
            return Err(damaged("an encrypted body has lost its beginning".to_owned()));
        };
        let key = self.opening_key(tenant, version)?;
        let content = key.decrypt(&stored, clear, identity).map_err(|cipher::NotOurs| {
            damaged("an encrypted body was changed, or is another's: its tag does not fit".to_owned())
        })?;
        body::open(content.into()).map_err(damaged)
    }

    /// As [`open`](Self::open), for records whose bodies were sealed without an identity once: what does not open with
    /// its own is tried without one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_once_unbound(
        &self,
        stored: Bytes,
        identity: Identity<'_>,
        doing: &'static str,
    ) -> Result<Bytes, StoreError> {
        let is_encrypted = stored.first() == Some(&ENCRYPTED);
        match self.open(stored.clone(), identity, doing) {
            Err(damaged @ StoreError::Damaged { .. }) if is_encrypted => {
                self.open(stored, &[], doing).map_err(|_| damaged)
            }
            opened => opened,
        }
    }

    /// `None` where bodies are not encrypted.
    fn sealing_key(&self, tenant: &str) -> Result<Option<(u32, Arc<Key>)>, StoreError> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        if !ring.is_encrypted {
            return Ok(None);
        }
        let newest = ring
            .by_tenant
            .get(tenant)
            .and_then(|versions| versions.keys.get(&versions.newest).map(|key| (versions.newest, Arc::clone(key))));
        match newest {
            Some(found) => Ok(Some(found)),
            None => Err(self.missing(tenant, 1)),
        }
    }

    fn opening_key(&self, tenant: &str, version: u32) -> Result<Arc<Key>, StoreError> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let found = ring.by_tenant.get(tenant).and_then(|versions| versions.keys.get(&version));
        found.cloned().ok_or_else(|| self.missing(tenant, version))
    }

    /// With the one master key or without any, why a key is not there.
    fn missing(&self, tenant: &str, version: u32) -> StoreError {
        match self.encryption {
            None => StoreError::Encrypted { place: self.place.clone() },
            Some(_) => self.unknown(tenant, version),
        }
    }

    fn unknown(&self, tenant: &str, version: u32) -> StoreError {
        StoreError::UnknownKey { place: self.place.clone(), tenant: tenant.to_owned(), version }
    }

    fn no_randomness(&self, doing: &'static str) -> StoreError {
        let cause = "the system gave no random bytes".to_owned();
        StoreError::Database { place: self.place.clone(), doing, cause }
    }
}

/// Tenant and version of an encrypted body, and where what is encrypted begins.
fn head(stored: &[u8]) -> Option<(&str, u32, usize)> {
    let length = usize::from(*stored.get(1)?);
    let tenant = std::str::from_utf8(stored.get(2..2 + length)?).ok()?;
    let version = stored.get(2 + length..)?.first_chunk::<4>()?;
    Some((tenant, u32::from_be_bytes(*version), 2 + length + 4 + SALT_BYTES))
}
