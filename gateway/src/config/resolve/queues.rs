//! Queues: what is declared, and that pipelines name what is.

use sluicegate_connectors::queue::{Declaration, Declarations, is_name};
use sluicegate_connectors::registry::{SourceConfig, TargetConfig};

use super::Resolver;
use crate::config::tree::{Node, join};
use crate::config::written::PipelineSection;

impl Resolver<'_> {
    pub(super) fn queues(&mut self) -> Declarations {
        let written = self.written;
        for (name, declaration) in written.queues.iter() {
            let pointer = join("/queues", name);
            if !is_name(name) {
                let place = self.root.key_place(&pointer);
                let mistake = self.wrong(&pointer, format!("`{name}` cannot be the name of a queue"));
                mistake.location = Some(place);
                mistake.hint = Some("a queue's name has 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`".to_owned());
            }
            self.problems(&pointer, declaration.problems());
            if let Some(schema) = &declaration.schema {
                // Only whether there is one.
                self.schema(&join(&pointer, "schema"), schema);
            }
        }
        written.queues.iter().map(|(name, declaration)| (name.to_owned(), declaration.clone())).collect()
    }

    /// The queues a pipeline names are declared and take what it asks of them.
    pub(super) fn queue_names(&mut self, pipeline: &str, section: &PipelineSection) {
        if let SourceConfig::Queue(source) = &section.source {
            self.declared(&join(&join(pipeline, "source"), "queue"), &source.name);
        }
        for (target, config) in section.targets.iter() {
            if let TargetConfig::Queue(config) = config {
                let pointer = join(&join(&join(pipeline, "targets"), target), "queue");
                if let Some(declaration) = self.declared(&pointer, &config.name) {
                    let misfits = config.misfits(declaration);
                    self.problems(&pointer, misfits);
                }
            }
        }
    }

    /// The declaration of a queue that the connector at `pointer` names.
    fn declared(&mut self, pointer: &str, name: &str) -> Option<&Declaration> {
        let written = self.written;
        let found = written.queues.iter().find(|(queue, _)| *queue == name).map(|(_, declaration)| declaration);
        let defined = self.defined("queues");
        if found.is_none() && !defined.iter().any(|queue| queue == name) {
            let is_short = self.root.find(pointer).and_then(Node::text).is_some();
            let pointer = if is_short { pointer.to_owned() } else { join(pointer, "name") };
            let known: Vec<&str> = defined.iter().map(String::as_str).collect();
            self.unknown(&pointer, "queue", name, &known, "define it under `queues:`");
        }
        found
    }
}
