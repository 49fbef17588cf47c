//! The configuration, in three stages: as written, with the place of every value ([`tree`]); of the right shape
//! ([`shape`]); resolved, with every name and limit checked ([`resolved`]). [`load`] goes through all three and reports
//! every mistake of all of them at once. Nothing is built and nothing is connected to.
//!
//! ```no_run
//! use sluicegate::config::{self, Process};
//!
//! match config::load(&["sluicegate.yaml".into()], &Process) {
//!     Ok(loaded) => println!("{} pipelines", loaded.config.pipelines.len()),
//!     Err(diagnostics) => eprint!("{diagnostics}"),
//! }
//! ```

mod attachments;
mod contracts;
mod dead_letter;
mod diagnostic;
mod entries;
mod expectation;
mod explanation;
mod guarantee;
#[cfg(test)]
pub(crate) mod in_memory;
mod interpolation;
mod loading;
mod location;
mod reserved;
mod resolve;
mod resolved;
mod shape;
mod surroundings;
mod tenancy;
mod tree;
mod written;
mod yaml;

pub use contracts::{PluginDescription, PluginSchemas, Role, check_plugins};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use guarantee::{End, Guarantee, guarantee};
pub use loading::{Loaded, load};
pub use location::{FileId, Location, Sources};
pub use resolved::{
    AuditConfig, AuthConfig, BUILTIN_PLUGINS, ComponentConfig, Config, DeadLetterConfig, Expectation, ExpectedDrop,
    ExpectedMessage, Isolation, JwtAlgorithm, JwtConfig, JwtKeys, MasterKey, Offers, PipelineConfig, PluginConfig,
    PluginLimits, ReceiptsConfig, RequiredAuth, SchemaConfig, ServerConfig, StepConfig, TestCase,
};
pub use shape::{schema, secret_keys};
pub use surroundings::{Process, Surroundings};
pub use tenancy::{Document, DocumentKind, Holdings, document_json, load_tenant};
pub use tree::Node;
pub(crate) use tree::join;
