//! Settings of the `redis` connector.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::server;
use crate::quantity::{Secret, Span};
use crate::registry::{Problem, Promise};

const MAX_BATCH: usize = 10_000;
const MAX_SPAN: Span = Span::secs(3_600);

/// A Redis Stream, read as a consumer group.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Where Redis is: `redis://[user:password@]host[:6379][/database]`, `rediss://…` for TLS or `unix:///path`.
    pub url: Secret,
    /// Replaces the user of the URL.
    #[serde(default)]
    pub username: Option<Secret>,
    /// Replaces the password of the URL.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Certificates for `rediss://`; without them the public authorities are trusted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The stream's key. Created if it does not exist.
    pub stream: String,
    /// The consumer group; the pipeline's name if left out. Created if it does not exist.
    #[serde(default)]
    pub group: Option<String>,
    /// This gateway's name within the group; made of host, process and a random part if left out. A fixed name gets its
    /// unsettled entries back at once after a restart, but no two gateways may share it.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Where a group that is created begins.
    #[serde(default)]
    pub start: Start,
    /// Most entries read at once, 1 to 10,000.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// How long one read waits for entries, at most 1h. Other work of the connection (claims) waits as long.
    #[serde(default = "default_block")]
    pub block: Span,
    /// Entries that no consumer has touched for this long are taken over, 100ms to 1h. A live gateway touches its own
    /// three times as often.
    #[serde(default = "default_claim_after")]
    pub claim_after: Span,
    /// Deadline of connecting and of every command, at most 1h.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// A Redis Stream to append to.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// Where Redis is: `redis://[user:password@]host[:6379][/database]`, `rediss://…` for TLS or `unix:///path`.
    pub url: Secret,
    /// Replaces the user of the URL.
    #[serde(default)]
    pub username: Option<Secret>,
    /// Replaces the password of the URL.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Certificates for `rediss://`; without them the public authorities are trusted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The stream's key. Created with the first entry.
    pub stream: String,
    /// About how many entries the stream keeps (`MAXLEN ~`); all if left out. Older ones are dropped even if no consumer
    /// has read them.
    #[serde(default)]
    pub max_len: Option<u64>,
    /// Deadline of connecting and of every batch, at most 1h.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// Certificates, all in PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authorities to trust instead of the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// This client's certificate chain, together with `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// Where a consumer group that is created begins. One that exists goes on where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest entry the stream still holds.
    #[default]
    Earliest,
    /// With what is added after the group is created.
    Latest,
}

fn default_batch() -> usize {
    256
}

fn default_block() -> Span {
    Span::secs(1)
}

fn default_claim_after() -> Span {
    Span::secs(30)
}

fn default_timeout() -> Span {
    Span::secs(10)
}

impl SourceConfig {
    /// This stream, and the defaults for everything else.
    pub fn new(url: Secret, stream: String) -> Self {
        Self {
            url,
            username: None,
            password: None,
            tls: None,
            stream,
            group: None,
            consumer: None,
            start: Start::default(),
            batch: default_batch(),
            block: default_block(),
            claim_after: default_claim_after(),
            timeout: default_timeout(),
        }
    }

    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = connection_problems(&self.url, self.tls.as_ref());
        name_problems("stream", Some(&self.stream), &mut problems);
        name_problems("group", self.group.as_ref(), &mut problems);
        name_problems("consumer", self.consumer.as_ref(), &mut problems);
        if !(1..=MAX_BATCH).contains(&self.batch) {
            problems.push(problem("/batch", format!("`batch` is {}", self.batch), "Choose 1 to 10000."));
        }
        span_problems("block", self.block, Span::millis(1), &mut problems);
        span_problems("claim_after", self.claim_after, Span::millis(100), &mut problems);
        span_problems("timeout", self.timeout, Span::millis(1), &mut problems);
        problems
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let mut warnings = Vec::new();
        if self.start == Start::Latest {
            warnings.push(problem(
                "/start",
                "`start: latest` skips what was added before the group is first created",
                "Use `start: earliest` to read the stream from its beginning.",
            ));
        }
        Promise {
            at_least_once: true,
            because:
                "unacknowledged entries stay pending in the consumer group and are claimed again; a crash of Redis \
                      itself keeps them only with AOF (checked at connect)"
                    .to_owned(),
            warnings,
        }
    }
}

impl TargetConfig {
    /// This stream, and the defaults for everything else.
    pub fn new(url: Secret, stream: String) -> Self {
        Self { url, username: None, password: None, tls: None, stream, max_len: None, timeout: default_timeout() }
    }

    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = connection_problems(&self.url, self.tls.as_ref());
        name_problems("stream", Some(&self.stream), &mut problems);
        if self.max_len == Some(0) {
            problems.push(problem(
                "/max_len",
                "`max_len` is 0",
                "Leave it out to keep every entry, or choose at least 1.",
            ));
        }
        span_problems("timeout", self.timeout, Span::millis(1), &mut problems);
        problems
    }

    /// What it promises.
    pub fn promise(&self) -> Promise {
        let mut warnings = Vec::new();
        if let Some(max_len) = self.max_len {
            warnings.push(problem(
                "/max_len",
                format!("entries beyond the newest {max_len} or so are dropped, read or not"),
                "Make it larger than the longest backlog you expect, or leave it out.",
            ));
        }
        Promise {
            at_least_once: true,
            because:
                "every XADD is answered before a message is settled; a crash of Redis itself keeps the entry only \
                      with AOF and appendfsync always (checked at connect)"
                    .to_owned(),
            warnings,
        }
    }
}

fn problem(pointer: &str, text: impl Into<String>, hint: &str) -> Problem {
    Problem { pointer: pointer.to_owned(), text: text.into(), hint: Some(hint.to_owned()) }
}

fn connection_problems(url: &Secret, tls: Option<&Tls>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is_tls = match server::parse_url(url) {
        Ok(info) => server::is_tls(&info),
        Err(text) => {
            let hint = "Write redis://[user:password@]host[:port][/database], or rediss:// for TLS; \
                        percent-encode special characters in user and password.";
            return vec![problem("/url", text, hint)];
        }
    };
    if let Some(tls) = tls {
        if !is_tls {
            problems.push(problem("/tls", "`tls` has no effect on a URL without TLS", "Use rediss:// in `url`."));
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            let text = "`cert_file` and `key_file` belong together, but only one is there";
            problems.push(problem("/tls", text, "Give both, or neither."));
        }
    }
    problems
}

fn name_problems(field: &str, name: Option<&String>, problems: &mut Vec<Problem>) {
    if name.is_some_and(String::is_empty) {
        problems.push(problem(&format!("/{field}"), format!("`{field}` is empty"), "Give it a name."));
    }
}

fn span_problems(field: &str, span: Span, least: Span, problems: &mut Vec<Problem>) {
    if !(least..=MAX_SPAN).contains(&span) {
        problems.push(problem(
            &format!("/{field}"),
            format!("`{field}` is {:?}", span.0),
            &format!("Choose {:?} to 1h.", least.0),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(config: Value) -> SourceConfig {
        serde_json::from_value(config).expect("a source")
    }

    #[test]
    fn a_source_needs_only_url_and_stream() {
        let config = source(json!({ "url": "redis://localhost", "stream": "orders" }));
        assert_eq!(config.problems(), []);
        assert_eq!((config.batch, config.claim_after, config.start), (256, Span::secs(30), Start::Earliest));
        assert!(config.promise().at_least_once);
        assert!(config.promise().because.contains("AOF"));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let config = source(json!({
            "url": "redis://localhost", "stream": "", "group": "", "batch": 0, "block": "0s", "claim_after": "1ms",
            "timeout": "2h", "tls": { "cert_file": "x.pem" },
        }));
        let pointers: Vec<String> = config.problems().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/tls", "/tls", "/stream", "/group", "/batch", "/block", "/claim_after", "/timeout"]);
        let target: TargetConfig =
            serde_json::from_value(json!({ "url": "redis://h", "stream": "s", "max_len": 0 })).expect("a target");
        assert_eq!(target.problems().len(), 1);
    }

    #[test]
    fn a_bad_url_is_told_without_its_password() {
        for url in
            ["redis://user:hunter2@localhost/db", "http://user:hunter2@localhost", "hunter2", "redis://:hunter2@"]
        {
            let problems = source(json!({ "url": url, "stream": "s" })).problems();
            assert_eq!(problems.len(), 1, "{url}");
            assert!(!format!("{problems:?}").contains("hunter2"), "{url}: {problems:?}");
        }
        let config = source(json!({ "url": "redis://user:hunter2@localhost", "stream": "s", "password": "hunter3" }));
        assert!(!format!("{config:?}").contains("hunter"));
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(
            serde_json::from_value::<SourceConfig>(json!({ "url": "redis://h", "stream": "s", "strem": 1 })).is_err()
        );
    }
}
