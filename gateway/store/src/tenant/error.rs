//! What is refused of tenants.

use crate::error::StoreError;

/// Why something was not done with a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// There is no such tenant.
    #[error("there is no tenant `{tenant}`; check the name")]
    NotFound {
        /// As asked for.
        tenant: String,
    },
    /// There is one already.
    #[error("there is a tenant `{tenant}` already; choose another name")]
    Exists {
        /// Its name.
        tenant: String,
    },
    /// Somebody else has changed it since it was read.
    #[error("the tenant `{tenant}` has been changed meanwhile and is at revision {revision}; read it again")]
    Conflict {
        /// Its name.
        tenant: String,
        /// Its revision now.
        revision: u64,
    },
    /// It cannot be deleted as it is.
    #[error("the tenant `{tenant}` cannot be deleted: {cause}")]
    InUse {
        /// Its name.
        tenant: String,
        /// Why, and what to do first.
        cause: String,
    },
    /// Something asked for is not possible.
    #[error("`{what}` is not possible: {text}")]
    Invalid {
        /// The member.
        what: &'static str,
        /// Why, and what is.
        text: String,
    },
    /// There are as many as there may be.
    #[error("there are {limit} tenants, and there may be no more; delete some that are not used")]
    TooMany {
        /// How many.
        limit: u64,
    },
    /// The store cannot do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
