//! Making, rotating and revoking keys.

use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::message::now_ms;

use super::error::KeyError;
use super::read::{find, of_realm};
use super::record::ApiKey;
use super::text::{KeyText, PresentedKey};
use super::{API_KEYS, MAX_KEY_NAME_CHARS};
use crate::change::{Change, Transaction};
use crate::database::{Backend, Value};
use crate::error::StoreError;
use crate::store::Store;
use crate::tenant::{Realm, is_name};

/// Most keys of the operator, and of each tenant.
pub const MAX_KEYS_OF_A_REALM: u64 = 1_000;
/// Most scopes of a key.
const MAX_SCOPES: usize = 16;
/// The scope of those who manage keys.
const ADMIN: &str = "admin";
/// A revoked key is listed for so long, and then removed.
const KEEP_REVOKED: Duration = Duration::from_secs(86_400);

/// A key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose.
    pub realm: Realm,
    /// For people; one line.
    pub name: String,
    /// What it allows, by name; at least one.
    pub scopes: Vec<String>,
    /// From when it is good no more.
    pub expires_at_ms: Option<u64>,
}

/// What became of a [first key](Store::bootstrap_api_key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// There is one that can manage keys.
    NotNeeded,
    /// It was made.
    Made(ApiKey),
}

impl NewKey {
    fn check(&self) -> Result<(), KeyError> {
        let name = &self.name;
        if name.is_empty() || name.chars().count() > MAX_KEY_NAME_CHARS || name.chars().any(char::is_control) {
            let text = format!("it has 1 to {MAX_KEY_NAME_CHARS} characters, and none of them is a control character");
            return Err(KeyError::Invalid { what: "name", text });
        }
        if self.scopes.is_empty() || self.scopes.len() > MAX_SCOPES || !self.scopes.iter().all(|scope| is_name(scope)) {
            return Err(KeyError::Invalid {
                what: "scopes",
                text: format!("there are 1 to {MAX_SCOPES} of them, each a name"),
            });
        }
        if self.expires_at_ms.is_some_and(|expires| expires <= now_ms()) {
            return Err(KeyError::Invalid { what: "expiresAt", text: "it is in the past".to_owned() });
        }
        Ok(())
    }
}

impl Store {
    /// Makes a key. Its text is in the answer, and nowhere else ever again.
    ///
    /// # Errors
    /// `Invalid`, `TenantNotFound`, `TooMany`, `NoRandomness`.
    pub async fn create_api_key(&self, new: NewKey) -> Result<(ApiKey, KeyText), KeyError> {
        new.check()?;
        let text = KeyText::random()?;
        let presented = text.presented().ok_or(KeyError::NoRandomness)?;
        let key = self.change(Create { new, presented }).await??;
        Ok((key, text))
    }

    /// Gives a key a new secret under the same prefix. The one of before is good for `grace` more, so that callers change
    /// over one by one; one still in its grace from a rotation before ends at once.
    ///
    /// # Errors
    /// `NotFound` (also of another realm), `Revoked`, `NoRandomness`.
    pub async fn rotate_api_key(
        &self,
        realm: &Realm,
        prefix: &str,
        grace: Duration,
    ) -> Result<(ApiKey, KeyText), KeyError> {
        let text = KeyText::random()?.with_prefix(prefix);
        let not_found = || KeyError::NotFound { prefix: prefix.to_owned() };
        let presented = text.presented().ok_or_else(not_found)?;
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let key = self.change(Rotate { realm: realm.clone(), presented, grace_ms }).await??;
        Ok((key, text))
    }

    /// Makes a key good no more, now and within a second at all gateways on this store. Once more changes nothing.
    ///
    /// # Errors
    /// `NotFound` (also of another realm).
    pub async fn revoke_api_key(&self, realm: &Realm, prefix: &str) -> Result<ApiKey, KeyError> {
        self.change(Revoke { realm: realm.clone(), prefix: prefix.to_owned() }).await?
    }

    /// Makes the operator's first key: `given`, unless it is known already, or with `generated` instead where there is no
    /// key of the operator that can manage keys. Several gateways may ask at once; one key comes of it.
    ///
    /// # Errors
    /// `Taken`: the given one has the prefix of another key.
    pub async fn bootstrap_api_key(&self, text: &KeyText, given: bool, scopes: &[&str]) -> Result<Bootstrap, KeyError> {
        let new = NewKey {
            realm: Realm::Operator,
            name: "bootstrap".to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            expires_at_ms: None,
        };
        new.check()?;
        let presented = text.presented().ok_or(KeyError::NoRandomness)?;
        self.change(FirstKey { new, presented, given }).await?
    }

    /// Notes when keys were last used: prefix and time.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn note_api_key_use(&self, mut used: Vec<(String, u64)>) -> Result<(), StoreError> {
        // In one order at all gateways, so that none waits for the other's row while the other waits for its.
        used.sort();
        self.change(Used(used)).await
    }
}

fn owner(realm: &Realm) -> Value {
    realm.tenant().map(|tenant| tenant.as_str()).into()
}

async fn insert(
    transaction: &mut Transaction<'_>,
    new: &NewKey,
    presented: &PresentedKey,
) -> Result<Option<ApiKey>, StoreError> {
    let now_ms = now_ms();
    let sql = "INSERT INTO api_keys (prefix, tenant, name, hash, scopes, revision, created_at_ms, updated_at_ms, expires_at_ms) \
               VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7) ON CONFLICT (prefix) DO NOTHING";
    let values = [
        presented.prefix.as_str().into(),
        owner(&new.realm),
        new.name.as_str().into(),
        presented.digest.to_vec().into(),
        new.scopes.join(" ").into(),
        now_ms.into(),
        new.expires_at_ms.into(),
    ];
    if transaction.execute(sql, &values).await? == 0 {
        return Ok(None);
    }
    transaction.announce(API_KEYS);
    Ok(find(transaction, &presented.prefix).await?.map(|stored| stored.key))
}

struct Create {
    new: NewKey,
    presented: PresentedKey,
}

#[async_trait]
impl Change for Create {
    type Output = Result<ApiKey, KeyError>;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "create a key"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let new = &self.new;
        if let Some(tenant) = new.realm.tenant() {
            // It must not be deleted before its key is there.
            let lock = if transaction.backend() == Backend::Postgres { " FOR SHARE" } else { "" };
            let sql = format!("SELECT 1 FROM tenants WHERE name = $1{lock}");
            if transaction.query_first(&sql, &[tenant.as_str().into()]).await?.is_none() {
                return Ok(Err(KeyError::TenantNotFound { tenant: tenant.to_string() }));
            }
        }
        let forgotten = now_ms().saturating_sub(KEEP_REVOKED.as_millis() as u64);
        transaction.execute("DELETE FROM api_keys WHERE revoked_at_ms < $1", &[forgotten.into()]).await?;
        let (condition, values) = of_realm(&new.realm);
        let count =
            transaction.query_first(&format!("SELECT count(*) FROM api_keys WHERE {condition}"), &values).await?;
        if count.map(|row| row.unsigned(0)).transpose()?.is_some_and(|count| count >= MAX_KEYS_OF_A_REALM) {
            return Ok(Err(KeyError::TooMany { limit: MAX_KEYS_OF_A_REALM }));
        }
        let made = insert(transaction, new, &self.presented).await?;
        Ok(made.ok_or_else(|| KeyError::Taken { prefix: self.presented.prefix.clone() }))
    }
}

struct Rotate {
    realm: Realm,
    presented: PresentedKey,
    grace_ms: u64,
}

#[async_trait]
impl Change for Rotate {
    type Output = Result<ApiKey, KeyError>;

    fn size_bytes(&self) -> usize {
        256
    }

    fn doing(&self) -> &'static str {
        "rotate a key"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let prefix = &self.presented.prefix;
        let Some(found) = find(transaction, prefix).await?.filter(|stored| stored.key.realm == self.realm) else {
            return Ok(Err(KeyError::NotFound { prefix: prefix.clone() }));
        };
        if found.key.revoked_at_ms.is_some() {
            return Ok(Err(KeyError::Revoked { prefix: prefix.clone() }));
        }
        let now_ms = now_ms();
        // Whoever rotates at the same time gives the key another secret; the last one counts.
        let sql = "UPDATE api_keys SET previous_hash = hash, previous_until_ms = $2, hash = $3, rotated_at_ms = $4, \
                   updated_at_ms = $4, revision = revision + 1 WHERE prefix = $1 AND revoked_at_ms IS NULL";
        let values = [
            prefix.as_str().into(),
            now_ms.saturating_add(self.grace_ms).into(),
            self.presented.digest.to_vec().into(),
            now_ms.into(),
        ];
        if transaction.execute(sql, &values).await? == 0 {
            return Ok(Err(KeyError::Revoked { prefix: prefix.clone() }));
        }
        transaction.announce(API_KEYS);
        let rotated = find(transaction, prefix).await?.map(|stored| stored.key);
        Ok(rotated.ok_or_else(|| KeyError::NotFound { prefix: prefix.clone() }))
    }
}

struct Revoke {
    realm: Realm,
    prefix: String,
}

#[async_trait]
impl Change for Revoke {
    type Output = Result<ApiKey, KeyError>;

    fn size_bytes(&self) -> usize {
        128
    }

    fn doing(&self) -> &'static str {
        "revoke a key"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        let not_found = || KeyError::NotFound { prefix: self.prefix.clone() };
        let found = find(transaction, &self.prefix).await?.filter(|stored| stored.key.realm == self.realm);
        if found.is_none() {
            return Ok(Err(not_found()));
        }
        let sql = "UPDATE api_keys SET revoked_at_ms = $2, updated_at_ms = $2, revision = revision + 1 \
                   WHERE prefix = $1 AND revoked_at_ms IS NULL";
        if transaction.execute(sql, &[self.prefix.as_str().into(), now_ms().into()]).await? == 1 {
            transaction.announce(API_KEYS);
        }
        Ok(find(transaction, &self.prefix).await?.map(|stored| stored.key).ok_or_else(not_found))
    }
}

struct FirstKey {
    new: NewKey,
    presented: PresentedKey,
    given: bool,
}

#[async_trait]
impl Change for FirstKey {
    type Output = Result<Bootstrap, KeyError>;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "make the first key"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Self::Output, StoreError> {
        if transaction.backend() == Backend::Postgres {
            transaction.batch("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE").await?;
        }
        if self.given {
            if let Some(found) = find(transaction, &self.presented.prefix).await? {
                // A key that was revoked, or whose secret was rotated away, stays so: its operator wanted it gone.
                let was_ours = found.key.realm == Realm::Operator && found.key.name == self.new.name;
                let taken = KeyError::Taken { prefix: found.key.prefix };
                return Ok(if was_ours { Ok(Bootstrap::NotNeeded) } else { Err(taken) });
            }
        } else {
            let sql = "SELECT scopes FROM api_keys WHERE tenant IS NULL AND revoked_at_ms IS NULL \
                       AND (expires_at_ms IS NULL OR expires_at_ms > $1)";
            for row in transaction.query(sql, &[now_ms().into()]).await? {
                if row.text(0)?.split(' ').any(|scope| scope == ADMIN) {
                    return Ok(Ok(Bootstrap::NotNeeded));
                }
            }
        }
        let made = insert(transaction, &self.new, &self.presented).await?;
        Ok(made.map(Bootstrap::Made).ok_or_else(|| KeyError::Taken { prefix: self.presented.prefix.clone() }))
    }
}

struct Used(Vec<(String, u64)>);

#[async_trait]
impl Change for Used {
    type Output = ();

    fn size_bytes(&self) -> usize {
        64 * self.0.len()
    }

    fn doing(&self) -> &'static str {
        "note the use of keys"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let sql = "UPDATE api_keys SET last_used_ms = $2 WHERE prefix = $1 AND coalesce(last_used_ms, 0) < $2";
        for (prefix, at_ms) in &self.0 {
            transaction.execute(sql, &[prefix.as_str().into(), (*at_ms).into()]).await?;
        }
        Ok(())
    }
}
