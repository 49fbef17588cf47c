//! Changes of one value, each as one with looking at the present one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_engine::message::now_ms;

use super::sweep::{lock, sweep_space};
use super::{ENTRY_BYTES, StateSpace};
use crate::change::{Change, Transaction};
use crate::database::Value;
use crate::error::StoreError;
use crate::vault::Vault;

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// This value, for so long if given.
    Set(Bytes, Option<Duration>),
    /// No value.
    Delete,
    /// `value` (or none), if the present one is `expected` (or none).
    CompareAndSet {
        /// What has to be there.
        expected: Option<Bytes>,
        /// What is to be there.
        value: Option<Bytes>,
        /// For how long, if not for ever.
        ttl: Option<Duration>,
    },
    /// A number, kept in decimal digits, that is larger by so much; the time to live is for a number that is made by this.
    Increment(i64, Option<Duration>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// The change was made.
    Done,
    /// Nothing was changed: there was no value to delete, or another than expected.
    Not,
    /// The sum.
    Number(i64),
    /// Nothing was changed: the space would come to more than its limit.
    Full,
    /// Nothing was changed: the value is no number, or the sum would be none.
    NotANumber,
}

pub(super) struct ChangeState {
    vault: Arc<Vault>,
    space: StateSpace,
    key: String,
    edit: Edit,
    max_bytes: u64,
}

/// The row of the key, whether or not its time is over.
struct Present {
    size_bytes: u64,
    expires_at_ms: Option<u64>,
    /// None if its time is over.
    value: Option<Bytes>,
}

/// What the row is to become.
enum Next {
    Same,
    Value(Bytes, Option<u64>),
    Nothing,
}

impl ChangeState {
    pub(super) fn new(vault: &Arc<Vault>, space: &StateSpace, key: &str, edit: Edit, max_bytes: u64) -> Self {
        Self { vault: Arc::clone(vault), space: space.clone(), key: key.to_owned(), edit, max_bytes }
    }

    /// The row's columns that name it.
    fn place(&self) -> [Value; 3] {
        let [realm, plugin] = self.space.columns();
        [realm, plugin, (&self.key).into()]
    }

    async fn present(&self, transaction: &mut Transaction<'_>, now: u64) -> Result<Option<Present>, StoreError> {
        let sql = "SELECT value, size_bytes, expires_at_ms FROM plugin_state \
            WHERE realm = $1 AND plugin = $2 AND key = $3";
        let Some(row) = transaction.query_first(sql, &self.place()).await? else { return Ok(None) };
        let expires_at_ms = row.optional_unsigned(2)?;
        let value = match expires_at_ms {
            Some(at) if at <= now => None,
            Some(_) | None => Some(row.body_of(0, &self.space.identity(&self.key))?),
        };
        Ok(Some(Present { size_bytes: row.unsigned(1)?, expires_at_ms, value }))
    }

    /// What the edit comes to. Pure.
    fn decide(&self, present: Option<&Present>, now: u64) -> (Next, Changed) {
        let expiry = |ttl: &Option<Duration>| {
            ttl.map(|ttl| now.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
        };
        let value = present.and_then(|present| present.value.as_ref());
        match &self.edit {
            Edit::Set(value, ttl) => (Next::Value(value.clone(), expiry(ttl)), Changed::Done),
            Edit::Delete if value.is_some() => (Next::Nothing, Changed::Done),
            Edit::Delete => (Next::Same, Changed::Not),
            Edit::CompareAndSet { expected, .. } if expected.as_ref() != value => (Next::Same, Changed::Not),
            Edit::CompareAndSet { value: Some(value), ttl, .. } => {
                (Next::Value(value.clone(), expiry(ttl)), Changed::Done)
            }
            Edit::CompareAndSet { value: None, .. } if value.is_some() => (Next::Nothing, Changed::Done),
            Edit::CompareAndSet { value: None, .. } => (Next::Same, Changed::Done),
            Edit::Increment(by, ttl) => {
                let number = value.map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
                let Some(sum) = number.and_then(|number| number.checked_add(*by)) else {
                    return (Next::Same, Changed::NotANumber);
                };
                let expires_at_ms = match (value, present) {
                    (Some(_), Some(present)) => present.expires_at_ms,
                    (None, _) | (_, None) => expiry(ttl),
                };
                (Next::Value(sum.to_string().into(), expires_at_ms), Changed::Number(sum))
            }
        }
    }

    fn size_of(&self, value: &Bytes) -> u64 {
        (self.key.len() + value.len()) as u64 + ENTRY_BYTES
    }

    async fn put(
        &self,
        transaction: &mut Transaction<'_>,
        value: &Bytes,
        expires_at_ms: Option<u64>,
    ) -> Result<(), StoreError> {
        let identity = self.space.identity(&self.key);
        let sealed = self.vault.seal(self.space.vault_tenant(), value, false, &identity)?;
        let sql = "INSERT INTO plugin_state (realm, plugin, key, value, size_bytes, expires_at_ms) \
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (realm, plugin, key) DO UPDATE SET value = excluded.value, \
            size_bytes = excluded.size_bytes, expires_at_ms = excluded.expires_at_ms";
        let [realm, plugin, key] = self.place();
        let arguments = [realm, plugin, key, sealed.into(), self.size_of(value).into(), expires_at_ms.into()];
        transaction.execute(sql, &arguments).await.map(drop)
    }

    async fn remove(&self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        let sql = "DELETE FROM plugin_state WHERE realm = $1 AND plugin = $2 AND key = $3";
        transaction.execute(sql, &self.place()).await.map(drop)
    }
}

#[async_trait]
impl Change for ChangeState {
    type Output = Changed;

    fn size_bytes(&self) -> usize {
        let value = match &self.edit {
            Edit::Set(value, _) => value.len(),
            Edit::CompareAndSet { value, .. } => value.as_ref().map_or(0, Bytes::len),
            Edit::Delete | Edit::Increment(..) => 0,
        };
        256 + self.key.len() + value
    }

    fn doing(&self) -> &'static str {
        "change a plugin's state"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Changed, StoreError> {
        let mut used = lock(transaction, &self.space).await?;
        let now = now_ms();
        let present = self.present(transaction, now).await?;
        let (next, changed) = self.decide(present.as_ref(), now);
        let mut before = present.as_ref().map_or(0, |present| present.size_bytes);
        let after = match &next {
            Next::Same => return Ok(changed),
            Next::Value(value, _) => self.size_of(value),
            Next::Nothing => 0,
        };
        // Less than before is always allowed: the limit may have been lowered.
        let too_much = |used: u64, before: u64| after > before && used - before.min(used) + after > self.max_bytes;
        if too_much(used, before) {
            used -= sweep_space(transaction, &self.space, now).await?.min(used);
            // If its own time was over it may have gone with the others.
            before = self.present(transaction, now).await?.map_or(0, |present| present.size_bytes);
            if too_much(used, before) {
                return Ok(Changed::Full);
            }
        }
        match next {
            Next::Value(value, expires_at_ms) => self.put(transaction, &value, expires_at_ms).await?,
            Next::Nothing | Next::Same => self.remove(transaction).await?,
        }
        let [realm, plugin] = self.space.columns();
        let sql = "UPDATE plugin_state_spaces SET size_bytes = $3 WHERE realm = $1 AND plugin = $2";
        let used = used - before.min(used) + after;
        transaction.execute(sql, &[realm, plugin, used.into()]).await?;
        Ok(changed)
    }
}
