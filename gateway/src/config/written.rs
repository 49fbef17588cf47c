//! The configuration's shape: what may be written, key by key. The JSON Schema of `sluicegate schema` is made of these
//! types and their documentation. Nothing here is checked against anything else; that is [`resolve`](super::resolve)'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sluicegate_connectors::quantity::{Secret, Size, Span};
use sluicegate_connectors::queue::{Declaration, Defaults};
use sluicegate_connectors::registry::{SourceConfig, TargetConfig};

use super::dead_letter::DeadLetterConfig;
use super::entries::Entries;
use super::expectation::DroppedSection;
use crate::identity::Scope;

/// Configuration of a Sluicegate gateway: one file, or a folder of files that are read as one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Configuration")]
pub struct ConfigFile {
    /// The gateway's own HTTP server: ingestion, health, readiness, metrics.
    #[serde(default)]
    pub server: ServerSection,
    /// Folder for everything the gateway keeps: store, checkpoints, compiled plugins. Created if missing.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Where state is kept when several gateways share it: a `postgres://` URL. Without it, SQLite in `data_dir`.
    pub store: Option<Secret>,
    /// What is remembered of messages.
    #[serde(default)]
    pub receipts: ReceiptsSection,
    /// How long dead letters are kept. Without it, for ever.
    #[serde(default)]
    pub dead_letters: DeadLettersSection,
    /// Encryption of all bodies that the gateway keeps. Without it they are kept as they are.
    pub encryption: Option<EncryptionSection>,
    /// Who may call, and how they show who they are. Without it, whoever reaches the gateway may do everything, so that it
    /// listens on a loopback address only.
    pub auth: Option<AuthSection>,
    /// What is kept of who changed what.
    #[serde(default)]
    pub audit: AuditSection,
    /// JSON Schemas by name, for `validate` steps and for `$ref` in each other.
    #[serde(default)]
    pub schemas: Entries<SchemaSection>,
    /// Plugins by name. The built-in ones (`jq`, `content-router`, `topic-router`, `redact`, `split`) need no entry.
    #[serde(default)]
    pub plugins: Entries<PluginSection>,
    /// What queues are like that do not say otherwise; `'${VAR:-10000}'` takes a value from the environment.
    #[serde(default)]
    pub queue_defaults: Defaults,
    /// The gateway's own durable queues by name, for `queue` sources and targets. Created, or brought to these
    /// properties, when the gateway starts; removing one here leaves it in the store.
    #[serde(default)]
    pub queues: Entries<Declaration>,
    /// What tenants may be granted.
    #[serde(default)]
    pub tenants: TenantsSection,
    /// Pipelines by name.
    #[serde(default)]
    pub pipelines: Entries<PipelineSection>,
    /// Cases that `sluicegate test` runs through the pipelines' steps, without any broker.
    #[serde(default)]
    pub tests: Vec<TestSection>,
}

/// What could be read of a configuration.
#[derive(Debug, Clone)]
pub struct Written {
    /// All entries of the right shape.
    pub file: ConfigFile,
    /// For each of its tests, the place among all tests that are written.
    pub tests: Vec<usize>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("./data")
}

/// The gateway's own HTTP server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Address and port to listen on.
    #[schemars(with = "String", extend("format" = "address"))]
    pub listen: String,
    /// Most connections open at the same time; further ones wait to be accepted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Longest time a client may take to send the headers of a request.
    pub header_read_timeout: Span,
    /// Longest time a client may take to send the body of a request.
    pub body_read_timeout: Span,
    /// Longest time, once asked to stop, for messages in flight to finish; what is left is requeued.
    pub drain_timeout: Span,
    /// Whether each request is logged, with its method, path, status, latency, address and identity (target `access`).
    pub access_log: bool,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).to_string(),
            max_connections: 1_024,
            header_read_timeout: Span::secs(10),
            body_read_timeout: Span::secs(30),
            drain_timeout: Span::secs(30),
            access_log: false,
        }
    }
}

/// Who may call, and how they show who they are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// Whether callers must show a credential; true unless given. `false` says that everybody who reaches the gateway may do
    /// everything, wherever it listens: for networks that are yours alone.
    pub required: bool,
    /// Whether API keys (`sgk_…`) are accepted; true unless given. The first one is printed when the gateway first starts,
    /// or is the one of the environment variable SLUICEGATE_BOOTSTRAP_KEY.
    pub keys: bool,
    /// JSON Web Tokens that are accepted.
    pub jwt: Option<JwtSection>,
    /// What services show as `X-Service-Token` below `/internal`, 32 characters or more: `${file:/run/secrets/service}`.
    pub service_token: Option<Secret>,
    /// Whether `/metrics` needs a credential of the operator's with the scope `read`, too. `/health` and `/ready` never do.
    pub protect_metrics: bool,
}

impl Default for AuthSection {
    fn default() -> Self {
        Self { required: true, keys: true, jwt: None, service_token: None, protect_metrics: false }
    }
}

/// JSON Web Tokens that are accepted: whose, how they are signed, and what their claims mean.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSection {
    /// What the claim `iss` must be.
    pub issuer: String,
    /// One of these must be in the claim `aud`.
    #[schemars(length(min = 1, max = 16))]
    pub audience: Vec<String>,
    /// How tokens may be signed; HS256 with `secret`, RS256 and ES256 otherwise, unless given.
    #[serde(default)]
    #[schemars(length(max = 3))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// The secret of HS256, 32 characters or more. Exactly one of `secret`, `jwks_file` and `jwks_url` is given.
    pub secret: Option<Secret>,
    /// A file with the issuer's public keys as a JWKS document, relative to this file.
    pub jwks_file: Option<PathBuf>,
    /// Where the issuer publishes them: an `https://` URL, or `http://` to a loopback address.
    pub jwks_url: Option<String>,
    /// How long the public keys are used before they are read again, 10s to 1d; a key that is not known makes them be read
    /// at once.
    #[serde(default = "default_jwks_refresh")]
    pub refresh: Span,
    /// By how much the issuer's clock may differ, up to 10m; 60s unless given.
    #[serde(default = "default_clock_skew")]
    pub clock_skew: Span,
    /// The claim with the tenant's name; `tenant` unless given. A path of names is written with dots.
    #[serde(default = "default_tenant_claim")]
    pub tenant_claim: String,
    /// The claim with scopes, a list or a text with spaces; `scope` unless given.
    #[serde(default = "default_scopes_claim")]
    pub scopes_claim: String,
    /// The claim with roles, a list or a text with spaces; `roles` unless given.
    #[serde(default = "default_roles_claim")]
    pub roles_claim: String,
    /// The scopes that each role brings.
    #[serde(default)]
    pub roles: Entries<Vec<Scope>>,
    /// The role of the operator's own people. Without it, or without the role, a token is good for the tenant it names only.
    pub operator_role: Option<String>,
}

/// How tokens may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256, by a shared secret.
    HS256,
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

fn default_jwks_refresh() -> Span {
    Span::secs(300)
}

fn default_clock_skew() -> Span {
    Span::secs(60)
}

fn default_tenant_claim() -> String {
    "tenant".to_owned()
}

fn default_scopes_claim() -> String {
    "scope".to_owned()
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

/// What is kept of who changed what, and of who was denied what.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// How long entries are kept, 1d to 3650d.
    pub keep: Span,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { keep: Span::secs(365 * 86_400) }
    }
}

/// What is remembered of messages: receipts, which `sluicegate trace` shows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptsSection {
    /// The share of messages without any trouble whose receipt is kept, 0 to 1. Those with trouble are always kept.
    #[schemars(range(min = 0, max = 1))]
    pub sample: f64,
    /// How long receipts are kept, 1m to 365d.
    pub keep: Span,
}

impl Default for ReceiptsSection {
    fn default() -> Self {
        Self { sample: 0.01, keep: Span::secs(7 * 86_400) }
    }
}

/// How long dead letters are kept in the store. What is being redriven is kept whatever this says.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersSection {
    /// Delete them this long after they failed, 1m to 3650d. Without it they are kept until somebody redrives or deletes them.
    pub keep: Option<Span>,
    /// Delete the oldest above this many. Without it there may be any number.
    #[schemars(range(min = 1))]
    pub max: Option<std::num::NonZeroU64>,
}

/// Encryption of bodies at rest: AES-256-GCM, with a key per tenant that the master key wraps.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionSection {
    /// 32 random bytes as base64 (`openssl rand -base64 32`), from a file or the environment: `${file:/run/secrets/key}`.
    pub master_key: Secret,
    /// Master keys of before, so that what they wrapped can be read; it is wrapped anew with the present one.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub previous_master_keys: Vec<Secret>,
}

/// Sources and targets that tenants may be granted, by name (`sluicegate tenant update --grant-target NAME`). A tenant's
/// pipeline says `granted: NAME` and never sees what is behind the name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantsSection {
    /// Sources by name. Two tenants that are granted the same one share its messages.
    pub sources: Entries<SourceConfig>,
    /// Targets by name.
    pub targets: Entries<TargetConfig>,
}

/// Where a JSON Schema comes from. Its draft is what its `$schema` says, 2020-12 without one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SchemaSection {
    /// A file of JSON (or YAML, by its extension), relative to this file.
    File(PathBuf),
    /// The schema itself.
    Inline(Value),
}

/// A plugin: exactly one of `file` and `builtin`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginSection {
    /// A WebAssembly component, relative to this file.
    pub file: Option<PathBuf>,
    /// A plugin that comes with the gateway, to give it other limits or another name.
    pub builtin: Option<String>,
    /// A plugin that a tenant uploaded: `tenant/name@version`.
    pub upload: Option<String>,
    /// What the component's sha256 must be, as 64 hexadecimal digits; anything else is refused.
    #[schemars(extend("pattern" = "^(sha256:)?[0-9a-fA-F]{64}$", "format" = "sha256"))]
    pub sha256: Option<String>,
    /// What an instance is kept for. `message` by default; `reuse` for built-in plugins.
    pub isolation: Option<Isolation>,
    /// What a call may use.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Capabilities beyond logging.
    #[serde(default)]
    #[expect(dead_code, reason = "`reserved` refuses all of them in the tree")]
    pub grants: Entries<Value>,
}

/// What an instance of a plugin is kept for. Never for longer than to its first error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A fresh instance for every message.
    Message,
    /// An instance for a batch of messages.
    Batch,
    /// An instance for any number of messages, one at a time.
    Reuse,
}

/// What one call of a plugin may use.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// CPU time, 1ms to 10s.
    pub cpu: Span,
    /// Memory, summed over all memories of an instance, 64KiB to 1GiB.
    pub memory: Size,
    /// Output of one call, 1B to 64MiB.
    pub output: Size,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self { cpu: Span::millis(50), memory: Size(16 << 20), output: Size(1 << 20) }
    }
}

/// A way for messages: from a source through steps to targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineSection {
    /// Where messages come from.
    pub source: SourceConfig,
    /// What happens to each message, in order. A `route` can only be the last.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub steps: Vec<StepSection>,
    /// Where messages go, by name. Without a `route` step each message goes to all of them.
    pub targets: Entries<TargetConfig>,
    /// When what failed is tried again.
    #[serde(default)]
    pub retry: RetrySection,
    /// A broker that gets dead letters as well as the built-in dead-letter store.
    pub dead_letter: Option<DeadLetterConfig>,
    /// Most messages between being read and being settled.
    #[serde(default = "default_max_in_flight")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
    /// Drops messages whose source and id were delivered within this time, 1s to 30d.
    pub deduplicate: Option<Span>,
    /// Which order is kept.
    #[serde(default)]
    pub order_by: OrderSection,
    /// With `order_by: key`: what happens to a key whose message fails.
    pub on_key_failure: Option<KeyFailureSection>,
    /// Longest time a step may take with one message; `0s` for no limit of its own.
    #[serde(default = "default_handler_timeout")]
    pub handler_timeout: Span,
}

fn default_max_in_flight() -> u32 {
    256
}

fn default_handler_timeout() -> Span {
    Span::secs(0)
}

/// One step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum StepSection {
    /// Dead-letters messages whose body does not satisfy a schema.
    Validate(ValidateSection),
    /// Drops messages that a plugin does not keep.
    Filter(PluginStepSection),
    /// Makes none, one or several messages of one.
    Transform(PluginStepSection),
    /// Chooses targets.
    Route(RouteSection),
}

/// A `validate` step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateSection {
    /// Name of one of `schemas`.
    pub schema: String,
}

/// A `filter` or `transform` step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginStepSection {
    /// Name of one of `plugins`, or of a built-in plugin.
    pub plugin: String,
    /// The plugin's configuration, as its own schema says.
    #[serde(default)]
    pub config: Option<Value>,
}

/// A `route` step.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSection {
    /// Name of one of `plugins`, or of a built-in plugin.
    pub plugin: String,
    /// The plugin's configuration, as its own schema says.
    #[serde(default)]
    pub config: Option<Value>,
    /// What becomes of a message without a route: `dead_letter`, `drop`, or the name of a target.
    #[serde(default = "default_unroutable")]
    pub unroutable: String,
}

fn default_unroutable() -> String {
    "dead_letter".to_owned()
}

/// When what failed is tried again: exponential backoff with full jitter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySection {
    /// Tries in all, the first included.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_attempts: u32,
    /// Longest wait before the second try.
    pub initial_delay: Span,
    /// Longest wait before any try.
    pub max_delay: Span,
    /// How many times longer each wait may be than the one before.
    #[schemars(range(min = 1, max = 100))]
    pub factor: f64,
    /// No further try once the gateway has had the message this long. Without it only attempts count.
    pub max_age: Option<Span>,
    /// What becomes of a message whose tries are used up.
    pub on_exhausted: ExhaustedSection,
}

impl Default for RetrySection {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_delay: Span::secs(1),
            max_delay: Span::secs(60),
            factor: 2.0,
            max_age: None,
            on_exhausted: ExhaustedSection::DeadLetter,
        }
    }
}

/// What becomes of a message whose tries are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExhaustedSection {
    /// A dead letter.
    DeadLetter,
    /// Dropped, with a log line and a metric.
    Drop,
}

/// Which order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OrderSection {
    /// None: messages overtake each other.
    #[default]
    None,
    /// Messages of one key leave in the order in which they came.
    Key,
}

/// What happens to a key whose message fails after all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyFailureSection {
    /// The key waits until its message succeeds, expires or grows too old.
    Park,
    /// The message becomes a dead letter and the key goes on.
    Skip,
}

/// A case for `sluicegate test`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSection {
    /// What it shows; stands in the report.
    pub name: String,
    /// The pipeline whose steps it runs.
    pub pipeline: String,
    /// The message that comes in.
    pub given: GivenSection,
    /// What is to come out. Only what is written is compared.
    pub expect: ExpectSection,
}

/// A message that comes in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GivenSection {
    /// The body as a value, sent as JSON.
    #[schemars(with = "Value")]
    pub body: Option<Value>,
    /// The body as a text, sent as it is. Not together with `body`.
    pub text: Option<String>,
    /// Headers.
    pub headers: Entries<String>,
    /// CloudEvents `id`.
    pub id: Option<String>,
    /// CloudEvents `source`.
    pub source: Option<String>,
    /// CloudEvents `type`.
    pub kind: Option<String>,
    /// CloudEvents `subject`.
    pub subject: Option<String>,
    /// Ordering and partition key.
    pub key: Option<String>,
    /// Media type of the body; `application/json` for `body`.
    pub content_type: Option<String>,
    /// Which try it is, from 1.
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
}

/// What is to come out. Only what is written is compared.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectSection {
    /// Names of the targets that get a message, in any order; an empty list for none.
    pub targets: Option<Vec<String>>,
    /// The body of every message that comes out; compared as JSON where it is JSON.
    #[schemars(with = "Value")]
    pub body: Option<Value>,
    /// Headers that every message that comes out has; others may be there, too.
    pub headers: Option<Entries<String>>,
    /// CloudEvents `type` of every message that comes out.
    pub kind: Option<String>,
    /// Key of every message that comes out.
    pub key: Option<String>,
    /// The messages that come out, one by one and in order, where they differ.
    pub messages: Option<Vec<ExpectedMessageSection>>,
    /// Whether a step dropped the message, or the code of the reason for which.
    pub dropped: Option<DroppedSection>,
    /// The class of the dead letter it became: `schema`, `rejected`, `unroutable`, `trap`, …
    pub dead_letter: Option<String>,
}

/// One message that is to come out.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedMessageSection {
    /// Name of the target.
    pub target: Option<String>,
    /// The body; compared as JSON where it is JSON.
    #[schemars(with = "Value")]
    pub body: Option<Value>,
    /// Headers that it has; others may be there, too.
    pub headers: Option<Entries<String>>,
    /// CloudEvents `type`.
    pub kind: Option<String>,
    /// Key.
    pub key: Option<String>,
}
