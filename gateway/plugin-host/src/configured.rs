//! A plugin with its configuration: what pipelines hold.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use sluicegate_engine::failure::{GuestFailure, Reason, StepFailure};
use sluicegate_engine::message::Message;
use sluicegate_engine::step;

use crate::bindings::sluicegate::plugin::outcomes;
use crate::component::Role;
use crate::error::ConfigureError;
use crate::failure;
use crate::grants::Grants;
use crate::idle::Idle;
use crate::instance::Instance;
use crate::isolation::{Isolation, IsolationInForce, Settings};
use crate::limits::{BATCH_CALLS, Limits, MAX_CONFIG_BYTES, MAX_REASONS};
use crate::measure::{Measurement, Outcome, RoleMetrics, Usage};
use crate::plugin::{Code, Loaded};
use crate::role::{Ask, Filtering, Routing, Transforming};
use crate::slots::Shelf;
use crate::snapshot::{self, Snapshot};
use crate::state::State;

/// A plugin with its configuration. Clones share it; its instances are shared with no other configuration.
#[derive(Clone)]
pub struct ConfiguredPlugin(Arc<Configured>);

struct Configured {
    plugin: Arc<Loaded>,
    source: Source,
    isolation: IsolationInForce,
    limits: Limits,
    configure_limits: Limits,
    grants: Arc<Grants>,
    idle: Arc<Idle>,
    metrics: [RoleMetrics; 3],
}

/// Where instances come from.
enum Source {
    /// A snapshot: they are configured from the start.
    Snapshot(Code),
    /// The plugin's own code: each is configured with this JSON text after it was made.
    Configure(String),
}

impl ConfiguredPlugin {
    pub(crate) async fn new(plugin: Arc<Loaded>, config: &Value, settings: Settings) -> Result<Self, ConfigureError> {
        let Settings { isolation, limits, grants } = settings;
        check(&plugin, &limits)?;
        check_granted(&plugin, &grants)?;
        let config = config.to_string();
        if config.len() > MAX_CONFIG_BYTES {
            let text =
                format!("its configuration has {} bytes, more than the limit of {MAX_CONFIG_BYTES}", config.len());
            return Err(ConfigureError::Limits { plugin: plugin.name.to_string(), text });
        }
        let configure_limits = limits.for_configure();
        let mut in_force = IsolationInForce { isolation, fallback_reason: None };
        let source = match isolation {
            Isolation::Reuse => Source::Configure(config),
            Isolation::Message | Isolation::Batch => {
                match snapshot_of(&plugin, &config, &limits, &configure_limits).await? {
                    Ok(code) => Source::Snapshot(code),
                    Err(reason) => {
                        in_force = fall_back(&plugin, isolation, reason);
                        Source::Configure(config)
                    }
                }
            }
        };
        let idle = Arc::new(Idle::new(plugin.host.config.max_idle_instances));
        let known: Arc<dyn Shelf> = Arc::clone(&idle) as Arc<dyn Shelf>;
        plugin.host.slots.add(Arc::downgrade(&known));
        let metrics = Role::ALL.map(|role| plugin.metrics.of_role(role));
        let grants = Arc::new(grants);
        let configured =
            Configured { plugin, source, isolation: in_force, limits, configure_limits, grants, idle, metrics };
        configured.try_out().await?;
        Ok(Self(Arc::new(configured)))
    }

    /// The plugin's configured name.
    pub fn name(&self) -> &str {
        &self.0.plugin.name
    }

    /// Digest of the component, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.0.plugin.digest
    }

    /// What it can do.
    pub fn roles(&self) -> &[Role] {
        self.0.plugin.roles()
    }

    /// The isolation in force.
    pub fn isolation(&self) -> &IsolationInForce {
        &self.0.isolation
    }

    /// The limits of a call.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// As a filter, if it is one.
    pub fn filter(&self) -> Option<Arc<dyn step::Filter>> {
        self.has(Role::Filter).then(|| Arc::new(self.clone()) as Arc<dyn step::Filter>)
    }

    /// As a transform, if it is one.
    pub fn transform(&self) -> Option<Arc<dyn step::Transform>> {
        self.has(Role::Transform).then(|| Arc::new(self.clone()) as Arc<dyn step::Transform>)
    }

    /// As a router, if it is one.
    pub fn route(&self) -> Option<Arc<dyn step::Route>> {
        self.has(Role::Route).then(|| Arc::new(self.clone()) as Arc<dyn step::Route>)
    }

    /// Makes one call as `role` and measures it; none if the plugin lacks that role. Counts in the metrics like any
    /// other call. Cancel safe.
    pub async fn measure(&self, role: Role, message: &Arc<Message>) -> Option<Measurement> {
        if !self.has(role) {
            return None;
        }
        let started = Instant::now();
        let (outcome, usage) = match role {
            Role::Filter => {
                let (answer, usage) = self.0.run::<Filtering>(message).await;
                (answer.map(Outcome::Verdict), usage)
            }
            Role::Transform => {
                let (answer, usage) = self.0.run::<Transforming>(message).await;
                (answer.map(Outcome::Messages), usage)
            }
            Role::Route => {
                let (answer, usage) = self.0.run::<Routing>(message).await;
                (answer.map(Outcome::Destinations), usage)
            }
        };
        Some(Measurement {
            outcome,
            wall: started.elapsed(),
            peak_memory_bytes: usage.peak_memory_bytes,
            log_lines_dropped: usage.log_lines_dropped,
        })
    }

    fn has(&self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

#[async_trait::async_trait]
impl step::Filter for ConfiguredPlugin {
    async fn filter(&self, message: &Arc<Message>) -> Result<step::Verdict, StepFailure> {
        self.0.run::<Filtering>(message).await.0
    }
}

#[async_trait::async_trait]
impl step::Transform for ConfiguredPlugin {
    async fn transform(&self, message: &Arc<Message>) -> Result<Vec<Message>, StepFailure> {
        self.0.run::<Transforming>(message).await.0
    }
}

#[async_trait::async_trait]
impl step::Route for ConfiguredPlugin {
    async fn route(&self, message: &Arc<Message>) -> Result<Vec<step::Destination>, StepFailure> {
        self.0.run::<Routing>(message).await.0
    }

    fn identity(&self) -> (String, String) {
        (self.name().to_owned(), self.digest().to_owned())
    }
}

impl Configured {
    /// One call, counted and timed.
    async fn run<A: Ask>(&self, message: &Arc<Message>) -> (Result<A::Answer, StepFailure>, Usage) {
        let started = Instant::now();
        let mut usage = Usage::default();
        let answer = self.call::<A>(message, &mut usage).await;
        let metrics = &self.metrics[A::ROLE as usize];
        metrics.calls.increment(1);
        metrics.duration.record(started.elapsed());
        self.plugin.metrics.dropped_log_lines(usage.log_lines_dropped);
        let answer = answer.map_err(|failure| {
            let failure = StepFailure::Guest {
                plugin: self.plugin.name.to_string(),
                digest: self.plugin.digest.clone(),
                failure,
            };
            self.plugin.metrics.failed(&failure);
            failure
        });
        (answer, usage)
    }

    async fn call<A: Ask>(&self, message: &Arc<Message>, usage: &mut Usage) -> Result<A::Answer, GuestFailure> {
        let mut instance = match self.idle.take() {
            Some(mut instance) => {
                instance.begin(message, &self.limits);
                instance
            }
            None => self.make(message).await?,
        };
        let answer = match A::ask(&mut instance, self.code()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(failure::of_guest(failure)),
            Err(error) => Err(failure::of_error(&error, instance.store.data_mut(), &self.limits)),
        };
        *usage = instance.end();
        if answer.is_ok() {
            self.keep(instance);
        }
        answer
    }

    /// An instance that is configured and in a call on `message`.
    async fn make(&self, message: &Arc<Message>) -> Result<Instance, GuestFailure> {
        match &self.source {
            Source::Snapshot(_) => self.instance(&self.limits, |state| state.begin(message, &self.limits)).await,
            Source::Configure(config) => {
                let mut instance = match self.configured(config).await {
                    Ok(instance) => instance,
                    // It took this configuration before, and sees nothing else: it cannot refuse it now.
                    Err(ConfigureError::Failed { failure, .. }) => return Err(failure),
                    Err(other) => return Err(GuestFailure::ContractViolation(other.to_string())),
                };
                instance.begin(message, &self.limits);
                Ok(instance)
            }
        }
    }

    async fn configured(&self, config: &str) -> Result<Instance, ConfigureError> {
        let limits = &self.configure_limits;
        let plugin = || self.plugin.name.to_string();
        let failed = |failure| ConfigureError::Failed { plugin: plugin(), failure };
        let begin = |state: &mut State| state.begin_configure(config, limits);
        let mut instance = self.instance(limits, begin).await.map_err(failed)?;
        match instance.configure(self.code(), config, limits).await.map_err(failed)? {
            Ok(()) => {
                instance.end();
                instance.calls = 0;
                Ok(instance)
            }
            Err(reasons) => Err(refused(&self.plugin, reasons)),
        }
    }

    async fn instance(&self, limits: &Limits, begin: impl FnOnce(&mut State)) -> Result<Instance, GuestFailure> {
        let begin = |state: &mut State| {
            state.host_calls.grants = Some(Arc::clone(&self.grants));
            begin(state);
        };
        Instance::new(&self.plugin.host, self.code(), &self.plugin.name, &self.plugin.metrics, limits, begin).await
    }

    fn code(&self) -> &Code {
        match &self.source {
            Source::Snapshot(code) => code,
            Source::Configure(_) => &self.plugin.code,
        }
    }

    fn keep(&self, instance: Instance) {
        let keeps = match self.isolation.isolation {
            Isolation::Message => false,
            Isolation::Batch => instance.calls < BATCH_CALLS,
            Isolation::Reuse => true,
        };
        if keeps {
            self.idle.put(instance);
            if self.plugin.host.slots.is_wanted() {
                self.idle.give_up_one();
            }
        }
    }

    /// Makes one instance before any message needs one, so that a plugin that cannot start is found now.
    async fn try_out(&self) -> Result<(), ConfigureError> {
        match &self.source {
            Source::Configure(config) => {
                let instance = self.configured(config).await?;
                self.keep(instance);
            }
            // Was tried when the snapshot was made.
            Source::Snapshot(_) => {}
        }
        Ok(())
    }
}

/// The snapshot's code, or in words why there is none.
async fn snapshot_of(
    plugin: &Arc<Loaded>,
    config: &str,
    limits: &Limits,
    configure_limits: &Limits,
) -> Result<Result<Code, String>, ConfigureError> {
    let code = match snapshot::take(plugin, config, configure_limits).await {
        Snapshot::Taken(code) => code,
        Snapshot::Impossible(reason) => return Ok(Err(reason)),
        Snapshot::Refused(reasons) => return Err(refused(plugin, reasons)),
        Snapshot::Failed(failure) => {
            return Err(ConfigureError::Failed { plugin: plugin.name.to_string(), failure });
        }
    };
    let begin = |state: &mut State| state.begin_configure(config, limits);
    let tried = Instance::new(&plugin.host, &code, &plugin.name, &plugin.metrics, limits, begin).await;
    Ok(tried.map(|_| code).map_err(|failure| format!("an instance of the snapshot does not start: {failure}")))
}

fn fall_back(plugin: &Loaded, wanted: Isolation, reason: String) -> IsolationInForce {
    // A batch is no worse without a snapshot, only slower: each of its instances is configured anew.
    let isolation = match wanted {
        Isolation::Message | Isolation::Reuse => Isolation::Reuse,
        Isolation::Batch => Isolation::Batch,
    };
    let (wanted, in_force) = (wanted.name(), isolation.name());
    tracing::warn!(plugin = &*plugin.name, wanted, in_force, reason, "plugin cannot be snapshotted after `configure`");
    IsolationInForce { isolation, fallback_reason: Some(format!("it cannot be snapshotted: {reason}")) }
}

fn check(plugin: &Loaded, limits: &Limits) -> Result<(), ConfigureError> {
    let most = plugin.host.config.max_memory_bytes;
    if limits.memory_bytes > most {
        let text = format!(
            "its memory limit of {} bytes is more than the host's {most}; lower it, or raise `max_memory_bytes`",
            limits.memory_bytes
        );
        return Err(ConfigureError::Limits { plugin: plugin.name.to_string(), text });
    }
    Ok(())
}

fn check_granted(plugin: &Loaded, grants: &Grants) -> Result<(), ConfigureError> {
    let capabilities: Vec<_> =
        plugin.capabilities().iter().copied().filter(|capability| !grants.has(*capability)).collect();
    if capabilities.is_empty() {
        return Ok(());
    }
    Err(ConfigureError::Ungranted { plugin: plugin.name.to_string(), capabilities })
}

fn refused(plugin: &Loaded, reasons: Vec<outcomes::Reason>) -> ConfigureError {
    let mut reasons: Vec<_> = reasons.into_iter().take(MAX_REASONS).map(failure::reason).collect();
    if reasons.is_empty() {
        reasons.push(Reason::new("refused", "the plugin gave no reason"));
    }
    ConfigureError::Refused { plugin: plugin.name.to_string(), reasons }
}
