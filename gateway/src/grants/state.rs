//! Key-value state in the store.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluicegate_plugin_host::{StateAccess, StateChange, StateChanged, StateError};
use sluicegate_store::state::{Changed, Edit, StateSpace};
use sluicegate_store::{Store, StoreError};

/// One plugin's space.
pub struct StoreState {
    store: Arc<Store>,
    space: StateSpace,
    max_bytes: u64,
}

impl StoreState {
    /// Does no I/O.
    pub fn new(store: Arc<Store>, space: StateSpace, max_bytes: u64) -> Self {
        Self { store, space, max_bytes }
    }
}

#[async_trait]
impl StateAccess for StoreState {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        self.store.state_value(&self.space, key).await.map_err(|error| unavailable(&error))
    }

    async fn change(&self, key: &str, change: StateChange) -> Result<StateChanged, StateError> {
        let edit = match change {
            StateChange::Set(value, ttl) => Edit::Set(value, ttl),
            StateChange::Delete => Edit::Delete,
            StateChange::CompareAndSet { expected, value, ttl } => Edit::CompareAndSet { expected, value, ttl },
            StateChange::Increment(by, ttl) => Edit::Increment(by, ttl),
        };
        match self.store.change_state(&self.space, key, edit, self.max_bytes).await {
            Ok(Changed::Done) => Ok(StateChanged::Done),
            Ok(Changed::Not) => Ok(StateChanged::Not),
            Ok(Changed::Number(sum)) => Ok(StateChanged::Number(sum)),
            Ok(Changed::Full) => Err(StateError::Full),
            Ok(Changed::NotANumber) => Err(StateError::NotANumber),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

/// What is wrong with the store is for the operator, not for the guest.
fn unavailable(error: &StoreError) -> StateError {
    tracing::warn!(%error, "a plugin's state is not available");
    StateError::Unavailable("the store cannot be used now".to_owned())
}
