//! JSON Web Tokens: who signed them, for whom, until when, and what they say of their bearer.
//!
//! Which algorithm is used is the configuration's choice, never the token's: one that names another, or `none`, is refused
//! before any key is looked at, and each key is for one family of algorithms.

mod crypto;
mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use sluicegate_store::tenant::{Realm, TenantName};

use self::keys::{Jwks, NoKey};
use super::caller::{Scope, Scopes};
use crate::config::{JwtAlgorithm, JwtConfig, JwtKeys};

pub use keys::JwksPlace;

/// Longest subject that is shown, in characters.
const MAX_SUBJECT_CHARS: usize = 128;
/// Most scopes and roles of a token that are looked at.
const MAX_NAMES: usize = 100;

/// Judges tokens.
pub struct Tokens {
    algorithms: Vec<Algorithm>,
    validation: Validation,
    keys: Keys,
    tenant_claim: String,
    scopes_claim: String,
    roles_claim: String,
    roles: BTreeMap<String, Scopes>,
    operator_role: Option<String>,
}

enum Keys {
    Secret(DecodingKey),
    Jwks(Jwks),
}

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bearer {
    pub realm: Realm,
    pub scopes: Scopes,
    /// As the token says, one word.
    pub subject: Arc<str>,
}

/// Why a token is not accepted. Texts show nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenRefused {
    /// It is not what it should be.
    Refused(&'static str),
    /// It is good, and says nothing that counts here.
    Meaningless(String),
    /// Nobody can say now.
    Unavailable,
}

impl Tokens {
    /// As configured.
    ///
    /// # Errors
    /// The keys are in a file that cannot be read. Those of a URL may come later.
    pub async fn new(config: &JwtConfig) -> anyhow::Result<Self> {
        crypto::install();
        let keys = match &config.keys {
            JwtKeys::Secret(secret) => Keys::Secret(DecodingKey::from_secret(secret.expose().as_bytes())),
            JwtKeys::Jwks(place) => {
                let jwks = Jwks::new(place.clone(), config.refresh);
                match (jwks.load().await, place) {
                    (Ok(()), _) => {}
                    (Err(error), JwksPlace::File(_)) => anyhow::bail!("cannot read `auth.jwt.jwks_file`: {error}"),
                    (Err(error), JwksPlace::Url(_)) => {
                        tracing::warn!(
                            error,
                            "cannot read `auth.jwt.jwks_url`; tokens are refused until it can be read"
                        );
                    }
                }
                Keys::Jwks(jwks)
            }
        };
        let algorithm = |algorithm: &JwtAlgorithm| match algorithm {
            JwtAlgorithm::HS256 => Algorithm::HS256,
            JwtAlgorithm::RS256 => Algorithm::RS256,
            JwtAlgorithm::ES256 => Algorithm::ES256,
        };
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = config.clock_skew.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        Ok(Self {
            algorithms: config.algorithms.iter().map(algorithm).collect(),
            validation,
            keys,
            tenant_claim: config.tenant_claim.clone(),
            scopes_claim: config.scopes_claim.clone(),
            roles_claim: config.roles_claim.clone(),
            roles: config.roles.iter().map(|(role, scopes)| (role.clone(), scopes.iter().copied().collect())).collect(),
            operator_role: config.operator_role.clone(),
        })
    }

    /// Judges one. Cancel safe.
    pub(super) async fn check(&self, token: &str) -> Result<Bearer, TokenRefused> {
        let refused = TokenRefused::Refused;
        let header = decode_header(token).map_err(|_| refused("it cannot be read"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(refused("it is signed by an algorithm that is not accepted"));
        }
        if header.crit.is_some() {
            return Err(refused("it demands an extension that is not understood"));
        }
        let key = match &self.keys {
            Keys::Secret(key) => key.clone(),
            Keys::Jwks(jwks) => jwks.find(header.kid.as_deref(), header.alg).await.map_err(|none| match none {
                NoKey::Unknown => refused("it is signed by a key that is not known"),
                NoKey::Unavailable => TokenRefused::Unavailable,
            })?,
        };
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let claims =
            decode::<Map<String, Value>>(token, &key, &validation).map_err(|error| refused(why(error.kind())))?;
        self.bearer(&claims.claims)
    }

    fn bearer(&self, claims: &Map<String, Value>) -> Result<Bearer, TokenRefused> {
        let roles = names(claim(claims, &self.roles_claim));
        let mut scopes: Scopes =
            names(claim(claims, &self.scopes_claim)).iter().filter_map(|name| Scope::parse(name)).collect();
        for granted in roles.iter().filter_map(|role| self.roles.get(*role)) {
            scopes = scopes.iter().chain(granted.iter()).collect();
        }
        let is_operators = self.operator_role.as_deref().is_some_and(|role| roles.contains(&role));
        // Whoever has a tenant is never more than that.
        let realm = match claim(claims, &self.tenant_claim) {
            Some(Value::String(name)) => TenantName::parse(name).map(Realm::Tenant).ok_or_else(|| {
                TokenRefused::Meaningless(format!("its claim `{}` is not the name of a tenant", self.tenant_claim))
            })?,
            None | Some(Value::Null) if is_operators => Realm::Operator,
            _ => {
                let text =
                    format!("it names no tenant in the claim `{}`, nor has it the operator's role", self.tenant_claim);
                return Err(TokenRefused::Meaningless(text));
            }
        };
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("-");
        let subject: String =
            subject.chars().take(MAX_SUBJECT_CHARS).map(|c| if c.is_control() || c == ' ' { '_' } else { c }).collect();
        Ok(Bearer { realm, scopes, subject: subject.into() })
    }
}

fn why(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "it comes from another issuer",
        ErrorKind::InvalidAudience => "it is meant for somebody else",
        ErrorKind::InvalidSignature => "its signature is wrong",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            "one of its claims `exp`, `nbf`, `iss` and `aud` is missing or of the wrong type"
        }
        _ => "it cannot be read",
    }
}

/// A claim by its name, or by a path of names with dots between.
fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    claims.get(name).or_else(|| {
        let mut names = name.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    })
}

/// A text with spaces between, or a list of texts.
fn names(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => text.split(' ').filter(|name| !name.is_empty()).take(MAX_NAMES).collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).take(MAX_NAMES).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
