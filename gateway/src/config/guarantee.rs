//! What a pipeline promises, derived from what its source and its targets promise.

use std::time::Duration;

use sluicegate_connectors::registry::{Problem, Promise};
use sluicegate_engine::pipeline::{OnKeyFailure, Order};
use sluicegate_engine::retry::Exhausted;
use sluicegate_engine::step::Unroutable;

use super::diagnostic::Diagnostic;
use super::loading::Loaded;
use super::resolved::{PipelineConfig, ServerConfig, StepConfig};
use super::tree::join;

/// What a pipeline promises, and why.
#[derive(Debug, Clone)]
pub struct Guarantee {
    /// Whether every message that the source accepted reaches its targets or the dead letters, whatever crashes.
    pub at_least_once: bool,
    /// The source.
    pub source: End,
    /// The targets, in the order written.
    pub targets: Vec<End>,
    /// Whether and when a message can arrive twice.
    pub duplicates: &'static str,
    /// Which order is kept.
    pub order: &'static str,
    /// Settings that are legal but unsafe, with their places.
    pub warnings: Vec<Diagnostic>,
}

/// One end of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `source`, or the target's name.
    pub name: String,
    /// The system, such as `rabbitmq`.
    pub system: &'static str,
    /// Whether messages survive a crash at this end.
    pub at_least_once: bool,
    /// Why.
    pub because: String,
}

/// Derives what a pipeline promises. No I/O: it is what the configuration says, not what a server is set to.
pub fn guarantee(loaded: &Loaded, pipeline: &PipelineConfig) -> Guarantee {
    let pointer = join("/pipelines", pipeline.written_name());
    let queues = &*loaded.config.queues;
    let mut warnings = Vec::new();
    let mut end = |name: &str, system: &'static str, place: &str, promise: Promise| {
        let place = join(place, system);
        warnings.extend(promise.warnings.into_iter().map(|warning| connector_warning(loaded, &place, warning)));
        End { name: name.to_owned(), system, at_least_once: promise.at_least_once, because: promise.because }
    };
    let source = end("source", pipeline.source.system(), &join(&pointer, "source"), pipeline.source.promise(queues));
    let targets: Vec<End> = pipeline
        .targets
        .iter()
        .map(|(name, target)| {
            end(name, target.system(), &join(&join(&pointer, "targets"), name), target.promise(queues))
        })
        .collect();
    if let Some(dead_letter) = &pipeline.dead_letter {
        let place = join(&join(&pointer, "dead_letter"), dead_letter.system());
        let risks = dead_letter.promise().warnings.into_iter();
        warnings.extend(risks.map(|warning| connector_warning(loaded, &place, warning)));
    }
    warnings.extend(own_warnings(loaded, &pointer, pipeline));
    let at_least_once = source.at_least_once && targets.iter().all(|target| target.at_least_once);
    Guarantee {
        at_least_once,
        source,
        targets,
        duplicates: "possible after a crash or a lost connection, with the same id",
        order: match pipeline.order {
            Order::None => "none: messages overtake each other",
            Order::Key(OnKeyFailure::Park) => "by key; a key whose message fails waits",
            Order::Key(OnKeyFailure::Skip) => "by key; a message that fails is skipped to the dead letters",
        },
        warnings,
    }
}

fn connector_warning(loaded: &Loaded, connector: &str, warning: Problem) -> Diagnostic {
    let mut diagnostic = loaded.mistake(&format!("{connector}{}", warning.pointer), warning.text).warning();
    diagnostic.hint = warning.hint;
    diagnostic
}

fn own_warnings(loaded: &Loaded, pointer: &str, pipeline: &PipelineConfig) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut warn = |at: &str, text: String, hint: &str| {
        warnings.push(loaded.mistake(&format!("{pointer}{at}"), text).hint(hint).warning());
    };
    if pipeline.retry.on_exhausted == Exhausted::Drop {
        let text = "messages whose tries are used up are lost".to_owned();
        warn("/retry/on_exhausted", text, "leave it out to keep them as dead letters");
    }
    let ServerConfig { drain_timeout, .. } = loaded.config.server;
    if let Some(timeout) = pipeline.handler_timeout.filter(|timeout| *timeout > drain_timeout) {
        let text = format!("a step may take {timeout:?}, longer than the {drain_timeout:?} that a shutdown waits");
        warn("/handler_timeout", text, "shorten it, or lengthen `server.drain_timeout`");
    }
    for (index, step) in pipeline.steps.iter().enumerate() {
        let at = format!("/steps/{index}/{}", step.kind());
        if let StepConfig::Route { unroutable: Unroutable::Drop, .. } = step {
            let hint = "write `unroutable: dead_letter` to keep them";
            warn(&format!("{at}/unroutable"), "messages without a route are dropped".to_owned(), hint);
        }
        let cpu = step.plugin().map(|(plugin, _)| plugin.limits.cpu);
        if let (Some(timeout), Some(cpu)) = (pipeline.handler_timeout, cpu)
            && timeout < cpu
        {
            let text = format!("`handler_timeout` ({timeout:?}) ends this step before its CPU limit ({cpu:?}) does");
            warn(&format!("{at}/plugin"), text, "lengthen `handler_timeout`, or lower the plugin's `limits.cpu`");
        }
    }
    if pipeline.retry.max_age.is_some_and(|age| age < longest_retrying(pipeline)) {
        let text = "`max_age` ends the tries before `max_attempts` may".to_owned();
        warn("/retry/max_age", text, "lengthen `max_age`, or lower `max_attempts`");
    }
    warnings
}

/// How long all waits together may be.
fn longest_retrying(pipeline: &PipelineConfig) -> Duration {
    let waits = pipeline.retry.max_attempts.saturating_sub(1);
    (1..=waits).fold(Duration::ZERO, |sum, attempt| sum.saturating_add(pipeline.retry.ceiling(attempt)))
}

#[cfg(test)]
mod tests {
    use sluicegate_connectors::queue::Declarations;

    use super::*;
    use crate::config::in_memory::load_text;

    #[test]
    fn unsafe_settings_are_warned_of_at_their_places() {
        let loaded = load_text(
            "pipelines:
  p:
    source: { stdio: {} }
    steps: [ route: { plugin: jq, unroutable: drop } ]
    targets: { out: { stdio: {} } }
    handler_timeout: 10ms
    retry: { on_exhausted: drop, max_age: 2s }
  q:
    source: { stdio: {} }
    targets: { out: { stdio: {} } }
    handler_timeout: 5m
",
        )
        .unwrap_or_else(|wrong| panic!("{wrong}"));
        let warnings = |name: &str| -> Vec<(u32, String)> {
            let guarantee = guarantee(&loaded, loaded.config.pipeline(name).expect("pipeline"));
            let own = |d: &&Diagnostic| !d.path.contains("stdio");
            let said = |d: &Diagnostic| (d.location.expect("place").line, d.path.clone());
            guarantee.warnings.iter().filter(own).map(said).collect()
        };
        assert_eq!(
            warnings("p"),
            [
                (7, "pipelines.p.retry.on_exhausted".to_owned()),
                (4, "pipelines.p.steps[0].route.unroutable".to_owned()),
                (4, "pipelines.p.steps[0].route.plugin".to_owned()),
                (7, "pipelines.p.retry.max_age".to_owned()),
            ]
        );
        assert_eq!(warnings("q"), [(11, "pipelines.q.handler_timeout".to_owned())]);
    }

    #[test]
    fn a_pipeline_is_as_safe_as_its_least_safe_end() {
        let text = |max_len: &str| {
            format!(
                "pipelines:\n  p:\n    source: {{ redis: {{ url: 'redis://localhost', stream: a }} }}\n    \
                 targets: {{ out: {{ redis: {{ url: 'redis://localhost', stream: b{max_len} }} }}, \
                 again: {{ stdio: {{}} }} }}\n"
            )
        };
        let loaded = load_text(&text("")).unwrap_or_else(|wrong| panic!("{wrong}"));
        let pipeline = loaded.config.pipeline("p").expect("pipeline");
        let guarantee = guarantee(&loaded, pipeline);
        let queues = Declarations::new();
        let ends = [
            pipeline.source.promise(&queues).at_least_once,
            pipeline.targets.iter().all(|t| t.1.promise(&queues).at_least_once),
        ];
        assert_eq!(guarantee.at_least_once, ends == [true, true]);
        assert_eq!(
            guarantee.targets.iter().map(|t| (&*t.name, t.system)).collect::<Vec<_>>(),
            [("out", "redis"), ("again", "stdio")]
        );
    }
}
