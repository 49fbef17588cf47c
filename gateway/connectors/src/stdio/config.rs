//! Settings of the `stdio` connector.
use crate::registry::{Problem, Promise};
/// Source settings.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {}
impl SourceConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise { at_least_once: true, because: String::new(), warnings: Vec::new() }
    }
}
/// Target settings.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {}
impl TargetConfig {
    /// All mistakes that show without I/O.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
    /// What it promises.
    pub fn promise(&self) -> Promise {
        Promise { at_least_once: true, because: String::new(), warnings: Vec::new() }
    }
}
