//! Metrics of plugins: declared names, kinds, labels and values, so that no guest decides what `/metrics` comes to.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::Label;
use sluicegate_plugin_host::{MetricValue, MetricsAccess};

use crate::config::{MetricConfig, MetricKind};

/// What a value that was not declared counts as.
const OTHER: &str = "other";

/// One plugin's metrics.
#[derive(Debug)]
pub struct DeclaredMetrics {
    plugin: Arc<str>,
    by_name: HashMap<String, Declared>,
    counts: bool,
}

#[derive(Debug)]
struct Declared {
    kind: MetricKind,
    /// At `/metrics`. The kind is part of it, so that no two plugins disagree on what a name is.
    full_name: Arc<str>,
    labels: Vec<(String, Vec<String>)>,
}

impl DeclaredMetrics {
    /// As declared; records nothing unless it `counts`.
    pub fn new(plugin: &Arc<str>, metrics: &[MetricConfig], counts: bool) -> Self {
        let declared = |metric: &MetricConfig| {
            let full_name: Arc<str> = format!("sluicegate_plugin_{}_{}", kind_name(metric.kind), metric.name).into();
            (metric.name.clone(), Declared { kind: metric.kind, full_name, labels: metric.labels.clone() })
        };
        Self { plugin: Arc::clone(plugin), by_name: metrics.iter().map(declared).collect(), counts }
    }
}

impl Declared {
    /// All labels, in the order declared.
    fn labels(&self, plugin: &Arc<str>, given: &[(String, String)]) -> Result<Vec<Label>, String> {
        if let Some((unknown, _)) = given.iter().find(|(name, _)| self.labels.iter().all(|(known, _)| known != name)) {
            return Err(format!("no label `{unknown}` is declared for it"));
        }
        let mut labels = vec![Label::new("plugin", Arc::clone(plugin))];
        for (name, values) in &self.labels {
            let value = given
                .iter()
                .find(|(known, _)| known == name)
                .map_or("", |(_, value)| values.iter().find(|known| *known == value).map_or(OTHER, String::as_str));
            labels.push(Label::new(name.clone(), value.to_owned()));
        }
        Ok(labels)
    }
}

impl MetricsAccess for DeclaredMetrics {
    fn record(&self, name: &str, labels: &[(String, String)], value: MetricValue) -> Result<(), String> {
        let declared = self.by_name.get(name).ok_or_else(|| format!("no metric `{name}` is declared"))?;
        let kind = match value {
            MetricValue::Counter(_) => MetricKind::Counter,
            MetricValue::Gauge(_) => MetricKind::Gauge,
            MetricValue::Histogram(_) => MetricKind::Histogram,
        };
        if kind != declared.kind {
            let declared = kind_name(declared.kind);
            return Err(format!("the metric `{name}` is declared as a {declared}, not a {}", kind_name(kind)));
        }
        let labels = declared.labels(&self.plugin, labels).map_err(|why| format!("metric `{name}`: {why}"))?;
        if !self.counts {
            return Ok(());
        }
        let name = Arc::clone(&declared.full_name);
        match value {
            MetricValue::Counter(value) => metrics::counter!(name, labels).increment(value),
            MetricValue::Gauge(value) => metrics::gauge!(name, labels).set(value),
            MetricValue::Histogram(value) => metrics::histogram!(name, labels).record(value),
        }
        Ok(())
    }
}

fn kind_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn declared() -> DeclaredMetrics {
        let metric = |name: &str, kind| MetricConfig {
            name: name.to_owned(),
            kind,
            labels: vec![("outcome".to_owned(), vec!["hit".to_owned(), "miss".to_owned()])],
        };
        let metrics = [metric("lookups_total", MetricKind::Counter), metric("level", MetricKind::Gauge)];
        DeclaredMetrics::new(&"enrich".into(), &metrics, true)
    }

    #[test]
    fn thousands_of_label_values_make_one_series_more() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let rendered = metrics::with_local_recorder(&recorder, || {
            let metrics = declared();
            for number in 0..5_000 {
                let labels = [pair("outcome", &format!("value-{number}"))];
                metrics.record("lookups_total", &labels, MetricValue::Counter(1)).expect("counts as other");
            }
            metrics.record("lookups_total", &[pair("outcome", "hit")], MetricValue::Counter(2)).expect("declared");
            metrics.record("lookups_total", &[], MetricValue::Counter(3)).expect("without its label");
            recorder.handle().render()
        });
        let series: Vec<&str> = rendered.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert_eq!(series.len(), 3, "{rendered}");
        let other = "sluicegate_plugin_counter_lookups_total{plugin=\"enrich\",outcome=\"other\"} 5000";
        assert!(series.contains(&other), "{rendered}");
    }

    #[test]
    fn what_is_not_declared_is_refused_by_name() {
        let metrics = declared();
        let refused = |name: &str, labels: &[(String, String)], value| {
            metrics.record(name, labels, value).expect_err("not declared")
        };
        assert!(refused("nothing", &[], MetricValue::Counter(1)).contains("`nothing`"));
        assert!(refused("level", &[], MetricValue::Counter(1)).contains("declared as a gauge, not a counter"));
        assert!(refused("level", &[pair("other", "x")], MetricValue::Gauge(1.0)).contains("label `other`"));
    }
}
