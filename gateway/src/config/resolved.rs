//! The configuration as the gateway builds from it: names resolved, limits checked, defaults filled in, files read.
//! Everything compares, so that a reload can tell what has not changed.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sluicegate_connectors::quantity::Secret;
use sluicegate_connectors::queue::{Declarations, Defaults};
use sluicegate_connectors::registry::{SourceConfig, TargetConfig};
use sluicegate_engine::failure::FailureClass;
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::Order;
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::step::Unroutable;
use sluicegate_store::Location;
use sluicegate_store::tenant::Realm;

pub use super::dead_letter::DeadLetterConfig;
use super::tree::Node;
pub use super::written::{Isolation, JwtAlgorithm};
use crate::identity::{JwksPlace, Scope};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The gateway's own HTTP server.
    pub server: ServerConfig,
    /// Folder for everything the gateway keeps. Absolute; may not exist yet.
    pub data_dir: PathBuf,
    /// The shared store's URL; without it, state is kept in `data_dir`.
    pub store: Option<Secret>,
    /// What is remembered of messages.
    pub receipts: ReceiptsConfig,
    /// How long dead letters are kept.
    pub dead_letters: DeadLettersConfig,
    /// How bodies are encrypted, if they are.
    pub encryption: Option<EncryptionConfig>,
    /// Who may call.
    pub auth: AuthConfig,
    /// What is kept of who changed what.
    pub audit: AuditConfig,
    /// All schemas, in the order written: what a `$ref` may refer to.
    pub schemas: Vec<Arc<SchemaConfig>>,
    /// All plugins: the declared ones in the order written, then the built-in ones that are used by name.
    pub plugins: Vec<Arc<PluginConfig>>,
    /// What queues are like that do not say otherwise.
    pub queue_defaults: Defaults,
    /// All queues that are declared, by name, with nothing left out.
    pub queues: Arc<Declarations>,
    /// What tenants may be granted.
    pub offers: Offers,
    /// All pipelines, in the order written.
    pub pipelines: Vec<PipelineConfig>,
    /// All test cases, in the order written.
    pub tests: Vec<TestCase>,
    /// First 12 hexadecimal digits of the sha256 of all of it, contents of named files included.
    pub version: Arc<str>,
}

impl Config {
    /// Where state is kept.
    pub fn location(&self) -> Location {
        match &self.store {
            Some(url) => Location::shared(url.expose()),
            None => Location::embedded(&self.data_dir),
        }
    }

    /// The pipeline of that name.
    pub fn pipeline(&self, name: &str) -> Option<&PipelineConfig> {
        self.pipelines.iter().find(|pipeline| &*pipeline.name == name)
    }
}

/// Sources and targets that tenants may be granted, as they were written: a tenant's pipeline is resolved with them.
#[derive(Clone, PartialEq, Default)]
pub struct Offers {
    pub(super) sources: Vec<(String, Node)>,
    pub(super) targets: Vec<(String, Node)>,
    /// Where their relative paths start.
    pub(super) base_dir: PathBuf,
}

impl Offers {
    /// Names of the sources.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(name, _)| name.as_str())
    }

    /// Names of the targets.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|(name, _)| name.as_str())
    }
}

/// Without what is behind the names, which holds secrets.
impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sources, targets): (Vec<_>, Vec<_>) = (self.sources().collect(), self.targets().collect());
        f.debug_struct("Offers").field("sources", &sources).field("targets", &targets).finish()
    }
}

/// The gateway's own HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Most connections open at the same time.
    pub max_connections: usize,
    /// Longest time for the headers of a request.
    pub header_read_timeout: Duration,
    /// Longest time for the body of a request.
    pub body_read_timeout: Duration,
    /// Longest time, once asked to stop, for messages in flight to finish.
    pub drain_timeout: Duration,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthConfig {
    /// Whoever reaches the loopback address it listens on.
    Local,
    /// Whoever reaches it: said explicitly.
    Open,
    /// Whoever shows one of these credentials.
    Required(Box<RequiredAuth>),
}

/// Which credentials are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredAuth {
    /// API keys.
    pub keys: bool,
    /// JSON Web Tokens.
    pub jwt: Option<JwtConfig>,
    /// Of services, below `/internal`.
    pub service_token: Option<Secret>,
    /// Whether `/metrics` needs one.
    pub protect_metrics: bool,
}

/// Which tokens are accepted, and what their claims mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// The claim `iss`.
    pub issuer: String,
    /// One of these is in the claim `aud`.
    pub audience: Vec<String>,
    /// How they may be signed; all fit the keys.
    pub algorithms: Vec<JwtAlgorithm>,
    /// What they are checked with.
    pub keys: JwtKeys,
    /// How long public keys are used before they are read again.
    pub refresh: Duration,
    /// By how much the issuer's clock may differ.
    pub clock_skew: Duration,
    /// The claim with the tenant.
    pub tenant_claim: String,
    /// The claim with scopes.
    pub scopes_claim: String,
    /// The claim with roles.
    pub roles_claim: String,
    /// The scopes of each role.
    pub roles: Vec<(String, Vec<Scope>)>,
    /// The role of the operator's own.
    pub operator_role: Option<String>,
}

/// What tokens are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A shared secret.
    Secret(Secret),
    /// Public keys.
    Jwks(JwksPlace),
}

/// What is kept of who changed what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditConfig {
    /// For how long.
    pub keep: Duration,
}

/// What is remembered of messages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiptsConfig {
    /// The share of messages without trouble whose receipt is kept, 0 to 1.
    pub sample: f64,
    /// How long receipts are kept.
    pub keep: Duration,
}

/// How long dead letters are kept; for ever where nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeadLettersConfig {
    /// Deleted this long after they failed.
    pub keep: Option<Duration>,
    /// The oldest above so many are deleted.
    pub max: Option<u64>,
}

/// How bodies are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionConfig {
    /// Wraps the keys of bodies: 32 bytes.
    pub master_key: MasterKey,
    /// Those of before.
    pub previous: Vec<MasterKey>,
}

/// A master key. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey(pub [u8; 32]);

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// A JSON Schema. It compiles; see [`SchemaStep`](crate::validation::SchemaStep).
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaConfig {
    /// Its name.
    pub name: Arc<str>,
    /// The schema itself.
    pub document: Arc<Value>,
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What runs.
    pub component: ComponentConfig,
    /// What the component's sha256 must be, as 64 lower-case hexadecimal digits. For a file this has been checked; for
    /// a built-in plugin it is for whoever has its component.
    pub pinned_sha256: Option<Arc<str>>,
    /// What an instance is kept for.
    pub isolation: Isolation,
    /// What a call may use.
    pub limits: PluginLimits,
}

/// Where a plugin's component comes from.
#[derive(Clone, PartialEq)]
pub enum ComponentConfig {
    /// One of [`BUILTIN_PLUGINS`].
    Builtin(&'static str),
    /// A file.
    File {
        /// Its absolute path.
        path: PathBuf,
        /// Its content as it was read, so that what runs is what was checked.
        bytes: Bytes,
        /// Its sha256, as 64 lower-case hexadecimal digits.
        sha256: Arc<str>,
    },
}

impl fmt::Debug for ComponentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "Builtin({name})"),
            Self::File { path, sha256, .. } => write!(f, "File({}, sha256:{sha256})", path.display()),
        }
    }
}

/// Plugins that come with the gateway and are usable by name without declaring them.
pub const BUILTIN_PLUGINS: [&str; 5] = ["jq", "content-router", "topic-router", "redact", "split"];

/// What one call of a plugin may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// CPU time.
    pub cpu: Duration,
    /// Memory, summed over all memories of an instance.
    pub memory_bytes: u64,
    /// Output of one call.
    pub output_bytes: u64,
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Where messages come from.
    pub source: SourceConfig,
    /// What happens to each, in order; a `Route` only as the last.
    pub steps: Vec<StepConfig>,
    /// Where they go, in the order written; at least one.
    pub targets: Vec<(Arc<str>, TargetConfig)>,
    /// When what failed is tried again.
    pub retry: RetryPolicy,
    /// A broker that gets dead letters as well as the store.
    pub dead_letter: Option<DeadLetterConfig>,
    /// Most messages between being read and being settled; 1 to 100,000.
    pub max_in_flight: usize,
    /// For how long a delivered message's repetitions are dropped, if they are.
    pub deduplicate: Option<Duration>,
    /// Which order is kept.
    pub order: Order,
    /// Longest time a step may take with one message, if there is a limit of its own.
    pub handler_timeout: Option<Duration>,
    /// Absolute folder of the file that defines it: its relative paths start here.
    pub base_dir: PathBuf,
    pub(super) fingerprint: Arc<str>,
}

impl PipelineConfig {
    /// The name under which it stands in its configuration: its own without that of a tenant.
    pub fn written_name(&self) -> &str {
        Realm::of(&self.name).short(&self.name).unwrap_or(&self.name)
    }

    /// Identity of all that it is made of, as 64 hexadecimal digits: two pipelines with the same fingerprint behave the
    /// same. Contents of schemas (also those they refer to) and of plugin files are part of it; those of built-in
    /// plugins come with the gateway and are not.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum StepConfig {
    /// Dead-letters what does not satisfy the schema.
    Validate {
        /// The schema.
        schema: Arc<SchemaConfig>,
    },
    /// Keeps or drops.
    Filter {
        /// The plugin.
        plugin: Arc<PluginConfig>,
        /// Its configuration; `{}` if none is written.
        config: Value,
    },
    /// Makes none, one or several messages of one.
    Transform {
        /// The plugin.
        plugin: Arc<PluginConfig>,
        /// Its configuration; `{}` if none is written.
        config: Value,
    },
    /// Chooses targets.
    Route {
        /// The plugin.
        plugin: Arc<PluginConfig>,
        /// Its configuration; `{}` if none is written.
        config: Value,
        /// What becomes of a message without a route.
        unroutable: Unroutable,
    },
}

impl StepConfig {
    /// `validate`, `filter`, `transform` or `route`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Validate { .. } => "validate",
            Self::Filter { .. } => "filter",
            Self::Transform { .. } => "transform",
            Self::Route { .. } => "route",
        }
    }

    /// The plugin and its configuration, if a plugin runs the step.
    pub fn plugin(&self) -> Option<(&Arc<PluginConfig>, &Value)> {
        match self {
            Self::Validate { .. } => None,
            Self::Filter { plugin, config }
            | Self::Transform { plugin, config }
            | Self::Route { plugin, config, .. } => Some((plugin, config)),
        }
    }

    /// Name of its schema or plugin.
    pub fn subject(&self) -> &str {
        match self {
            Self::Validate { schema } => &schema.name,
            Self::Filter { plugin, .. } | Self::Transform { plugin, .. } | Self::Route { plugin, .. } => &plugin.name,
        }
    }
}

/// A case for `sluicegate test`.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// What it shows.
    pub name: String,
    /// The pipeline whose steps it runs.
    pub pipeline: Arc<str>,
    /// The message that comes in; the same on every run.
    pub given: Message,
    /// What is to come out.
    pub expect: Expectation,
}

/// What is to come out of a test. What is `None` is not compared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expectation {
    /// Names of the targets that get a message, sorted, one entry a message.
    pub targets: Option<Vec<String>>,
    /// What every message that comes out is like.
    pub every: ExpectedMessage,
    /// The messages that come out, in order.
    pub messages: Option<Vec<ExpectedMessage>>,
    /// Whether a step dropped it, and the code of the reason.
    pub dropped: Option<ExpectedDrop>,
    /// The class of the dead letter it became.
    pub dead_letter: Option<FailureClass>,
}

/// What a message is to be like. What is `None` is not compared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExpectedMessage {
    /// Name of its target.
    pub target: Option<String>,
    /// Its body: the JSON value, or a text that is compared as it is when the body is no JSON.
    pub body: Option<Value>,
    /// Headers it has, among others.
    pub headers: Vec<(String, String)>,
    /// Its `type`.
    pub kind: Option<String>,
    /// Its key.
    pub key: Option<String>,
}

/// Whether a step dropped a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedDrop {
    /// It goes on.
    No,
    /// For any reason.
    ForAnyReason,
    /// For the reason with this code.
    Because(String),
}
