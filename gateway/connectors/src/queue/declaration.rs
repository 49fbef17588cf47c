//! How a queue is declared in the section `queues`.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};

use super::config::problem;
use super::defaults::{CONSUMER_TIMEOUTS, Defaults, Length};
use super::either;
use crate::quantity::{Secret, Size, Span};
use crate::redis;
use crate::registry::Problem;

const MAX_NAME_CHARS: usize = 128;
pub(super) const LONGEST_AGE: Span = Span::secs(3_650 * 86_400);
pub(super) const LEAST_AGE: Span = Span::secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 86_400);
pub(super) const LARGEST_MESSAGE: Size = Size(64 << 20);

/// A durable queue: messages stay in it for as long as `retention` says, and each group reads them on its own.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Queue")]
pub struct Declaration {
    /// In which order messages are given out. Cannot be changed later.
    pub kind: Kind,
    /// How long and how much is kept.
    pub retention: Retention,
    /// Largest message, body, attributes and headers together, 1B to 64MiB; as `queue_defaults` says if left out.
    pub max_message: Option<Size>,
    /// How bodies are kept.
    pub compression: Compression,
    /// Messages older than this are not given out any more, 1s to 3650d; as long as they are kept if left out.
    pub ttl: Option<Span>,
    /// With `kind: delay`: how long messages wait that bring no time of their own, up to 30d.
    pub delay: Option<Span>,
    /// Name of one of `schemas`. What is published through the API is checked against it; a pipeline checks with a
    /// `validate` step.
    pub schema: Option<String>,
    /// Where it is kept: `store`, the default, or `redis`, a Redis Stream.
    pub backend: Backend,
}

impl Default for Declaration {
    fn default() -> Self {
        Self {
            kind: Kind::Normal,
            retention: Retention::default(),
            max_message: None,
            compression: Compression::None,
            ttl: None,
            delay: None,
            schema: None,
            backend: Backend::Store,
        }
    }
}

/// In which order a queue gives out its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "QueueKind")]
pub enum Kind {
    /// The highest priority first, then the oldest.
    Normal,
    /// Messages of one key in order, one at a time for each group.
    Ordered,
    /// Every message after its own time, or after `delay`.
    Delay,
}

/// How long and how much a queue keeps.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "QueueRetention")]
pub struct Retention {
    /// Messages that were published longer ago are removed, read or not; 1s to 3650d, as `queue_defaults` says if left
    /// out.
    pub max_age: Option<Span>,
    /// Most bytes of stored messages; no limit if left out.
    pub max_bytes: Option<Size>,
    /// Most messages, or `unlimited`; as `queue_defaults` says if left out.
    pub max_messages: Option<Length>,
    /// What happens to new messages at `max_bytes` or `max_messages`, once what every group has read has made room.
    pub at_limit: AtLimit,
}

impl Default for Retention {
    fn default() -> Self {
        Self { max_age: None, max_bytes: None, max_messages: None, at_limit: AtLimit::Refuse }
    }
}

/// What happens to new messages at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "QueueAtLimit")]
pub enum AtLimit {
    /// They are refused: whoever publishes tries again later.
    Refuse,
    /// The oldest are removed for them, read or not.
    DropOldest,
}

/// How bodies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "QueueCompression")]
pub enum Compression {
    /// As they are.
    None,
    /// Compressed with zstd, where that makes them smaller.
    Zstd,
}

/// Where a queue is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Backend {
    /// In the gateway's own store.
    Store,
    /// As a Redis Stream, `sluicegate:queue:` and the queue's name.
    Redis(Box<RedisBackend>),
}

/// A Redis that keeps a queue.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisBackend {
    /// Where Redis is: `redis://[user:password@]host[:6379][/database]`, `rediss://…` for TLS or `unix:///path`.
    pub url: Secret,
    /// Replaces the user of the URL.
    pub username: Option<Secret>,
    /// Replaces the password of the URL.
    pub password: Option<Secret>,
    /// Certificates for `rediss://`; without them the public authorities are trusted.
    pub tls: Option<redis::Tls>,
    /// For how long a consumer may be silent before what it has claimed is given to another, 100ms to 1h; as
    /// `queue_defaults` says if left out.
    pub consumer_timeout: Option<Span>,
}

/// The long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackendSettings {
    /// A Redis Stream, `sluicegate:queue:` and the queue's name. For queues of `kind: normal` whose only
    /// other properties are `schema` and `retention.max_messages`, which counts about, and with `at_limit: drop_oldest`.
    redis: Option<RedisBackend>,
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = |name: &str| match name {
            "store" => Ok(BackendSettings { redis: None }),
            other => Err(format!("there is no backend `{other}`; write `store` or `redis: {{ url: … }}`")),
        };
        let read: BackendSettings = either::deserialize(deserializer, "`store` or a mapping with `redis`", named)?;
        Ok(read.redis.map_or(Self::Store, |redis| Self::Redis(Box::new(redis))))
    }
}

impl JsonSchema for Backend {
    fn schema_name() -> Cow<'static, str> {
        "QueueBackend".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = either::schema::<BackendSettings>(generator);
        schema.insert("pattern".to_owned(), serde_json::json!("^store$"));
        schema
    }
}

/// Whether a queue or group can have this name: 1 to 128 of `A-Z a-z 0-9 . _ -`.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(plain)
}

impl Declaration {
    /// The Redis that keeps it, if one does.
    pub fn redis(&self) -> Option<&RedisBackend> {
        match &self.backend {
            Backend::Store => None,
            Backend::Redis(redis) => Some(redis),
        }
    }

    /// The Redis Stream that keeps a queue of this name.
    pub fn stream(queue: &str) -> String {
        format!("sluicegate:queue:{queue}")
    }

    /// With everything that was left out as `defaults` say, and files below `base_dir` if they are relative.
    #[must_use]
    pub fn completed(&self, defaults: &Defaults, base_dir: &Path) -> Self {
        let mut completed = self.clone();
        completed.max_message = self.max_message.or(Some(defaults.max_message));
        completed.retention.max_age = self.retention.max_age.or(Some(defaults.max_age));
        match &mut completed.backend {
            Backend::Store => {
                completed.retention.max_messages = self.retention.max_messages.or(Some(defaults.max_messages));
            }
            Backend::Redis(redis) => {
                redis.consumer_timeout = redis.consumer_timeout.or(Some(defaults.consumer_timeout));
                if let Some(tls) = &mut redis.tls {
                    for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file].into_iter().flatten() {
                        *file = base_dir.join(&*file);
                    }
                }
            }
        }
        completed
    }

    /// What manages the Redis Stream of a queue of this name, if one keeps it. Not yet connected.
    pub fn managed_stream(&self, queue: &str) -> Option<redis::stream::Stream> {
        let RedisBackend { url, username, password, tls, consumer_timeout: _ } = self.redis()?;
        // A completed declaration has no relative files.
        let base_dir = Path::new("");
        let (username, password) = (username.as_ref(), password.as_ref());
        Some(redis::stream::Stream::new(url, username, password, tls.as_ref(), base_dir, &Self::stream(queue)))
    }

    /// All mistakes that show without I/O, with what is left out as `defaults` say; pointers are from the declaration.
    pub fn problems(&self, defaults: &Defaults) -> Vec<Problem> {
        let mut problems = self.limits(defaults);
        if let Some(redis) = self.redis() {
            let source = redis::SourceConfig {
                tls: redis.tls.clone(),
                ..redis::SourceConfig::new(redis.url.clone(), Self::stream("x"))
            };
            if redis.consumer_timeout.is_some_and(|timeout| !CONSUMER_TIMEOUTS.contains(&timeout)) {
                let text = "this length of time is outside its limits";
                problems.push(problem("/backend/redis/consumer_timeout", text, "100ms to 1h"));
            }
            let connection = source.problems().into_iter();
            problems.extend(connection.map(|p| Problem { pointer: format!("/backend/redis{}", p.pointer), ..p }));
            problems.extend(self.beyond_redis());
        }
        problems
    }

    fn limits(&self, defaults: &Defaults) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Retention { max_age, max_bytes, max_messages: _, at_limit: _ } = self.retention;
        let max_message = self.max_message.unwrap_or(defaults.max_message);
        let ages = LEAST_AGE..=LONGEST_AGE;
        if max_age.is_some_and(|age| !ages.contains(&age)) {
            problems.push(problem("/retention/max_age", "this length of time is outside its limits", "1s to 3650d"));
        }
        if max_bytes.is_some_and(|bytes| bytes < max_message) {
            let hint = "Raise it, or lower `max_message`.";
            problems.push(problem("/retention/max_bytes", "it is less than one message may have", hint));
        }
        if self.max_message.is_some_and(|size| !(Size(1)..=LARGEST_MESSAGE).contains(&size)) {
            problems.push(problem("/max_message", "this size is outside its limits", "1B to 64MiB"));
        }
        if self.ttl.is_some_and(|ttl| !ages.contains(&ttl)) {
            problems.push(problem("/ttl", "this length of time is outside its limits", "1s to 3650d"));
        }
        match (self.delay, self.kind) {
            (None, _) => {}
            (Some(_), Kind::Normal | Kind::Ordered) => {
                let hint = "Write `kind: delay`, or remove it.";
                problems.push(problem("/delay", "only queues of `kind: delay` have a `delay`", hint));
            }
            (Some(delay), Kind::Delay) if delay.0 > LONGEST_DELAY => {
                problems.push(problem("/delay", "this length of time is outside its limits", "0s to 30d"));
            }
            (Some(_), Kind::Delay) => {}
        }
        problems
    }

    /// What the store does and a Redis Stream does not: refused rather than ignored.
    fn beyond_redis(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut refuse = |pointer: &str, what: &str| {
            let text = format!("a queue kept in Redis has no {what}");
            problems.push(problem(pointer, text, "Remove it, or keep the queue in the store (`backend: store`)."));
        };
        match self.kind {
            Kind::Normal => {}
            Kind::Ordered => refuse("/kind", "order by key"),
            Kind::Delay => refuse("/kind", "delays"),
        }
        if self.ttl.is_some() {
            refuse("/ttl", "time to live");
        }
        if self.compression == Compression::Zstd {
            refuse("/compression", "compression");
        }
        if self.max_message.is_some() {
            refuse("/max_message", "limit of the size of a message");
        }
        if self.retention.max_age.is_some() {
            refuse("/retention/max_age", "limit of age");
        }
        if self.retention.max_bytes.is_some() {
            refuse("/retention/max_bytes", "limit of bytes");
        }
        if self.retention.max_messages.and_then(Length::messages).is_some()
            && self.retention.at_limit == AtLimit::Refuse
        {
            let hint = "Write `at_limit: drop_oldest`, or keep the queue in the store.";
            let text = "a queue kept in Redis cannot refuse messages at `max_messages`";
            problems.push(problem("/retention/max_messages", text, hint));
        }
        problems
    }
}
