//! Tenants: who owns what. Everything a tenant owns bears its name, `TENANT/NAME`; what stands in the operator's files has
//! no slash in its name, so that the two never meet.

mod change;
mod error;
mod read;
mod realm;
mod record;

pub use change::TenantUpdate;
pub use error::TenantError;
pub use read::IdentityVersion;
pub use realm::{MAX_NAME_CHARS, Realm, TenantName, is_name};
pub use record::{Grants, MAX_DISPLAY_CHARS, MAX_GRANTS, Quotas, RESERVED_NAMES, Tenant};

/// Most tenants of a store.
pub const MAX_TENANTS: u64 = 10_000;

/// Announced when a tenant was made, changed or deleted.
pub(crate) const TENANTS: &str = "tenants";
