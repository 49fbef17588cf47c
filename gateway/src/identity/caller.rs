//! The caller of a request, as its credential says.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_store::tenant::Realm;

use crate::api::{ApiCode, ApiError};

/// What a credential allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Send messages: ingestion and publishing.
    Ingest,
    /// See resources, messages and dead letters.
    Read,
    /// Repair and redrive dead letters.
    Redrive,
    /// Upload, roll out and retire plugins.
    Plugin,
    /// Change resources, keys and quotas: for a tenant its own, for the operator all.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Read, Self::Redrive, Self::Plugin, Self::Admin];

    /// For example `ingest`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Redrive => "redrive",
            Self::Plugin => "plugin",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether it is among them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Those in it, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::name)).finish()
    }
}

/// What a caller has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: an operator on this machine, where the gateway asks for nothing.
    Local,
    /// An API key, by its public prefix.
    ApiKey(Arc<str>),
    /// A JSON Web Token, by its issuer and subject.
    Token(Arc<str>),
    /// The service token of `/internal/mq/…`.
    Service,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::ApiKey(prefix) => write!(f, "key:{prefix}"),
            Self::Token(subject) => write!(f, "token:{subject}"),
            Self::Service => f.write_str("service"),
        }
    }
}

/// Who calls. The authentication layer puts it into the request; handlers take it as an argument, and a request without
/// one never reaches a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose resources it may touch.
    pub realm: Realm,
    /// What it may do with them.
    pub scopes: Scopes,
    /// Who it is, for audit and access log.
    pub credential: Credential,
    /// Where it calls from, if that is known.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// An operator on this machine.
    pub fn local() -> Self {
        Self { realm: Realm::Operator, scopes: Scopes::all(), credential: Credential::Local, address: None }
    }

    /// Refuses who lacks a scope.
    ///
    /// # Errors
    /// 403 with the scope's name.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.has(scope) {
            return Ok(());
        }
        let text = format!("this needs the scope `{}`, which your credential does not have", scope.name());
        Err(ApiError::new(ApiCode::Forbidden, text))
    }

    /// Refuses who is not the operator; to a tenant what is the operator's does not exist.
    ///
    /// # Errors
    /// 404.
    pub fn require_operator(&self) -> Result<(), ApiError> {
        match self.realm {
            Realm::Operator => Ok(()),
            Realm::Tenant(_) => Err(ApiError::new(ApiCode::PathNotFound, "the API has no such path")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let missing = || ApiError::new(ApiCode::Unauthorized, "no credential was found in the request");
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}
