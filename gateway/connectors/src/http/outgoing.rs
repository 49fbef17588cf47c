//! Requests that others than connectors want made: to listed hosts only, within limits, and not to private addresses.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Client, Url, redirect};
use rustls::{ClientConfig, RootCertStore};

use super::client::causes;
use super::reach::{Guarded, OutOfReach, Reach, SystemLookup};

/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);
/// Most unused connections to one host that are kept.
const MAX_IDLE: usize = 8;
/// All names and values of a response's headers, in bytes.
const MAX_RESPONSE_HEADER_BYTES: usize = 64 << 10;
/// Headers of the connection, which are not the asker's to set.
const RESERVED_HEADERS: [&str; 9] =
    ["host", "content-length", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"];

/// A host that requests may go to, as written: `api.example.org` (https, the usual port), `*.example.org` (any name
/// below it), `http://10.0.0.7:9000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    scheme: String,
    /// In lower case; of a wildcard what comes after the asterisk, with its point.
    host: String,
    is_wildcard: bool,
    port: u16,
}

impl AllowedHost {
    /// Reads a host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        if scheme != "https" && scheme != "http" {
            return Err("only https:// and http:// can be listed");
        }
        let (is_wildcard, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        if rest.is_empty() || rest.contains('*') {
            return Err("an asterisk can only stand for the whole beginning of a name, as in *.example.org");
        }
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| "this is no host")?;
        let is_bare = url.path() == "/" && !rest.ends_with('/') && url.query().is_none() && url.fragment().is_none();
        if !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err("a host has a name and perhaps a port, no path and no password");
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("this is no host");
        };
        if is_wildcard && literal(host).is_some() {
            return Err("an address has no names below it");
        }
        let host = if is_wildcard { format!(".{host}") } else { host.to_owned() };
        Ok(Self { scheme: scheme.to_owned(), host, is_wildcard, port })
    }

    fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let names = if self.is_wildcard {
            host.len() > self.host.len() && host.ends_with(&self.host)
        } else {
            host == self.host
        };
        names && url.scheme() == self.scheme && url.port_or_known_default() == Some(self.port)
    }
}

/// What may be asked of whom.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingConfig {
    /// Where requests may go.
    pub hosts: Vec<AllowedHost>,
    /// Whether hosts may have private, loopback and other addresses that are not of the public internet.
    pub allow_private: bool,
    /// For a whole exchange.
    pub timeout: Duration,
    /// Longest body of a response, in bytes.
    pub max_response_bytes: usize,
    /// Requests a second, in bursts of as many as come in a second (at least one); none for any number.
    pub per_second: Option<f64>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRequest {
    /// A standard method.
    pub method: &'static str,
    /// Absolute.
    pub url: String,
    /// As wanted.
    pub headers: Vec<(String, Bytes)>,
    /// May be empty.
    pub body: Bytes,
    /// Shorter than the timeout there is.
    pub timeout: Option<Duration>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingResponse {
    /// Any.
    pub status: u16,
    /// In lower case.
    pub headers: Vec<(String, Bytes)>,
    /// Whole.
    pub body: Bytes,
}

/// Why there is no response. No text has anything of the URL but its host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The host is not listed, or its address is private; nothing was sent.
    #[error("{0}")]
    Refused(String),
    /// Over the rate; nothing was sent.
    #[error("over the rate, there is room after {0:?}")]
    Rate(Duration),
    /// No whole response in time.
    #[error("no response in time")]
    Timeout,
    /// The response is longer than it may be.
    #[error("the response is longer than it may be")]
    TooLarge,
    /// No connection, or it broke.
    #[error("{0}")]
    Unavailable(String),
}

/// Makes requests within one configuration. Shared by all who share its rate.
#[derive(Debug)]
pub struct Outgoing {
    config: OutgoingConfig,
    client: Client,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Outgoing {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up; in words for people.
    pub fn new(config: OutgoingConfig) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("preparing TLS for outgoing HTTP: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let resolver = Guarded { reach: Arc::new(reach(&config)), lookup: Arc::new(SystemLookup) };
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(resolver))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(config.timeout)
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .user_agent(concat!("sluicegate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("preparing outgoing HTTP: {}", causes(&error)))?;
        let bucket = Mutex::new(Bucket { tokens: burst(&config), at: Instant::now() });
        Ok(Self { config, client, bucket })
    }

    /// Sends one request and reads the whole response. No redirect is followed, nothing is tried again. Cancel safe: the
    /// request may have been sent.
    ///
    /// # Errors
    /// See [`OutgoingError`].
    pub async fn send(&self, request: OutgoingRequest) -> Result<OutgoingResponse, OutgoingError> {
        let url = self.checked_url(&request.url)?;
        let headers = checked_headers(&request.headers)?;
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| OutgoingError::Invalid(format!("there is no method {}", request.method)))?;
        self.take_token(Instant::now())?;
        let timeout = request.timeout.map_or(self.config.timeout, |wanted| wanted.min(self.config.timeout));
        let host = url.host_str().unwrap_or_default().to_owned();
        let sending = self.client.request(method, url).headers(headers).body(request.body).send();
        let exchange = async {
            let response = sending.await.map_err(|error| failed(&host, error))?;
            self.read(&host, response).await
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(OutgoingError::Timeout))
    }

    fn checked_url(&self, text: &str) -> Result<Url, OutgoingError> {
        let url =
            Url::parse(text).map_err(|error| OutgoingError::Invalid(format!("the URL cannot be read: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OutgoingError::Invalid("the URL has a user or password; send them in a header".to_owned()));
        }
        let host = url.host_str().unwrap_or_default();
        if !self.config.hosts.iter().any(|allowed| allowed.allows(&url)) {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            return Err(OutgoingError::Refused(format!(
                "{}://{host}{port} is not among the hosts listed",
                url.scheme()
            )));
        }
        // Names are judged when they are resolved.
        if reach(&self.config).check(&url).is_err() {
            return Err(OutgoingError::Refused(private(host)));
        }
        Ok(url)
    }

    fn take_token(&self, now: Instant) -> Result<(), OutgoingError> {
        let Some(per_second) = self.config.per_second else { return Ok(()) };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * per_second).min(burst(&self.config));
        bucket.at = now;
        if bucket.tokens < 1.0 {
            let after = Duration::try_from_secs_f64((1.0 - bucket.tokens) / per_second);
            return Err(OutgoingError::Rate(after.unwrap_or(Duration::MAX)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    async fn read(&self, host: &str, mut response: reqwest::Response) -> Result<OutgoingResponse, OutgoingError> {
        let header_bytes: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let limit = self.config.max_response_bytes;
        if header_bytes > MAX_RESPONSE_HEADER_BYTES || response.content_length().is_some_and(|n| n > limit as u64) {
            return Err(OutgoingError::TooLarge);
        }
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect();
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(host, error))? {
            if body.len() + chunk.len() > limit {
                return Err(OutgoingError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(OutgoingResponse { status, headers, body: body.into() })
    }
}

fn burst(config: &OutgoingConfig) -> f64 {
    config.per_second.unwrap_or_default().max(1.0)
}

fn checked_headers(wanted: &[(String, Bytes)]) -> Result<HeaderMap, OutgoingError> {
    let mut headers = HeaderMap::with_capacity(wanted.len());
    for (name, value) in wanted {
        let wrong = |what: &str| OutgoingError::Invalid(format!("the header {name:?} {what}"));
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("cannot be a header's name"))?;
        if RESERVED_HEADERS.contains(&parsed.as_str()) || parsed.as_str().starts_with("proxy-") {
            return Err(wrong("is the gateway's to set"));
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| wrong("has a value that no header can have"))?;
        headers.append(parsed, value);
    }
    Ok(headers)
}

/// An address that a host is written as.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Which addresses hosts may have.
fn reach(config: &OutgoingConfig) -> Reach {
    if config.allow_private { Reach::Anywhere } else { Reach::Public { and: Vec::new() } }
}

/// Does not say which address it is: what the gateway's DNS answers is no concern of who asks.
fn private(host: &str) -> String {
    format!(
        "`{host}` has an address that is not of the public internet, which the grant does not allow (`allow_private`)"
    )
}

fn failed(host: &str, error: reqwest::Error) -> OutgoingError {
    if OutOfReach::caused(&error) {
        return OutgoingError::Refused(private(host));
    }
    if error.is_timeout() {
        return OutgoingError::Timeout;
    }
    OutgoingError::Unavailable(format!("asking {host}: {}", causes(&error.without_url())))
}

#[cfg(test)]
#[path = "outgoing_tests.rs"]
mod tests;
