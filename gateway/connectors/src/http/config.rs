//! Settings of the `http` connector: of the ingestion source here, of the webhook target in `target_config`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::quantity::{Size, Span};
use crate::registry::{Problem, Promise};

/// Largest body of one message that a path may be set to accept.
pub const LARGEST_MAX_BODY_BYTES: u64 = 16 << 20;

/// Longest time a client may be kept waiting for the outcome.
pub const LONGEST_TIMEOUT: Span = Span::secs(300);

/// How long an idempotency key may be set to be known.
pub const SHORTEST_IDEMPOTENCY_TTL: Span = Span::secs(1);
/// How long an idempotency key may be set to be known.
pub const LONGEST_IDEMPOTENCY_TTL: Span = Span::secs(30 * 24 * 3_600);

/// Longest path.
const MAX_PATH_BYTES: usize = 256;

/// The gateway's own paths.
const RESERVED: [&str; 5] = ["/api", "/health", "/ready", "/metrics", "/internal"];

/// HTTP ingestion: a path of the gateway's own server at which messages are posted.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The path, for example `/ingest/orders`. No other pipeline may have the same.
    pub path: String,
    /// When the client is answered.
    #[serde(default)]
    pub respond: Respond,
    /// How long a client waits at most, for the outcome or for the disk; 30s unless given, at most 300s. Then it is told
    /// to try again, or, if the message is on disk, that it is.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How bodies are understood.
    #[serde(default)]
    pub format: Format,
    /// The message type (CloudEvents `type`) given to raw bodies.
    #[serde(default = "default_kind")]
    pub kind: String,
    /// Where the ordering and partition key comes from, when the message does not carry one.
    pub key: Option<KeyFrom>,
    /// Largest body of one message, after decompression; 1MiB unless given, at most 16MiB.
    #[serde(default = "default_max_body")]
    pub max_body: Size,
    /// How long repetitions of a request with an `Idempotency-Key` get its answer; 24h unless given, at most 30d.
    #[serde(default = "default_idempotency_ttl")]
    pub idempotency_ttl: Span,
    /// With `respond: accepted`: most messages that wait to be carried, 1000000 unless given; more are answered 429.
    #[serde(default = "default_max_backlog")]
    #[schemars(range(min = 1))]
    pub max_backlog: u64,
    /// With `respond: accepted`: most bytes of their bodies, 4GiB unless given; more are answered 429.
    #[serde(default = "default_max_backlog_bytes")]
    pub max_backlog_bytes: Size,
}

/// When the client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Respond {
    /// With the outcome: 200 once every target has confirmed.
    #[default]
    Delivered,
    /// 202 as soon as the message is on disk; with `?wait=delivered` in the address, as `delivered`.
    Accepted,
}

/// How bodies are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// CloudEvents where the headers say so, else raw.
    #[default]
    Auto,
    /// The body is the message's body, whatever it is.
    Raw,
    /// The JSON envelope with id, type, timestamp, source, correlationId, data and metadata.
    Envelope,
    /// CloudEvents only: binary, structured or batch.
    Cloudevents,
}

/// Where a message's key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyFrom {
    /// The value of this request header.
    Header(String),
    /// The string or number at this JSON pointer (RFC 6901) of the body.
    Pointer(String),
}

fn default_timeout() -> Span {
    Span::secs(30)
}

fn default_kind() -> String {
    "http.message".to_owned()
}

fn default_max_body() -> Size {
    Size(1 << 20)
}

fn default_idempotency_ttl() -> Span {
    Span::secs(24 * 3_600)
}

fn default_max_backlog() -> u64 {
    1_000_000
}

fn default_max_backlog_bytes() -> Size {
    Size(4 << 30)
}

impl KeyFrom {
    fn mistake(&self) -> Option<Problem> {
        match self {
            Self::Header(name) => {
                let bad = http::HeaderName::from_bytes(name.as_bytes()).is_err();
                let text = format!("`{name}` is not the name of a header");
                bad.then(|| problem("/key/header", text, "for example `x-order-id`"))
            }
            Self::Pointer(pointer) => {
                let text = format!("`{pointer}` is not a JSON pointer to a member");
                (!pointer.starts_with('/')).then(|| problem("/key/pointer", text, "for example `/order/id`"))
            }
        }
    }
}

impl SourceConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some((text, hint)) = path_mistake(&self.path) {
            problems.push(problem("/path", text, hint));
        }
        if self.timeout.0.is_zero() || self.timeout > LONGEST_TIMEOUT {
            problems.push(problem(
                "/timeout",
                format!("{:?} is not between 1ms and {:?}", self.timeout.0, LONGEST_TIMEOUT.0),
                "30s suits most clients, which give up after that themselves",
            ));
        }
        if self.max_body.0 == 0 || self.max_body.0 > LARGEST_MAX_BODY_BYTES {
            problems.push(problem(
                "/max_body",
                format!("{} bytes is not between 1B and 16MiB", self.max_body.0),
                "put larger contents into an object store and send their address",
            ));
        }
        if self.kind.is_empty() {
            problems.push(problem("/kind", "the message type is empty", "for example `order.created`"));
        }
        problems.extend(self.key.as_ref().and_then(KeyFrom::mistake));
        self.durability_problems(&mut problems);
        problems
    }

    fn durability_problems(&self, problems: &mut Vec<Problem>) {
        if self.idempotency_ttl < SHORTEST_IDEMPOTENCY_TTL || self.idempotency_ttl > LONGEST_IDEMPOTENCY_TTL {
            problems.push(problem(
                "/idempotency_ttl",
                format!(
                    "{:?} is not between {:?} and {:?}",
                    self.idempotency_ttl.0, SHORTEST_IDEMPOTENCY_TTL.0, LONGEST_IDEMPOTENCY_TTL.0
                ),
                "24h is longer than clients repeat a request",
            ));
        }
        if self.max_backlog == 0 {
            problems.push(problem("/max_backlog", "no message could ever wait", "leave it out for 1000000"));
        }
        if self.max_backlog_bytes < self.max_body {
            problems.push(problem(
                "/max_backlog_bytes",
                format!(
                    "{} bytes are less than one body of `max_body`, {} bytes, may have",
                    self.max_backlog_bytes.0, self.max_body.0
                ),
                "leave it out for 4GiB",
            ));
        }
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise {
            at_least_once: true,
            because: match self.respond {
                Respond::Delivered => {
                    "the client is answered 200 only after the outcome, and sends again on anything else"
                }
                Respond::Accepted => {
                    "the client is answered 202 only once the message is on disk, and sends again on anything else"
                }
            }
            .to_owned(),
            warnings: Vec::new(),
        }
    }
}

pub(super) fn problem(pointer: &str, text: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { pointer: pointer.to_owned(), text: text.into(), hint: Some(hint.into()) }
}

fn path_mistake(path: &str) -> Option<(String, String)> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    if !path.starts_with('/') {
        return Some((format!("`{path}` does not begin with `/`"), format!("write `/{path}`")));
    }
    if path.len() > MAX_PATH_BYTES {
        return Some((format!("the path has {} bytes", path.len()), format!("use at most {MAX_PATH_BYTES}")));
    }
    if let Some(bad) = path.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
        return Some((
            format!("`{path}` has the character `{}`, which is not plain in a path", bad.escape_debug()),
            "use letters, digits, `-`, `.`, `_`, `~` and `/`; paths have no parameters".to_owned(),
        ));
    }
    if path.len() == 1 || path.ends_with('/') || path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Some((
            format!("`{path}` has an empty, `.` or `..` segment"),
            "for example `/ingest/orders`".to_owned(),
        ));
    }
    RESERVED
        .iter()
        .find(|own| path.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .map(|own| (format!("`{own}` is the gateway's own"), "for example `/ingest/orders`".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> SourceConfig {
        serde_json::from_value(json).expect("a config")
    }

    fn pointers(config: &SourceConfig) -> Vec<String> {
        config.problems().into_iter().map(|p| p.pointer).collect()
    }

    #[test]
    fn a_path_is_enough() {
        let config = config(serde_json::json!({ "path": "/ingest/orders" }));
        assert_eq!(config.respond, Respond::Delivered);
        assert_eq!((config.timeout, config.max_body), (Span::secs(30), Size(1 << 20)));
        assert_eq!(config.problems(), []);
        assert!(config.promise().at_least_once);
        assert_eq!(config.idempotency_ttl, Span::secs(86_400));
        assert_eq!((config.max_backlog, config.max_backlog_bytes), (1_000_000, Size(4 << 30)));
    }

    #[test]
    fn accepted_promises_the_disk() {
        let config = config(serde_json::json!({ "path": "/a", "respond": "accepted" }));
        assert_eq!(config.problems(), []);
        let promise = config.promise();
        assert!(promise.at_least_once && promise.because.contains("once the message is on disk"), "{promise:?}");
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let config = config(serde_json::json!({
            "path": "orders", "timeout": "1h", "max_body": "1GiB", "kind": "", "key": { "header": "no header" },
            "idempotency_ttl": "31d", "max_backlog": 0, "max_backlog_bytes": "1MiB",
        }));
        assert_eq!(
            pointers(&config),
            [
                "/path",
                "/timeout",
                "/max_body",
                "/kind",
                "/key/header",
                "/idempotency_ttl",
                "/max_backlog",
                "/max_backlog_bytes"
            ]
        );
    }

    #[test]
    fn paths_are_plain_and_not_the_gateways_own() {
        for path in ["/ingest/a", "/a", "/apis", "/in.gest/o_1~x-Y"] {
            assert_eq!(path_mistake(path), None, "{path}");
        }
        let long = format!("/{}", "a".repeat(300));
        for path in ["", "/", "a", "/a/", "/a//b", "/../b", "/a b", "/ä", "/{id}", "/a?b", "/metrics", "/api/v1", &long]
        {
            assert!(path_mistake(path).is_some(), "{path}");
        }
    }

    #[test]
    fn unknown_keys_and_two_key_sources_are_refused() {
        for bad in [
            serde_json::json!({ "path": "/a", "pth": 1 }),
            serde_json::json!({ "path": "/a", "key": { "header": "a", "pointer": "/b" } }),
            serde_json::json!({ "path": "/a", "respond": "later" }),
        ] {
            assert!(serde_json::from_value::<SourceConfig>(bad.clone()).is_err(), "{bad}");
        }
    }
}
