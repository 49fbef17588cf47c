//! Whose resources are meant: the operator's or one tenant's.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest name of a tenant and of what tenants own, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// Whether a tenant, or something that a tenant owns, may be called so: 1 to 64 of a-z, 0-9, `-` and `_`, beginning with a
/// letter or digit.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= MAX_NAME_CHARS
        && name.chars().next().is_some_and(plain)
        && name.chars().all(|c| plain(c) || c == '-' || c == '_')
}

/// A tenant's name: never empty, without a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// The name, if it [is one](is_name).
    pub fn parse(name: &str) -> Option<Self> {
        is_name(name).then(|| Self(name.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose resources are meant. Comes from a credential, never from what a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Realm {
    /// Who runs the gateway: pipelines in files, and sight of everything.
    Operator,
    /// One tenant: what is its own and nothing else.
    Tenant(TenantName),
}

impl Realm {
    /// The name that everything inside the gateway (pipelines, queues, metrics, the store) knows it by.
    pub fn full<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self {
            Self::Operator => Cow::Borrowed(name),
            Self::Tenant(tenant) => Cow::Owned(format!("{tenant}/{name}")),
        }
    }

    /// The name its owner knows it by; none if it is somebody else's. The operator sees full names.
    pub fn short<'n>(&self, full: &'n str) -> Option<&'n str> {
        match self {
            Self::Operator => Some(full),
            Self::Tenant(tenant) => full.strip_prefix(tenant.as_str())?.strip_prefix('/'),
        }
    }

    /// Where names of this realm begin, for lists; the operator's list has everything.
    pub fn prefix(&self) -> Option<String> {
        match self {
            Self::Operator => None,
            Self::Tenant(tenant) => Some(format!("{tenant}/")),
        }
    }

    /// Whose a full name is.
    pub fn of(full: &str) -> Self {
        full.split_once('/').and_then(|(tenant, _)| TenantName::parse(tenant)).map_or(Self::Operator, Self::Tenant)
    }

    /// The tenant, unless it is the operator's.
    pub fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Operator => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Tenant(tenant) => tenant.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_sees_its_own_and_the_operator_everything() {
        let acme = Realm::Tenant(TenantName::parse("acme").expect("a name"));
        assert_eq!(acme.full("orders"), "acme/orders");
        assert_eq!(acme.short("acme/orders"), Some("orders"));
        for other in ["acme2/orders", "orders", "acme", "acm/orders", "ACME/orders"] {
            assert_eq!(acme.short(other), None, "{other}");
        }
        assert_eq!(Realm::Operator.short("acme/orders"), Some("acme/orders"));
        assert_eq!(Realm::of("acme/orders"), acme);
        assert_eq!(Realm::of("orders"), Realm::Operator);
    }

    #[test]
    fn names_have_no_slash_and_an_end() {
        for name in ["acme", "0", "a-b_c", &"x".repeat(64)] {
            assert!(TenantName::parse(name).is_some(), "{name}");
        }
        for name in ["", "-a", "A", "a/b", "a.b", "a b", "é", &"x".repeat(65)] {
            assert!(TenantName::parse(name).is_none(), "{name}");
        }
    }
}
