//! Pipelines: their steps and targets, and the rules among them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sluicegate_connectors::registry::{Problem, SourceConfig, TargetConfig};
use sluicegate_engine::pipeline::{OnKeyFailure, Order};
use sluicegate_engine::retry::{Exhausted, RetryPolicy};
use sluicegate_engine::step::Unroutable;

use super::schemas::refers_elsewhere;
use super::{Resolver, Whose, absolute};
use crate::config::attachments::hex;
use crate::config::resolved::{ComponentConfig, PipelineConfig, PluginConfig, StepConfig};
use crate::config::tree::{Node, join};
use crate::config::written::{
    ExhaustedSection, KeyFailureSection, OrderSection, PipelineSection, RetrySection, RouteSection, StepSection,
};

impl Resolver<'_> {
    pub(super) fn pipelines(&mut self) -> Vec<PipelineConfig> {
        let is_empty = self.root.get("pipelines").is_none_or(|node| node.entries().is_empty());
        // A gateway of tenants' pipelines needs none of its own.
        let has_offers = self.root.get("tenants").is_some();
        if is_empty && self.whose == Whose::Operator && !has_offers {
            self.wrong("", "there is no pipeline").hint = Some("define at least one under `pipelines:`".to_owned());
        }
        let written = self.written;
        let pipelines = written.pipelines.iter().map(|(name, section)| self.pipeline(name, section)).collect();
        self.http_paths();
        self.files();
        pipelines
    }

    fn pipeline(&mut self, name: &str, section: &PipelineSection) -> PipelineConfig {
        let pointer = join("/pipelines", name);
        let steps = self.steps(&pointer, section);
        self.connectors(&pointer, section);
        self.queue_names(&pointer, section);
        let handler_timeout = self.span(&join(&pointer, "handler_timeout"), section.handler_timeout, ("0s", "1h"));
        let deduplicate =
            section.deduplicate.map(|window| self.span(&join(&pointer, "deduplicate"), window, ("1s", "30d")));
        let base_dir = (self.base_of)(self.root.key_place(&pointer));
        let fingerprint = self.fingerprint(&pointer, &base_dir, section, &steps).into();
        PipelineConfig {
            name: name.into(),
            source: section.source.clone(),
            steps,
            targets: section.targets.iter().map(|(name, target)| (name.into(), target.clone())).collect(),
            retry: self.retry(&join(&pointer, "retry"), &section.retry),
            dead_letter: section.dead_letter.clone(),
            max_in_flight: section.max_in_flight as usize,
            deduplicate,
            order: self.order(&pointer, section),
            handler_timeout: (!handler_timeout.is_zero()).then_some(handler_timeout),
            base_dir,
            fingerprint,
        }
    }

    fn steps(&mut self, pipeline: &str, section: &PipelineSection) -> Vec<StepConfig> {
        let pointer = join(pipeline, "steps");
        let last = section.steps.len().saturating_sub(1);
        let mut steps = Vec::new();
        let mut routes = 0;
        for (index, step) in section.steps.iter().enumerate() {
            let here = join(&pointer, &index.to_string());
            if let StepSection::Route(_) = step {
                routes += 1;
                if routes > 1 {
                    self.wrong(&here, "a second `route`; a pipeline has at most one").hint =
                        Some("let one plugin choose among all targets, or make two pipelines".to_owned());
                } else if index != last {
                    self.wrong(&here, "`route` is not the last step").hint =
                        Some("move it to the end: after it a message is on its way to its targets".to_owned());
                }
            }
            steps.extend(self.step(pipeline, &here, step));
        }
        steps
    }

    fn step(&mut self, pipeline: &str, here: &str, step: &StepSection) -> Option<StepConfig> {
        let plugin_of = |kind: &str| join(&join(here, kind), "plugin");
        match step {
            StepSection::Validate(step) => {
                let schema = self.schema(&join(&join(here, "validate"), "schema"), &step.schema)?;
                Some(StepConfig::Validate { schema })
            }
            StepSection::Filter(step) => {
                let plugin = self.plugin(&plugin_of("filter"), &step.plugin)?;
                Some(StepConfig::Filter { plugin, config: configured(step.config.as_ref()) })
            }
            StepSection::Transform(step) => {
                let plugin = self.plugin(&plugin_of("transform"), &step.plugin)?;
                Some(StepConfig::Transform { plugin, config: configured(step.config.as_ref()) })
            }
            StepSection::Route(step) => {
                let unroutable = self.unroutable(pipeline, &join(&join(here, "route"), "unroutable"), step);
                let plugin = self.plugin(&plugin_of("route"), &step.plugin)?;
                Some(StepConfig::Route { plugin, config: configured(step.config.as_ref()), unroutable })
            }
        }
    }

    fn unroutable(&mut self, pipeline: &str, pointer: &str, step: &RouteSection) -> Unroutable {
        match step.unroutable.as_str() {
            "dead_letter" => Unroutable::DeadLetter,
            "drop" => Unroutable::Drop,
            target => {
                let targets = self.target_names(pipeline);
                if !targets.iter().any(|name| name == target) {
                    let targets = targets.iter().map(String::as_str);
                    let known: Vec<&str> = ["dead_letter", "drop"].into_iter().chain(targets).collect();
                    self.unknown(pointer, "target", target, &known, "write dead_letter, drop or the name of a target");
                }
                Unroutable::Target(target.into())
            }
        }
    }

    /// All names of a pipeline's targets, also of those that did not fit their shape.
    fn target_names(&self, pipeline: &str) -> Vec<String> {
        let targets = self.root.find(&join(pipeline, "targets")).map(Node::entries).unwrap_or_default();
        targets.iter().map(|target| target.key.clone()).collect()
    }

    /// What the connectors themselves find wrong.
    fn connectors(&mut self, pointer: &str, section: &PipelineSection) {
        let source = join(&join(pointer, "source"), section.source.system());
        self.problems(&source, section.source.problems());
        if let Some(dead_letter) = &section.dead_letter {
            let place = join(&join(pointer, "dead_letter"), dead_letter.system());
            self.problems(&place, dead_letter.problems(&section.source));
        }
        let targets = join(pointer, "targets");
        if self.target_names(pointer).is_empty() {
            self.wrong(&targets, "there is no target").hint =
                Some("name at least one: `targets: { out: { file: { path: out.jsonl } } }`".to_owned());
        }
        for (name, target) in section.targets.iter() {
            self.problems(&join(&join(&targets, name), target.system()), target.problems());
            if matches!(name, "dead_letter" | "drop") {
                self.wrong(&join(&targets, name), format!("a target cannot be called `{name}`")).hint =
                    Some("the word has a meaning of its own after `unroutable:`".to_owned());
            }
        }
    }

    pub(super) fn problems(&mut self, connector: &str, problems: Vec<Problem>) {
        for problem in problems {
            self.wrong(&format!("{connector}{}", problem.pointer), problem.text).hint = problem.hint;
        }
    }

    fn retry(&mut self, pointer: &str, retry: &RetrySection) -> RetryPolicy {
        let initial_delay = self.span(&join(pointer, "initial_delay"), retry.initial_delay, ("1ms", "1h"));
        let max_delay = self.span(&join(pointer, "max_delay"), retry.max_delay, ("1ms", "1d"));
        if initial_delay > max_delay {
            self.wrong(&join(pointer, "max_delay"), "`max_delay` is shorter than `initial_delay`").hint =
                Some("make it at least as long".to_owned());
        }
        let max_age = retry.max_age.map(|age| self.span(&join(pointer, "max_age"), age, ("1s", "365d")));
        RetryPolicy {
            max_attempts: retry.max_attempts,
            initial_delay,
            max_delay,
            factor: retry.factor,
            max_age,
            on_exhausted: match retry.on_exhausted {
                ExhaustedSection::DeadLetter => Exhausted::DeadLetter,
                ExhaustedSection::Drop => Exhausted::Drop,
            },
        }
    }

    fn order(&mut self, pointer: &str, section: &PipelineSection) -> Order {
        match (section.order_by, section.on_key_failure) {
            (OrderSection::None, None) => Order::None,
            (OrderSection::None, Some(_)) => {
                self.wrong(&join(pointer, "on_key_failure"), "`on_key_failure` without `order_by: key`").hint =
                    Some("add `order_by: key`, or remove it".to_owned());
                Order::None
            }
            (OrderSection::Key, None | Some(KeyFailureSection::Park)) => Order::Key(OnKeyFailure::Park),
            (OrderSection::Key, Some(KeyFailureSection::Skip)) => Order::Key(OnKeyFailure::Skip),
        }
    }

    /// Two sources cannot listen on one path.
    fn http_paths(&mut self) {
        let mut first: HashMap<String, String> = HashMap::new();
        for pipeline in self.defined("pipelines") {
            let pointer = format!("{}/source/http/path", join("/pipelines", &pipeline));
            let Some(path) = self.root.find(&pointer).and_then(Node::text) else { continue };
            let path = path.trim_end_matches('/').to_owned();
            match first.get(&path) {
                None => drop(first.insert(path, pointer)),
                Some(other) => {
                    let place = self.root.place(other);
                    let text = format!("another pipeline listens on `{path}` already");
                    self.wrong(&pointer, text).related = Some(Box::new((place, "the other one".to_owned())));
                }
            }
        }
    }

    /// Two targets that write one file would tear each other's lines; a pipeline that reads what it writes never ends.
    fn files(&mut self) {
        let mut written: HashMap<PathBuf, String> = HashMap::new();
        let mut read: Vec<(PathBuf, String)> = Vec::new();
        for pipeline in self.root.get("pipelines").map(Node::entries).unwrap_or_default() {
            let pointer = join("/pipelines", &pipeline.key);
            let base = (self.base_of)(pipeline.key_at);
            let path_at = |pointer: &str| {
                self.root.find(pointer).and_then(Node::text).map(|path| absolute(&base, Path::new(path)))
            };
            let source = format!("{pointer}/source/file/path");
            read.extend(path_at(&source).map(|path| (path, source)));
            let mut twice = Vec::new();
            for target in pipeline.value.get("targets").map(Node::entries).unwrap_or_default() {
                let target = format!("{}/file/path", join(&join(&pointer, "targets"), &target.key));
                let Some(path) = path_at(&target) else { continue };
                match written.get(&path) {
                    None => drop(written.insert(path, target)),
                    Some(other) => twice.push((target, self.root.place(other))),
                }
            }
            for (target, other) in twice {
                let mistake = self.wrong(&target, "another target writes this file already");
                mistake.related = Some(Box::new((other, "the other one".to_owned())));
                mistake.hint = Some("give each target a file of its own".to_owned());
            }
        }
        for (path, source) in read {
            if let Some(place) = written.get(&path).map(|target| self.root.place(target)) {
                let mistake = self.wrong(&source, "a target writes the file that is read here, so it would never end");
                mistake.related = Some(Box::new((place, "the target".to_owned())));
            }
        }
    }

    fn fingerprint(&self, pointer: &str, base_dir: &Path, section: &PipelineSection, steps: &[StepConfig]) -> String {
        let mut digest = Sha256::new();
        let written = self.root.find(pointer).map(Node::to_json).unwrap_or_default();
        digest.update(format!("{pointer}\0{}\0{written}", base_dir.display()));
        for queue in queues_of(section) {
            let declared = self.root.find(&join("/queues", queue)).map(Node::to_json).unwrap_or_default();
            // What it leaves out.
            let defaults = self.root.find("/queue_defaults").map(Node::to_json).unwrap_or_default();
            digest.update(format!("\0queue {queue} {declared} {defaults}"));
        }
        for step in steps {
            match step {
                StepConfig::Validate { schema } => {
                    digest.update(format!("\0schema {} {}", schema.name, schema.document));
                    if refers_elsewhere(&schema.document) {
                        for other in &self.schemas {
                            digest.update(format!("\0schema {} {}", other.name, other.document));
                        }
                    }
                }
                StepConfig::Filter { plugin, .. }
                | StepConfig::Transform { plugin, .. }
                | StepConfig::Route { plugin, .. } => digest.update(identity(plugin)),
            }
        }
        hex(&digest.finalize())
    }
}

/// Names of the queues it reads and writes.
fn queues_of(section: &PipelineSection) -> impl Iterator<Item = &str> {
    let source = match &section.source {
        SourceConfig::Queue(queue) => Some(queue.name.as_str()),
        SourceConfig::Http(_)
        | SourceConfig::Rabbitmq(_)
        | SourceConfig::Redis(_)
        | SourceConfig::File(_)
        | SourceConfig::Stdio(_)
        | SourceConfig::Generate(_) => None,
    };
    let targets = section.targets.iter().filter_map(|(_, target)| match target {
        TargetConfig::Queue(queue) => Some(queue.name.as_str()),
        TargetConfig::Http(_)
        | TargetConfig::Rabbitmq(_)
        | TargetConfig::Redis(_)
        | TargetConfig::File(_)
        | TargetConfig::Stdio(_) => None,
    });
    source.into_iter().chain(targets)
}

fn configured(config: Option<&Value>) -> Value {
    config.cloned().unwrap_or_else(|| json!({}))
}

fn identity(plugin: &Arc<PluginConfig>) -> String {
    let component = match &plugin.component {
        ComponentConfig::Builtin(name) => format!("builtin {name}"),
        ComponentConfig::File { sha256, .. } => format!("sha256 {sha256}"),
    };
    format!(
        "\0plugin {} {component} {:?} {:?} {:?}",
        plugin.name, plugin.pinned_sha256, plugin.isolation, plugin.limits
    )
}
