//! The plugin host: compiles and runs the gateway's filters, transforms and routers, which are WebAssembly components made
//! by people the gateway does not trust. The only user of wasmtime.
//!
//! [`PluginHost::load`] takes a component, [`Plugin::configure`] gives it a configuration, and a [`ConfiguredPlugin`] is a
//! step of a pipeline. The contract with guests is `wit/plugin.wit`.
//!
//! **Architecture Invariant:** a guest can fail its own message and nothing else. Its time, memory, output, handles and
//! log lines are bounded ([`Limits`]); whatever it hands to the host is cut, counted or refused before it is kept; an
//! instance that failed is never used again.
//!
//! **Architecture Invariant:** nothing a guest sees comes from outside its message and its configuration, so the same
//! message has the same outcome: see `replay.rs`. The exception is what it is granted by name: state and answers over HTTP
//! are what they are when it asks.
//!
//! **Architecture Invariant:** an instance sees a message only with grants for all it imports, and one set of grants never
//! uses another's instances: see `grants/`.
//!
//! **Architecture Invariant:** nothing is compiled, and no file is read, on a worker of the runtime.
//!
//! Reading order: `host.rs`, `plugin.rs`, `configured.rs`, `instance.rs`, `role.rs`; then what guests can call:
//! `message.rs`, `draft.rs`, `log.rs`, `wasi.rs`, and by grant `grants/`.

mod bindings;
mod cache;
mod component;
mod configured;
mod draft;
mod engine;
mod error;
mod failure;
mod grants;
mod host;
mod idle;
mod instance;
mod isolation;
mod limits;
mod log;
mod measure;
mod message;
mod meter;
mod plugin;
mod pointer;
mod replay;
mod role;
mod slots;
mod snapshot;
mod state;
mod text;
mod wasi;

pub use component::Role;
pub use configured::ConfiguredPlugin;
pub use error::{ConfigureError, HostError, LoadError};
pub use grants::{
    Capability, Grants, HostCallLimits, HttpAccess, HttpError, HttpRequest, HttpResponse, MetricValue, MetricsAccess,
    SecretsAccess, StateAccess, StateChange, StateChanged, StateError,
};
pub use host::{HostConfig, PluginHost};
pub use isolation::{Isolation, IsolationInForce, Settings};
pub use limits::{BATCH_CALLS, Limits, MAX_DESTINATIONS, MAX_DRAFTS, MAX_HEADERS};
pub use measure::{Measurement, Outcome};
pub use plugin::Plugin;
pub use state::SLICE;

use sluicegate_engine::message::Message;

/// Callers spawn these; that they can is part of the interface.
const _: fn(&PluginHost, &Plugin, &ConfiguredPlugin, &serde_json::Value, &std::sync::Arc<Message>) =
    |host, plugin, configured, config, message| {
        fn spawnable(_: impl Send) {}
        spawnable(host.load("", bytes::Bytes::new()));
        spawnable(plugin.configure(config, Settings::default()));
        spawnable(configured.measure(Role::Filter, message));
    };
