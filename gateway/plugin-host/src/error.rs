//! What goes wrong before a plugin ever sees a message.

use std::path::PathBuf;

use sluicegate_engine::failure::{GuestFailure, Reason};

use crate::grants::Capability;

/// The host could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Wasmtime refused its configuration, most likely for want of address space.
    #[error(
        "starting the plugin host with room for {max_instances} instances: {text}; lower `max_instances`, or lift the \
         limit on virtual memory (`ulimit -v`)"
    )]
    Engine {
        /// What was asked for.
        max_instances: u32,
        /// Wasmtime's words.
        text: String,
    },
    /// The folder of compiled code cannot be used.
    #[error("opening the cache of compiled plugins in {}: {text}; check that the folder is writable", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        text: String,
    },
}

/// A component was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Longer than the host takes.
    #[error(
        "loading plugin `{plugin}`: the component has {size_bytes} bytes, more than the limit of {limit_bytes}; build \
         it optimised for size and without debug information"
    )]
    TooLarge {
        /// The configured name.
        plugin: String,
        /// How long it is.
        size_bytes: u64,
        /// How long it may be.
        limit_bytes: u64,
    },
    /// Not a WebAssembly component at all.
    #[error("loading plugin `{plugin}`: {what}")]
    NotAComponent {
        /// The configured name.
        plugin: String,
        /// What it is instead, and what to do.
        what: String,
    },
    /// It wants what the gateway does not give. Found before anything is compiled.
    #[error(
        "loading plugin `{plugin}`: it imports {}, which the gateway does not offer to plugins; they get no files, \
         sockets, environment or HTTP, but what is granted through the packages of `sluicegate:…@0.1.0`", quoted(.imports)
    )]
    Imports {
        /// The configured name.
        plugin: String,
        /// Every refused import, as the component names it.
        imports: Vec<String>,
    },
    /// It has no role, or lacks `lifecycle`, or was made for another version of the contract.
    #[error("loading plugin `{plugin}`: {text}")]
    Contract {
        /// The configured name.
        plugin: String,
        /// What is missing or wrong, and what to do.
        text: String,
    },
    /// The compiler refused it.
    #[error("loading plugin `{plugin}`: the component does not compile: {text}; rebuild it with current tools")]
    Compile {
        /// The configured name.
        plugin: String,
        /// Wasmtime's words.
        text: String,
    },
    /// `config-schema` failed or is no JSON Schema.
    #[error("loading plugin `{plugin}`: asking it for its configuration schema: {text}")]
    ConfigSchema {
        /// The configured name.
        plugin: String,
        /// What happened.
        text: String,
    },
}

/// A plugin did not take its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It imports capabilities that it is not granted.
    #[error(
        "plugin `{plugin}` imports {}, which it is not granted; if it may have that, grant it: {}",
        imports(.capabilities), granting(.capabilities)
    )]
    Ungranted {
        /// The configured name.
        plugin: String,
        /// Every one that is missing, never empty.
        capabilities: Vec<Capability>,
    },
    /// The plugin's own verdict, all mistakes at once.
    #[error("plugin `{plugin}` refuses its configuration: {}", listed(.reasons))]
    Refused {
        /// The configured name.
        plugin: String,
        /// Every mistake, never empty.
        reasons: Vec<Reason>,
    },
    /// The plugin failed instead of answering.
    #[error("plugin `{plugin}` failed while taking its configuration: {failure}")]
    Failed {
        /// The configured name.
        plugin: String,
        /// What happened.
        failure: GuestFailure,
    },
    /// The limits cannot be kept by this host.
    #[error("plugin `{plugin}`: {text}")]
    Limits {
        /// The configured name.
        plugin: String,
        /// Which one, and what is possible.
        text: String,
    },
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn imports(capabilities: &[Capability]) -> String {
    quoted(&capabilities.iter().map(|capability| capability.import().to_owned()).collect::<Vec<_>>())
}

/// As it would be written.
fn granting(capabilities: &[Capability]) -> String {
    let examples: Vec<_> = capabilities.iter().map(|capability| capability.example()).collect();
    format!("`grants: {{ {} }}`", examples.join(", "))
}

fn listed(reasons: &[Reason]) -> String {
    let listed: Vec<_> = reasons.iter().map(ToString::to_string).collect();
    listed.join("; ")
}
