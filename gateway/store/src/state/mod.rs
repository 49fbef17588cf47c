//! Key-value state of plugins: a space for each plugin of each realm, with a limit of its own.
//!
//! A change is on the disk when its call returns; changes of many messages share a transaction. Values pass the vault, as
//! bodies do.

mod change;
mod sweep;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_engine::message::now_ms;

pub use change::{Changed, Edit};
pub(crate) use sweep::sweep;

use crate::database::{Connection, Value};
use crate::error::StoreError;
use crate::reader::Question;
use crate::store::Store;
use crate::tenant::Realm;
use crate::vault::DEFAULT_TENANT;

/// What each value counts beside its key and itself, in bytes.
pub const ENTRY_BYTES: u64 = 64;

/// Whose state is meant: one plugin of one realm. Nothing of one space is seen in another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StateSpace {
    realm: Realm,
    plugin: Arc<str>,
}

impl StateSpace {
    /// The space of a plugin by the name its owner knows it by.
    pub fn new(realm: Realm, plugin: impl Into<Arc<str>>) -> Self {
        Self { realm, plugin: plugin.into() }
    }

    fn realm_text(&self) -> &str {
        self.realm.tenant().map_or("", |tenant| tenant.as_str())
    }

    /// Whose key encrypts.
    fn vault_tenant(&self) -> &str {
        self.realm.tenant().map_or(DEFAULT_TENANT, |tenant| tenant.as_str())
    }

    fn columns(&self) -> [Value; 2] {
        [self.realm_text().into(), Arc::clone(&self.plugin).into()]
    }

    /// What a value is sealed for: one that is moved elsewhere is not taken for another's.
    fn identity<'s>(&'s self, key: &'s str) -> [&'s [u8]; 4] {
        [b"plugin state", self.realm_text().as_bytes(), self.plugin.as_bytes(), key.as_bytes()]
    }
}

/// What a space holds, values whose time is over included until they are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateUsage {
    /// Values.
    pub keys: u64,
    /// As it counts against the limit.
    pub size_bytes: u64,
}

impl Store {
    /// The value of a key, unless there is none or its time is over. Cancel safe.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn state_value(&self, space: &StateSpace, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.ask(Find { space: space.clone(), key: key.to_owned() }).await
    }

    /// Changes the value of a key in a space that may come to `max_bytes`, durably. If the call is dropped, the change may
    /// be made or not.
    ///
    /// # Errors
    /// What is wrong with the store; the change may have been made if the connection broke while it was committed.
    pub async fn change_state(
        &self,
        space: &StateSpace,
        key: &str,
        edit: Edit,
        max_bytes: u64,
    ) -> Result<Changed, StoreError> {
        let change = |edit| change::ChangeState::new(self.vault(), space, key, edit, max_bytes);
        match self.change(change(edit.clone())).await {
            Err(StoreError::UnknownKey { tenant, .. }) if tenant == space.vault_tenant() => {
                self.ensure_key(&tenant).await?;
                self.change(change(edit)).await
            }
            changed => changed,
        }
    }

    /// What a space holds. Cancel safe.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn state_usage(&self, space: &StateSpace) -> Result<StateUsage, StoreError> {
        self.ask(FindUsage(space.clone())).await
    }
}

struct Find {
    space: StateSpace,
    key: String,
}

#[async_trait]
impl Question for Find {
    type Output = Option<Bytes>;

    fn doing(&self) -> &'static str {
        "read a plugin's state"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT value FROM plugin_state WHERE realm = $1 AND plugin = $2 AND key = $3 \
            AND (expires_at_ms IS NULL OR expires_at_ms > $4)";
        let [realm, plugin] = self.space.columns();
        let found = connection.query_first(sql, &[realm, plugin, (&self.key).into(), now_ms().into()]).await?;
        found.map(|row| row.body_of(0, &self.space.identity(&self.key))).transpose()
    }
}

struct FindUsage(StateSpace);

#[async_trait]
impl Question for FindUsage {
    type Output = StateUsage;

    fn doing(&self) -> &'static str {
        "read what a plugin's state comes to"
    }

    async fn ask(&self, connection: &mut Connection) -> Result<StateUsage, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM plugin_state WHERE realm = $1 AND plugin = $2), size_bytes \
            FROM plugin_state_spaces WHERE realm = $1 AND plugin = $2";
        match connection.query_first(sql, &self.0.columns()).await? {
            Some(row) => Ok(StateUsage { keys: row.unsigned(0)?, size_bytes: row.unsigned(1)? }),
            None => Ok(StateUsage::default()),
        }
    }
}
