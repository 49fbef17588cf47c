//! Steps against their plugins: whether a plugin plays the role, and whether its configuration fits its own schema. What
//! a plugin is must be asked of whoever can inspect components.

use serde_json::Value;

use super::diagnostic::{Diagnostic, Diagnostics, listing};
use super::explanation::Explainer;
use super::loading::Loaded;
use super::reserved::Reserved;
use super::resolved::{PluginConfig, StepConfig};
use super::tree::{Filling, Node, NodeValue, join};

/// Inspects plugins.
pub trait PluginSchemas {
    /// What a plugin is. May compile the component; asked once for each step.
    ///
    /// # Errors
    /// Why it cannot be told, in words for people: the component is broken, or imports what nothing provides.
    fn describe(&self, plugin: &PluginConfig) -> Result<PluginDescription, String>;
}

/// What a plugin is.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginDescription {
    /// The steps it can be.
    pub roles: Vec<Role>,
    /// JSON Schema of its configuration.
    pub config_schema: Value,
}

/// A kind of step that a plugin can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `filter`
    Filter,
    /// `transform`
    Transform,
    /// `route`
    Route,
}

impl Role {
    /// The key of such a step.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Transform => "transform",
            Self::Route => "route",
        }
    }
}

/// Checks every step of every pipeline against its plugin.
///
/// # Errors
/// All steps that do not fit.
pub fn check_plugins(loaded: &Loaded, plugins: &dyn PluginSchemas) -> Result<(), Diagnostics> {
    let mut wrong = Vec::new();
    for pipeline in &loaded.config.pipelines {
        for (index, step) in pipeline.steps.iter().enumerate() {
            let Some((plugin, config)) = step.plugin() else { continue };
            let pointer = format!("{}/steps/{index}/{}", join("/pipelines", &pipeline.name), step.kind());
            match plugins.describe(plugin) {
                Ok(description) => check_step(loaded, &pointer, step, config, &description, &mut wrong),
                Err(why) => {
                    let text = format!("the plugin `{}` cannot be used: {why}", plugin.name);
                    wrong.push(loaded.mistake(&join(&pointer, "plugin"), text));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(loaded.diagnostics(wrong)) }
}

fn check_step(
    loaded: &Loaded,
    pointer: &str,
    step: &StepConfig,
    config: &Value,
    description: &PluginDescription,
    wrong: &mut Vec<Diagnostic>,
) {
    if !description.roles.iter().any(|role| role.name() == step.kind()) {
        let roles = listing(description.roles.iter().map(|role| role.name()));
        let text = format!("the plugin `{}` cannot be a {} step", step.subject(), step.kind());
        wrong.push(loaded.mistake(&join(pointer, "plugin"), text).hint(format!("it can be: {roles}")));
    }
    let validator = match jsonschema::options().offline().build(&description.config_schema) {
        Ok(validator) => validator,
        Err(error) => {
            let text =
                format!("the plugin `{}` describes its configuration by an invalid schema: {error}", step.subject());
            wrong.push(loaded.mistake(&join(pointer, "plugin"), text));
            return;
        }
    };
    let at = join(pointer, "config");
    let place = loaded.root().place(&at);
    let nothing = Node::new(place, NodeValue::Map(Vec::new()));
    let node = loaded.root().find(&at).unwrap_or(&nothing);
    let reserved = Reserved::default();
    let explainer = Explainer::new(&description.config_schema, node, &reserved);
    for error in validator.iter_errors(config) {
        for (below, mut diagnostic) in explainer.explain(&error) {
            diagnostic.path = loaded.root().path(&format!("{at}{below}"));
            if below.is_empty() {
                diagnostic.location = Some(place);
            }
            if node.find(&below).is_some_and(|node| node.filling == Filling::Filled) && diagnostic.hint.is_none() {
                diagnostic.hint = Some("in a plugin's configuration `${…}` is always a text".to_owned());
            }
            wrong.push(diagnostic);
        }
    }
}
