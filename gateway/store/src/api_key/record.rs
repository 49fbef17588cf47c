//! A key's record.

use std::fmt;

use subtle::{Choice, ConstantTimeEq as _};

use super::text::PresentedKey;
use crate::tenant::Realm;

/// A key, as anybody who manages keys may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Names it; the part after `sgk_`.
    pub prefix: String,
    /// Whose it is.
    pub realm: Realm,
    /// For people.
    pub name: String,
    /// What it allows, by name.
    pub scopes: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When its secret was last replaced.
    pub rotated_at_ms: Option<u64>,
    /// Until when the secret of before is good as well.
    pub previous_until_ms: Option<u64>,
    /// From when it is good no more.
    pub expires_at_ms: Option<u64>,
    /// Since when it is good no more.
    pub revoked_at_ms: Option<u64>,
    /// When it was last used, to the minute.
    pub last_used_ms: Option<u64>,
}

/// Why a key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not the secret that belongs to the prefix, or one that was rotated away.
    Wrong,
    /// The right one, and expired.
    Expired,
    /// The right one, and revoked.
    Revoked,
}

/// A key with what its secret is compared with. Shows nothing of that.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What is known of it.
    pub key: ApiKey,
    pub(super) hash: [u8; 32],
    pub(super) previous_hash: Option<[u8; 32]>,
}

impl StoredKey {
    /// Whether this is the key, and good at `now_ms`. Takes the same time whatever is wrong with the secret.
    ///
    /// # Errors
    /// Why it is not. A caller with a wrong secret learns nothing of the key's state.
    pub fn check(&self, presented: &PresentedKey, now_ms: u64) -> Result<(), Refused> {
        let is_in_grace = self.key.previous_until_ms.is_some_and(|until| now_ms < until);
        let current = self.hash.ct_eq(&presented.digest);
        let previous = self.previous_hash.unwrap_or(self.hash).ct_eq(&presented.digest);
        if !bool::from(current | (previous & Choice::from(u8::from(is_in_grace)))) {
            return Err(Refused::Wrong);
        }
        match (self.key.revoked_at_ms, self.key.expires_at_ms) {
            (Some(_), _) => Err(Refused::Revoked),
            (None, Some(expires_at_ms)) if expires_at_ms <= now_ms => Err(Refused::Expired),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("key", &self.key).finish_non_exhaustive()
    }
}
