//! Tenants: who owns what. Everything a tenant owns bears its name, `TENANT/NAME`; what stands in the operator's files has
//! no slash in its name, so that the two never meet.

mod realm;

pub use realm::{MAX_NAME_CHARS, Realm, TenantName, is_name};
