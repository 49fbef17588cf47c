//! The layer before the whole server: who calls, whether they may, what is written of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};
use sluicegate_connectors::http::{Ingress, PeerAddress};
use sluicegate_engine::message::now_ms;
use sluicegate_store::audit::{AuditEntry, AuditOutcome};
use sluicegate_store::tenant::{Realm, TenantName};
use subtle::ConstantTimeEq as _;

use super::audit::{Audit, Audited};
use super::caller::{Caller, Credential, Scopes};
use super::credential::{self, Presented};
use super::directory::{Directory, KeyRefused};
use super::routes::{self, Does, Rule, Whom};
use super::token::{TokenRefused, Tokens};
use crate::api::{ApiCode, ApiError};
use crate::config::{AuthConfig, RequiredAuth};

/// So much of a path is shown.
const MAX_PATH_CHARS: usize = 256;
/// What a client is asked to wait while nobody can tell who it is, in seconds.
const RETRY_AFTER_SECS: u64 = 5;
/// Names the tenant a service acts for, below `/internal` only: a service is trusted with that.
const TENANT_HEADER: &str = "x-tenant-id";

/// See the module.
pub struct Guard {
    asks: Option<Asks>,
    ingress: Ingress,
    audit: Arc<Audit>,
    access_log: bool,
}

/// What it knows callers by.
struct Asks {
    directory: Directory,
    takes_keys: bool,
    tokens: Option<Tokens>,
    /// Digest of the service's token.
    service: Option<[u8; 32]>,
    protects_metrics: bool,
}

/// Where a request goes.
enum Place<'r> {
    /// Open to everybody.
    Open,
    /// The API, or with `internal` the same for services; the path as the router knows it, if it does.
    Api {
        path: Option<&'r str>,
        internal: bool,
    },
    /// A pipeline's path, if one listens there.
    Ingestion(Option<Realm>),
    Metrics,
}

/// A request that is refused.
struct Refused {
    error: Box<ApiError>,
    actor: Cow<'static, str>,
    realm: Realm,
    /// Whether it is for who asks; not where it only is that nobody can say now.
    is_denial: bool,
}

impl Guard {
    /// As configured. Without tokens' keys in the file that has them it does not start.
    ///
    /// # Errors
    /// As [`Tokens::new`].
    pub async fn new(
        config: &AuthConfig,
        access_log: bool,
        directory: Directory,
        audit: Arc<Audit>,
        ingress: Ingress,
    ) -> anyhow::Result<Self> {
        let asks = match config {
            AuthConfig::Local | AuthConfig::Open => None,
            AuthConfig::Required(required) => {
                let RequiredAuth { keys, jwt, service_token, protect_metrics } = &**required;
                let tokens = match jwt {
                    Some(jwt) => Some(Tokens::new(jwt).await?),
                    None => None,
                };
                let service = service_token.as_ref().map(|token| Sha256::digest(token.expose()).into());
                Some(Asks { directory, takes_keys: *keys, tokens, service, protects_metrics: *protect_metrics })
            }
        };
        Ok(Self { asks, ingress, audit, access_log })
    }

    /// Puts itself before a server.
    pub fn before(self, server: Router) -> Router {
        server.layer(middleware::from_fn_with_state(Arc::new(self), pass))
    }

    fn place<'r>(&self, path: &str, matched: Option<&'r MatchedPath>) -> Place<'r> {
        match path {
            "/health" | "/ready" => return Place::Open,
            "/metrics" => return Place::Metrics,
            _ => {}
        }
        for (prefix, internal) in [("/api/v1", false), ("/internal", true)] {
            if path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                let path = matched.and_then(|matched| matched.as_str().strip_prefix(prefix));
                return Place::Api { path, internal };
            }
        }
        Place::Ingestion(self.ingress.pipeline_at(path).map(|pipeline| Realm::of(&pipeline)))
    }

    /// The rule for a request, and who makes it; `None` where nobody is asked.
    async fn admit(&self, head: &Parts, place: &Place<'_>, address: Option<IpAddr>) -> (Rule, Result<Caller, Refused>) {
        let (rule, internal) = match place {
            Place::Open => (routes::METRICS, false),
            Place::Metrics => (routes::METRICS, false),
            // The router answers what it does not know, to whoever has any credential.
            Place::Api { path: None, internal } => {
                (Rule { scope: None, whom: Whom::Everyone, ..routes::UNLISTED }, *internal)
            }
            Place::Api { path: Some(path), internal } => (routes::rule(&head.method, path), *internal),
            Place::Ingestion(_) => (routes::INGESTION, false),
        };
        let caller = match &self.asks {
            None => local(head, internal),
            Some(asks) => match place {
                Place::Open => Ok(Caller::local()),
                Place::Metrics if !asks.protects_metrics => Ok(Caller::local()),
                _ => asks.identify(head, internal).await,
            },
        };
        let caller = match caller {
            Ok(caller) => Caller { address, ..caller },
            Err(refused) => return (rule, Err(refused)),
        };
        if (self.asks.is_none() && caller.realm == Realm::Operator) || matches!(place, Place::Open) {
            return (rule, Ok(caller));
        }
        let allowed = match (&caller.credential, place) {
            (Credential::Local, Place::Metrics) => Ok(()),
            _ => allowed(&caller, rule, place),
        };
        (rule, allowed.map(|()| caller.clone()).map_err(|error| Refused::of(&caller, error)))
    }

    fn log(
        &self,
        (method, path): (&Method, &str),
        status: StatusCode,
        began: Instant,
        caller: Result<&Caller, &str>,
        address: Option<IpAddr>,
    ) {
        let latency_ms = began.elapsed().as_secs_f64() * 1_000.0;
        let ip = address.map(|address| address.to_string()).unwrap_or_default();
        let (identity, realm) = match caller {
            Ok(caller) => (caller.credential.to_string(), caller.realm.to_string()),
            Err(actor) => (actor.to_owned(), String::new()),
        };
        tracing::info!(
            target: "access",
            method = method.as_str(), path, status = status.as_u16(), latency_ms, ip, identity, realm, "request"
        );
    }
}

/// One request, from its head to its answer.
async fn pass(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (mut head, body) = request.into_parts();
    let matched = head.extensions.get::<MatchedPath>().cloned();
    let address = head.extensions.get::<PeerAddress>().map(|peer| peer.0);
    let place = guard.place(head.uri.path(), matched.as_ref());
    let (rule, admitted) = guard.admit(&head, &place, address).await;
    let is_open = matches!(place, Place::Open | Place::Metrics);
    let method = head.method.clone();
    let shown = matched.as_ref().map_or_else(|| head.uri.path(), MatchedPath::as_str);
    let shown: String = shown.chars().take(MAX_PATH_CHARS).collect();
    let resource: String = head.uri.path().chars().take(MAX_PATH_CHARS).collect();
    let entry = |actor: String, realm: Realm, outcome| AuditEntry {
        at_ms: now_ms(),
        actor,
        realm,
        action: rule.action.to_owned(),
        resource,
        before: None,
        after: None,
        outcome,
        address,
        repeats: 0,
    };
    let caller = match admitted {
        Ok(caller) => caller,
        Err(refused) => {
            if refused.is_denial {
                guard.audit.deny(entry(refused.actor.to_string(), refused.realm, AuditOutcome::Denied));
            }
            let response = refused.error.into_response();
            if guard.access_log {
                guard.log((&method, &shown), response.status(), began, Err(&refused.actor), address);
            }
            return response;
        }
    };
    head.extensions.insert(caller.clone());
    let mut response = next.run(Request::from_parts(head, body)).await;
    let status = response.status();
    if guard.access_log {
        guard.log((&method, &shown), status, began, Ok(&caller), address);
    }
    let audited = response.extensions_mut().remove::<Audited>().unwrap_or_default();
    let actor = caller.credential.to_string();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        guard.audit.deny(entry(actor, caller.realm, AuditOutcome::Denied));
    } else if rule.does == Does::Change && !is_open && rule.action != routes::UNLISTED.action {
        let outcome = if status.is_success() { AuditOutcome::Done } else { AuditOutcome::Failed };
        let entry = entry(actor, caller.realm, outcome);
        let resource = audited.resource.unwrap_or_else(|| entry.resource.clone());
        guard.audit.note(AuditEntry { resource, before: audited.before, after: audited.after, ..entry }).await;
    }
    response
}

/// Who calls where nobody is asked.
fn local(head: &Parts, internal: bool) -> Result<Caller, Refused> {
    let caller = Caller::local();
    if internal { for_tenant(head, caller) } else { Ok(caller) }
}

/// A service, acting for the tenant it names.
fn for_tenant(head: &Parts, caller: Caller) -> Result<Caller, Refused> {
    let Some(name) = head.headers.get(TENANT_HEADER) else { return Ok(caller) };
    match name.to_str().ok().and_then(TenantName::parse) {
        Some(tenant) => Ok(Caller { realm: Realm::Tenant(tenant), ..caller }),
        None => {
            let error = ApiError::new(ApiCode::InvalidRequest, "the header `X-Tenant-ID` is not the name of a tenant");
            Err(Refused { is_denial: false, ..Refused::of(&caller, error) })
        }
    }
}

/// Whether a caller may do what a rule is about.
fn allowed(caller: &Caller, rule: Rule, place: &Place<'_>) -> Result<(), ApiError> {
    if let Place::Ingestion(realm) = place {
        match (realm, &caller.realm) {
            // The ingress says that nobody listens.
            (None, _) => return Ok(()),
            (Some(Realm::Tenant(tenant)), Realm::Operator) => {
                let text = format!("this path is the tenant `{tenant}`'s: send to it with a credential of that tenant");
                return Err(ApiError::new(ApiCode::Forbidden, text));
            }
            (Some(owner), realm) if owner != realm => {
                return Err(ApiError::new(ApiCode::PathNotFound, "no pipeline listens at this path"));
            }
            (Some(_), _) => {}
        }
    }
    if rule.whom == Whom::Operator {
        caller.require_operator()?;
    }
    rule.scope.map_or(Ok(()), |scope| caller.require(scope))
}

impl Asks {
    /// Who calls, as the credential says.
    async fn identify(&self, head: &Parts, internal: bool) -> Result<Caller, Refused> {
        let presented =
            credential::read(&head.headers, internal).map_err(|text| Refused::unknown("unreadable", text))?;
        let caller = match presented {
            Presented::Nothing => {
                let text = if internal {
                    "this needs the header `X-Service-Token`, or a key as `Authorization: Bearer sgk_…`"
                } else {
                    "this needs a key as `Authorization: Bearer sgk_…` or `X-API-Key`, or a token"
                };
                return Err(Refused::unknown("nobody", text));
            }
            Presented::Service(token) => self.service(head, token)?,
            Presented::Key(presented) if self.takes_keys => self.key(&presented).await?,
            Presented::Token(token) if self.tokens.is_some() => self.token(token).await?,
            Presented::Key(_) => return Err(Refused::unknown("key", "keys are not accepted here; send a token")),
            Presented::Token(_) => return Err(Refused::unknown("token", "tokens are not accepted here; send a key")),
        };
        self.active(caller).await
    }

    fn service(&self, head: &Parts, token: &[u8]) -> Result<Caller, Refused> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        match &self.service {
            Some(service) if bool::from(service.ct_eq(&digest)) => {
                let caller = Caller {
                    realm: Realm::Operator,
                    scopes: Scopes::all(),
                    credential: Credential::Service,
                    address: None,
                };
                for_tenant(head, caller)
            }
            _ => Err(Refused::unknown("service", "the service token is not the right one")),
        }
    }

    async fn key(&self, presented: &sluicegate_store::api_key::PresentedKey) -> Result<Caller, Refused> {
        use sluicegate_store::api_key::Refused as Why;
        match self.directory.check(presented).await {
            Ok(good) => Ok(Caller {
                realm: good.stored.key.realm.clone(),
                scopes: good.scopes,
                credential: Credential::ApiKey(good.stored.key.prefix.into()),
                address: None,
            }),
            Err(KeyRefused::Store(error)) => Err(Refused::unavailable(&error.to_string())),
            Err(KeyRefused::Refused(why)) => {
                let text = match why {
                    Some(Why::Expired) => "the key has expired",
                    Some(Why::Revoked) => "the key was revoked",
                    Some(Why::Wrong) | None => "the key is not known; it may have been rotated or revoked",
                };
                Err(Refused { actor: format!("key:{}", presented.prefix).into(), ..Refused::unknown("key", text) })
            }
        }
    }

    async fn token(&self, token: &str) -> Result<Caller, Refused> {
        let Some(tokens) = &self.tokens else { return Err(Refused::unknown("token", "tokens are not accepted here")) };
        match tokens.check(token).await {
            Ok(bearer) => Ok(Caller {
                realm: bearer.realm,
                scopes: bearer.scopes,
                credential: Credential::Token(bearer.subject),
                address: None,
            }),
            Err(TokenRefused::Refused(why)) => {
                Err(Refused::unknown("token", format!("the token is not accepted: {why}")))
            }
            Err(TokenRefused::Meaningless(why)) => {
                let error = ApiError::new(ApiCode::Forbidden, format!("the token is good, but {why}"));
                Err(Refused { error: error.into(), actor: "token".into(), realm: Realm::Operator, is_denial: true })
            }
            Err(TokenRefused::Unavailable) => {
                Err(Refused::unavailable("the keys that tokens are checked with cannot be read now"))
            }
        }
    }

    /// Refuses in the name of tenants that are suspended or gone.
    async fn active(&self, caller: Caller) -> Result<Caller, Refused> {
        let Some(name) = caller.realm.tenant() else { return Ok(caller) };
        let text = match self.directory.tenant(name).await {
            Ok(Some(tenant)) if !tenant.suspended => return Ok(caller),
            Ok(Some(_)) => format!("the tenant `{name}` is suspended; ask the operator"),
            Ok(None) => format!("there is no tenant `{name}`"),
            Err(error) => return Err(Refused::unavailable(&error.to_string())),
        };
        Err(Refused::of(&caller, ApiError::new(ApiCode::Forbidden, text)))
    }
}

impl Refused {
    /// Of somebody known.
    fn of(caller: &Caller, error: ApiError) -> Self {
        Self {
            error: error.into(),
            actor: caller.credential.to_string().into(),
            realm: caller.realm.clone(),
            is_denial: true,
        }
    }

    fn unknown(actor: &'static str, text: impl Into<String>) -> Self {
        let error = ApiError::new(ApiCode::Unauthorized, text);
        Self { error: error.into(), actor: actor.into(), realm: Realm::Operator, is_denial: true }
    }

    fn unavailable(why: &str) -> Self {
        tracing::debug!(why, "cannot tell who calls");
        let error = ApiError::new(ApiCode::StoreUnavailable, "cannot tell now who calls; try again in a moment")
            .with_retry_after(RETRY_AFTER_SECS);
        Self { error: error.into(), actor: "unknown".into(), realm: Realm::Operator, is_denial: false }
    }
}
