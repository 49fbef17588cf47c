//! What is to be seen of a pipeline, whatever draws it. Never a secret: of a connector only where it reads or writes.

use sluicegate_engine::pipeline::Order;
use sluicegate_engine::retry::Exhausted;
use sluicegate_engine::step::Unroutable;

use crate::config::{Loaded, Node, PipelineConfig, StepConfig};

/// Longest text in a box, in characters.
const MAX_LABEL_CHARS: usize = 40;

/// Keys that say where a connector reads or writes, the most telling first.
const WHERE: [&str; 7] = ["path", "queue", "stream", "exchange", "topic", "name", "url"];

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) source: Label,
    pub(super) steps: Vec<PictureStep>,
    pub(super) targets: Vec<Label>,
    /// The last step chooses among the targets; otherwise a message goes to all.
    pub(super) routed: bool,
    /// Place of the target for messages without a route.
    pub(super) unroutable_to: Option<usize>,
    /// Where dead letters go; `None` if tries that are used up end in nothing and no step makes any.
    pub(super) dead_letters: Label,
    /// Whether targets give up into the dead letters.
    pub(super) targets_dead_letter: bool,
}

/// A box: what it is, and more about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) title: String,
    pub(super) detail: String,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PictureStep {
    pub(super) label: Label,
    /// Why its messages become dead letters.
    pub(super) dead_letter: &'static str,
}

impl Label {
    fn new(title: &str, detail: &str) -> Self {
        Self { title: short(title), detail: short(detail) }
    }
}

impl Picture {
    pub(super) fn of(loaded: &Loaded, pipeline: &PipelineConfig) -> Self {
        let node = loaded.root().get("pipelines").and_then(|pipelines| pipelines.get(&pipeline.name));
        let source = node.and_then(|node| node.get("source"));
        let targets = node.and_then(|node| node.get("targets"));
        let mut unroutable_to = None;
        let steps = pipeline.steps.iter().map(|step| {
            if let StepConfig::Route { unroutable: Unroutable::Target(target), .. } = step {
                unroutable_to = pipeline.targets.iter().position(|(name, _)| name == target);
            }
            PictureStep { label: Label::new(step.kind(), step.subject()), dead_letter: dead_letter(step) }
        });
        let steps: Vec<PictureStep> = steps.collect();
        let ordered = if pipeline.order == Order::None { "" } else { " (by key)" };
        Self {
            name: format!("{}{ordered}", pipeline.name),
            source: Label::new(pipeline.source.system(), &place(source, pipeline.source.system())),
            routed: matches!(pipeline.steps.last(), Some(StepConfig::Route { .. })),
            unroutable_to,
            targets: pipeline
                .targets
                .iter()
                .map(|(name, target)| {
                    let place = place(targets.and_then(|targets| targets.get(name)), target.system());
                    Label::new(name, format!("{} {place}", target.system()).trim_end())
                })
                .collect(),
            dead_letters: Label::new("dead letters", &letters(node, pipeline)),
            targets_dead_letter: pipeline.retry.on_exhausted == Exhausted::DeadLetter,
            steps,
        }
    }
}

fn dead_letter(step: &StepConfig) -> &'static str {
    match step {
        StepConfig::Validate { .. } => "invalid",
        StepConfig::Filter { .. } | StepConfig::Transform { .. } => "failed",
        StepConfig::Route { unroutable: Unroutable::DeadLetter, .. } => "unroutable",
        StepConfig::Route { unroutable: Unroutable::Drop | Unroutable::Target(_), .. } => "failed",
    }
}

fn letters(node: Option<&Node>, pipeline: &PipelineConfig) -> String {
    match &pipeline.dead_letter {
        None => "store".to_owned(),
        Some(broker) => {
            let place = place(node.and_then(|node| node.get("dead_letter")), broker.system());
            format!("store, {} {place}", broker.system())
        }
    }
}

/// Where the connector below `node` reads or writes, as written.
fn place(node: Option<&Node>, system: &str) -> String {
    let Some(settings) = node.and_then(|node| node.get(system)) else { return String::new() };
    // A queue may be its name alone.
    if let Some(name) = settings.text() {
        return if settings.was_filled() { "${…}".to_owned() } else { name.to_owned() };
    }
    for key in WHERE {
        let value = settings.get(key);
        // An exchange may be a name, or a mapping with a name.
        let value = value.and_then(|value| if value.text().is_some() { Some(value) } else { value.get("name") });
        let Some(value) = value else { continue };
        if value.was_filled() {
            return "${…}".to_owned();
        }
        let text = value.text().unwrap_or_default();
        return if key == "url" { host(text) } else { text.to_owned() };
    }
    String::new()
}

/// The host of a URL; the rest may hold credentials.
fn host(url: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

fn short(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match plain.char_indices().nth(MAX_LABEL_CHARS) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_a_url_is_shown() {
        assert_eq!(host("amqp://me:secret@broker:5672/vhost?token=x"), "broker:5672");
        assert_eq!(host("https://example.com?token=x"), "example.com");
        assert_eq!(host("x"), "x");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(short(&"é".repeat(50)).chars().count(), MAX_LABEL_CHARS + 1);
        assert_eq!(short("a\nb"), "a b");
    }
}
