//! Settings of the webhook target.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use http::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::config::problem;
use super::message_headers::is_reserved_outgoing;
use super::reach::{MAX_NETWORKS, Reach, parse_network};
use super::signature::signing_key;
use crate::quantity::{Secret, Span};
use crate::registry::{Problem, Promise};

/// Most requests of one target at the same time that may be configured.
pub const LARGEST_MAX_CONCURRENT: usize = 1_024;

/// Longest time a webhook may be given to answer.
pub const LONGEST_WEBHOOK_TIMEOUT: Span = Span::secs(300);

/// Most additional headers.
const MAX_HEADERS: usize = 64;

/// A webhook: every message is one HTTP request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Where to send, `http://` or `https://`. A user and password in it are sent as basic authentication. Logs and
    /// errors show it without these and without its query.
    pub url: WebhookUrl,
    /// The method of the requests.
    #[serde(default)]
    pub method: WebhookMethod,
    /// How a message becomes a request.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Additional headers of every request, for example `authorization`. Their values are never shown.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Signs every request as Standard Webhooks say: `whsec_` and base64, or any other text as it is.
    pub signing_secret: Option<Secret>,
    /// How long a request may take until its answer is there; 10s unless given, at most 300s.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long making a connection may take, as part of `timeout`; 5s unless given.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Most requests at the same time; 16 unless given, at most 1024.
    #[serde(default = "default_max_concurrent")]
    pub max_concurrent: usize,
    /// How the other side's certificate is checked.
    #[serde(default)]
    pub tls: TlsConfig,
    /// Whether private, loopback, link-local and other addresses that do not belong to the public internet may be called;
    /// true unless given. It is judged after the host is looked up, and the request goes to the address that was judged.
    /// Webhooks of tenants never may.
    #[serde(default = "default_allow_private")]
    pub allow_private: bool,
    /// With `allow_private: false`: networks that may be called all the same, such as `10.1.0.0/16`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub allow_networks: Vec<String>,
}

/// The method of a webhook's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
pub enum WebhookMethod {
    /// POST.
    #[default]
    #[serde(rename = "POST")]
    Post,
    /// PUT.
    #[serde(rename = "PUT")]
    Put,
}

/// How a message becomes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    /// CloudEvents, binary mode: the body as it is, the attributes as `ce-…` headers.
    #[default]
    Binary,
    /// CloudEvents, structured mode: everything in one JSON document.
    Structured,
    /// The body and the message's headers, nothing else.
    Raw,
}

/// How the other side's certificate is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificates to trust, instead of the public authorities.
    pub ca_file: Option<PathBuf>,
}

/// An address whose user, password and query are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// Wraps an address; [`TargetConfig::problems`] says whether it is one.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address as configured, to be used and not shown.
    pub(super) fn parse(&self) -> Option<reqwest::Url> {
        let url = reqwest::Url::parse(&self.0).ok()?;
        (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
    }
}

/// Scheme, host, port and path.
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Some(url) => write!(f, "{}{}", url.origin().ascii_serialization(), url.path()),
            None => f.write_str("(not an address)"),
        }
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for WebhookUrl {
    fn schema_name() -> Cow<'static, str> {
        "WebhookUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An address that begins with http:// or https://." })
    }
}

fn default_timeout() -> Span {
    Span::secs(10)
}

fn default_connect_timeout() -> Span {
    Span::secs(5)
}

fn default_max_concurrent() -> usize {
    16
}

fn default_allow_private() -> bool {
    true
}

impl TargetConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.url.parse().is_none() {
            problems.push(problem(
                "/url",
                "this is no address that begins with http:// or https://",
                "for example `https://example.org/hook`",
            ));
        }
        if self.timeout.0.is_zero() || self.timeout > LONGEST_WEBHOOK_TIMEOUT {
            problems.push(problem(
                "/timeout",
                format!("{:?} is not between 1ms and {:?}", self.timeout.0, LONGEST_WEBHOOK_TIMEOUT.0),
                "10s suits most webhooks",
            ));
        }
        if self.connect_timeout.0.is_zero() || self.connect_timeout > LONGEST_WEBHOOK_TIMEOUT {
            problems.push(problem(
                "/connect_timeout",
                format!("{:?} is not between 1ms and {:?}", self.connect_timeout.0, LONGEST_WEBHOOK_TIMEOUT.0),
                "5s suits most networks",
            ));
        }
        if !(1..=LARGEST_MAX_CONCURRENT).contains(&self.max_concurrent) {
            problems.push(problem(
                "/max_concurrent",
                format!("{} is not between 1 and {LARGEST_MAX_CONCURRENT}", self.max_concurrent),
                "16 suits most webhooks; 1 keeps the order",
            ));
        }
        if self.signing_secret.as_ref().is_some_and(|secret| signing_key(secret.expose()).is_err()) {
            problems.push(problem(
                "/signing_secret",
                "the secret is empty, or begins with `whsec_` and the rest is not base64",
                "copy it anew from the receiver, or use any other text",
            ));
        }
        self.header_problems(&mut problems);
        self.reach_problems(&mut problems);
        problems
    }

    fn reach_problems(&self, problems: &mut Vec<Problem>) {
        for (index, network) in self.allow_networks.iter().enumerate() {
            if parse_network(network).is_none() {
                problems.push(problem(
                    &format!("/allow_networks/{index}"),
                    format!("`{network}` is not a network"),
                    "for example `10.1.0.0/16`, `fd00::/8` or a single address",
                ));
            }
        }
        if self.allow_networks.len() > MAX_NETWORKS {
            problems.push(problem(
                "/allow_networks",
                "there are too many networks",
                format!("use at most {MAX_NETWORKS}"),
            ));
        }
        if self.allow_private && !self.allow_networks.is_empty() {
            problems.push(problem(
                "/allow_networks",
                "all networks are allowed already",
                "add `allow_private: false` to allow only these, or leave them out",
            ));
        }
        if let Some(url) = self.url.parse()
            && let Err(out_of_reach) = self.reach(false).check(&url)
        {
            problems.push(problem("/url", out_of_reach.to_string(), "put its network into `allow_networks`"));
        }
    }

    /// Which addresses it may call: a tenant's webhook only public ones, whatever it says.
    pub(super) fn reach(&self, is_tenants: bool) -> Reach {
        match (is_tenants, self.allow_private) {
            (true, _) => Reach::Public { and: Vec::new() },
            (false, true) => Reach::Anywhere,
            (false, false) => {
                Reach::Public { and: self.allow_networks.iter().filter_map(|network| parse_network(network)).collect() }
            }
        }
    }

    fn header_problems(&self, problems: &mut Vec<Problem>) {
        if self.headers.len() > MAX_HEADERS {
            problems.push(problem(
                "/headers",
                format!("there are {} headers", self.headers.len()),
                format!("use at most {MAX_HEADERS}"),
            ));
        }
        for (name, value) in &self.headers {
            let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => problems.push(problem(
                    &pointer,
                    format!("`{name}` is not the name of a header"),
                    "for example `authorization`",
                )),
                Ok(known) if is_reserved_outgoing(known.as_str()) => {
                    problems.push(problem(&pointer, format!("`{name}` is set by the gateway itself"), "leave it out"));
                }
                Ok(_) => {}
            }
            if HeaderValue::from_str(value.expose()).is_err() {
                problems.push(problem(
                    &pointer,
                    "the value has characters that a header cannot have",
                    "look for line breaks at its end",
                ));
            }
        }
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let mut warnings = Vec::new();
        let sends_secrets = self.signing_secret.is_some() || !self.headers.is_empty();
        if let Some(url) = self.url.parse() {
            let local = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
            if url.scheme() == "http" && !local && (sends_secrets || !url.username().is_empty()) {
                warnings.push(problem(
                    "/url",
                    "secrets and messages travel unencrypted",
                    "use https:// unless the network is yours alone",
                ));
            }
        }
        Promise {
            at_least_once: true,
            because: "a message counts as delivered when the webhook has answered 2xx".to_owned(),
            warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> TargetConfig {
        serde_json::from_value(json).expect("a config")
    }

    #[test]
    fn an_address_is_enough() {
        let config = config(serde_json::json!({ "url": "http://localhost:9000/hook" }));
        assert_eq!(config.problems(), []);
        assert_eq!((config.method, config.format), (WebhookMethod::Post, WebhookFormat::Binary));
        assert_eq!(config.promise().warnings, []);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = config(serde_json::json!({
            "url": "ftp://x/", "timeout": "0s", "connect_timeout": "1h", "max_concurrent": 0,
            "signing_secret": "whsec_?", "headers": { "a b": "x", "host": "x", "x-a": "line\nbreak" },
        }));
        let pointers: Vec<_> = config.problems().into_iter().map(|p| p.pointer).collect();
        assert_eq!(
            pointers,
            [
                "/url",
                "/timeout",
                "/connect_timeout",
                "/max_concurrent",
                "/signing_secret",
                "/headers/a b",
                "/headers/host",
                "/headers/x-a"
            ]
        );
    }

    #[test]
    fn a_tenants_webhook_reaches_public_addresses_only_and_the_operators_what_it_says() {
        let local = "127.0.0.1".parse().expect("an address");
        let open = config(serde_json::json!({ "url": "http://127.0.0.1:9000/hook" }));
        assert!(open.reach(false).allows(local) && !open.reach(true).allows(local));
        let closed = config(serde_json::json!({ "url": "http://127.0.0.1/", "allow_private": false }));
        assert_eq!(closed.problems()[0].pointer, "/url");
        let listed = serde_json::json!({ "url": "http://127.0.0.1/", "allow_private": false, "allow_networks": ["127.0.0.0/8"] });
        let listed = config(listed);
        assert_eq!(listed.problems(), []);
        assert!(listed.reach(false).allows(local) && !listed.reach(true).allows(local));
        let wrong = config(serde_json::json!({ "url": "http://a/", "allow_networks": ["10/8", "::/0"] }));
        let pointers: Vec<_> = wrong.problems().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/allow_networks/0", "/allow_networks"]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = config(serde_json::json!({
            "url": "http://user:hunter2@hooks.example.org/a?token=hunter2",
            "headers": { "authorization": "Bearer hunter2" }, "signing_secret": "hunter2",
        }));
        let shown = format!("{config:?} {} {:?}", config.url, config.promise());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(config.url.to_string(), "http://hooks.example.org/a");
        assert_eq!(config.promise().warnings.len(), 1);
        assert!(!format!("{:?}", WebhookUrl::new("http//hunter2@x")).contains("hunter2"));
    }
}
