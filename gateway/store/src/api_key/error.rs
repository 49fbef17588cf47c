//! What is refused of keys.

use crate::error::StoreError;

/// Why something was not done with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no such key, or none of this realm.
    #[error("there is no key `{prefix}`; the list of keys shows them all")]
    NotFound {
        /// As asked for.
        prefix: String,
    },
    /// There is no such tenant to have a key.
    #[error("there is no tenant `{tenant}`; create it first")]
    TenantNotFound {
        /// As asked for.
        tenant: String,
    },
    /// It was revoked, and a revoked key stays so.
    #[error("the key `{prefix}` is revoked; create another one")]
    Revoked {
        /// Which.
        prefix: String,
    },
    /// There is another key with this prefix.
    #[error("there is another key with the prefix `{prefix}`; make a new one")]
    Taken {
        /// Which.
        prefix: String,
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
    #[error(
        "there are {limit} keys of this realm, and there may be no more; revoked ones are removed a day after they were revoked"
    )]
    TooMany {
        /// How many.
        limit: u64,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes, so no key can be made; look at its entropy source")]
    NoRandomness,
    /// The store cannot do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
