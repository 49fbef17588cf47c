//! What calls cost: metrics for operators, and measurements of single calls for plugin authors.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use sluicegate_engine::failure::StepFailure;
use sluicegate_engine::message::Message;
use sluicegate_engine::step::{Destination, Verdict};

use crate::component::Role;

/// One call, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// What came of it.
    pub outcome: Result<Outcome, StepFailure>,
    /// From asking for an instance to having the answer.
    pub wall: Duration,
    /// Memory of the instance at the end, which is also its peak, over all its memories and tables.
    pub peak_memory_bytes: u64,
    /// Log lines past the limit.
    pub log_lines_dropped: u64,
}

/// A role's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A filter's.
    Verdict(Verdict),
    /// A transform's; none means the message is dropped.
    Messages(Vec<Message>),
    /// A router's; none means unroutable.
    Destinations(Vec<Destination>),
}

/// What a call used, besides time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub peak_memory_bytes: u64,
    pub log_lines_dropped: u64,
}

/// Handles on the metrics of one role of one plugin.
pub(crate) struct RoleMetrics {
    pub calls: Counter,
    pub duration: Histogram,
}

/// Handles on the metrics of one plugin. Labels come from configuration and closed sets, never from guests.
pub(crate) struct PluginMetrics {
    plugin: Arc<str>,
    instances: Gauge,
    log_lines_dropped: Counter,
}

impl PluginMetrics {
    pub fn new(plugin: &Arc<str>) -> Self {
        Self {
            plugin: Arc::clone(plugin),
            instances: metrics::gauge!("sluicegate_plugin_instances", "plugin" => Arc::clone(plugin)),
            log_lines_dropped: metrics::counter!(
                "sluicegate_plugin_log_lines_dropped_total", "plugin" => Arc::clone(plugin)
            ),
        }
    }

    pub fn of_role(&self, role: Role) -> RoleMetrics {
        RoleMetrics {
            calls: metrics::counter!(
                "sluicegate_plugin_calls_total", "plugin" => Arc::clone(&self.plugin), "role" => role.name()
            ),
            duration: metrics::histogram!(
                "sluicegate_plugin_call_duration_seconds",
                "plugin" => Arc::clone(&self.plugin), "role" => role.name()
            ),
        }
    }

    /// Counts an instance for as long as the answer lives.
    pub fn count_instance(&self) -> Counted {
        self.instances.increment(1.0);
        Counted(self.instances.clone())
    }

    pub fn failed(&self, failure: &StepFailure) {
        metrics::counter!(
            "sluicegate_plugin_failures_total",
            "plugin" => Arc::clone(&self.plugin), "class" => failure.class().name()
        )
        .increment(1);
    }

    pub fn dropped_log_lines(&self, count: u64) {
        if count > 0 {
            self.log_lines_dropped.increment(count);
        }
    }
}

/// An instance that is counted.
pub(crate) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
