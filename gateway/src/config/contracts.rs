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
            let pointer = format!("{}/steps/{index}/{}", join("/pipelines", pipeline.written_name()), step.kind());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::in_memory::load_text;

    /// A plugin that is a filter and takes a `program`.
    struct OnlyJq;

    impl PluginSchemas for OnlyJq {
        fn describe(&self, plugin: &PluginConfig) -> Result<PluginDescription, String> {
            if &*plugin.name != "jq" {
                return Err("it imports `wasi:sockets`".to_owned());
            }
            let config_schema = json!({
                "type": "object", "required": ["program"], "additionalProperties": false,
                "properties": { "program": { "type": "string" }, "limit": { "type": "integer", "minimum": 1 } },
            });
            Ok(PluginDescription { roles: vec![Role::Filter, Role::Route], config_schema })
        }
    }

    fn checked(steps: &str) -> Result<(), Vec<String>> {
        let text = format!(
            "pipelines:\n  p:\n    source: {{ stdio: {{}} }}\n    targets: {{ out: {{ stdio: {{}} }} }}\n    steps:\n{steps}"
        );
        let loaded = load_text(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        check_plugins(&loaded, &OnlyJq).map_err(|diagnostics| {
            let said = |d: &Diagnostic| {
                let at = d.location.expect("place");
                let hint = d.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"));
                format!("{}:{} {}: {}{hint}", at.line, at.column, d.path, d.text)
            };
            diagnostics.iter().map(said).collect()
        })
    }

    #[test]
    fn a_step_that_fits_its_plugin_is_accepted() {
        assert_eq!(checked("      - filter: { plugin: jq, config: { program: . } }\n"), Ok(()));
    }

    #[test]
    fn roles_and_configurations_that_do_not_fit_are_told_all_at_once() {
        let steps = "      - transform: { plugin: jq, config: { program: . } }
      - filter: { plugin: jq, config: { programm: '.', limit: 0 } }
      - filter: { plugin: jq }
      - filter: { plugin: redact }
";
        let wrong = [
            "6:30 pipelines.p.steps[0].transform.plugin: the plugin `jq` cannot be a transform step (it can be: filter or route)",
            "7:31 pipelines.p.steps[1].filter.config: `program` is missing",
            "7:41 pipelines.p.steps[1].filter.config.programm: unknown key `programm` (did you mean `program`?)",
            "7:63 pipelines.p.steps[1].filter.config.limit: the number `0` is less than 1 (at least 1)",
            "8:9 pipelines.p.steps[2].filter.config: `program` is missing",
            "9:27 pipelines.p.steps[3].filter.plugin: the plugin `redact` cannot be used: it imports `wasi:sockets`",
        ];
        assert_eq!(checked(steps), Err(wrong.map(ToOwned::to_owned).into()));
    }
}
