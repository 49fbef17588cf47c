//! Queues: what is declared, and that pipelines name what is.

use sluicegate_connectors::queue::{Declaration, Declarations, is_name};
use sluicegate_connectors::registry::{SourceConfig, TargetConfig};

use super::Resolver;
use crate::config::tree::{Node, join};
use crate::config::written::PipelineSection;

impl Resolver<'_> {
    pub(super) fn queues(&mut self) -> Declarations {
        let written = self.written;
        let defaults = &written.queue_defaults;
        self.problems("/queue_defaults", defaults.problems());
        let mut declarations = Declarations::new();
        for (name, declaration) in written.queues.iter() {
            let pointer = join("/queues", name);
            if !is_name(name) {
                let place = self.root.key_place(&pointer);
                let mistake = self.wrong(&pointer, format!("`{name}` cannot be the name of a queue"));
                mistake.location = Some(place);
                mistake.hint = Some("a queue's name has 1 to 128 of A-Z, a-z, 0-9, `.`, `_` and `-`".to_owned());
            }
            self.problems(&pointer, declaration.problems(defaults));
            let base_dir = (self.base_of)(self.root.place(&pointer));
            declarations.insert(name.to_owned(), declaration.completed(defaults, &base_dir));
            if let Some(schema) = &declaration.schema {
                // Only whether there is one.
                self.schema(&join(&pointer, "schema"), schema);
            }
        }
        declarations
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sluicegate_connectors::quantity::{Size, Span};
    use sluicegate_connectors::queue::{Backend, Length};

    use crate::config::in_memory::load_text;

    const PIPELINE: &str = "pipelines:\n  p:\n    source: { stdio: {} }\n    targets: { out: { stdio: {} } }\n";

    #[test]
    fn what_a_declaration_leaves_out_is_as_the_defaults_say() {
        let text = format!(
            "queue_defaults: {{ max_messages: '${{LENGTH:-25}}', max_age: 1d, consumer_timeout: 5s }}\n\
             queues:\n  plain: {{}}\n  own: {{ retention: {{ max_messages: unlimited, max_age: 2d }}, max_message: 2KiB }}\n  \
             stream: {{ backend: {{ redis: {{ url: 'rediss://h', tls: {{ ca_file: ca.pem }} }} }} }}\n{PIPELINE}"
        );
        let config = load_text(&text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let plain = &config.queues["plain"];
        assert_eq!(plain.retention.max_messages, Some(Length::Messages(25)), "a number from the environment");
        assert_eq!((plain.retention.max_age, plain.max_message), (Some(Span::secs(86_400)), Some(Size(1 << 20))));
        let own = &config.queues["own"];
        assert_eq!(own.retention.max_messages, Some(Length::Unlimited));
        assert_eq!((own.retention.max_age, own.max_message), (Some(Span::secs(2 * 86_400)), Some(Size(2_048))));
        let stream = &config.queues["stream"];
        assert_eq!(stream.retention.max_messages, None, "Redis would drop what nobody has read");
        let Backend::Redis(redis) = &stream.backend else { panic!("{stream:?}") };
        assert_eq!(redis.consumer_timeout, Some(Span::secs(5)));
        let ca_file = redis.tls.as_ref().and_then(|tls| tls.ca_file.clone());
        assert_eq!(ca_file, Some(PathBuf::from("/folder/ca.pem")), "whoever reads it may be elsewhere");
        assert_eq!(load_text(PIPELINE).expect("valid").config.queue_defaults, Default::default());
    }

    #[test]
    fn a_pipeline_on_a_queue_is_another_one_with_other_defaults() {
        let fingerprints = |defaults: &str| {
            let text = format!(
                "queue_defaults: {defaults}\nqueues: {{ q: {{}} }}\npipelines:\n  on: {{ source: {{ queue: q }}, \
                 targets: {{ out: {{ stdio: {{}} }} }} }}\n  off: {{ source: {{ stdio: {{}} }}, targets: {{ out: {{ stdio: {{}} }} }} }}\n"
            );
            let config = load_text(&text).unwrap_or_else(|wrong| panic!("{wrong}")).config;
            ["on", "off"].map(|name| config.pipeline(name).expect("a pipeline").fingerprint().to_owned())
        };
        let (before, after) = (fingerprints("{ max_age: 1d }"), fingerprints("{ max_age: 2d }"));
        assert_ne!(before[0], after[0], "it would bring the queue back to what it was");
        assert_eq!(before[1], after[1]);
    }

    #[test]
    fn defaults_that_cannot_be_are_told_where_they_stand() {
        let text = format!(
            "queue_defaults: {{ max_age: 1ms, max_message: 1GiB }}\n\
             queues: {{ q: {{ retention: {{ max_messages: 0 }} }} }}\n{PIPELINE}"
        );
        let wrong = load_text(&text).expect_err("mistakes").to_string();
        for part in ["queue_defaults.max_age", "queue_defaults.max_message", "max_messages"] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }
}
