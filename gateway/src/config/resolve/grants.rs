//! Grants of plugins: limits, hosts, names.

use sluicegate_connectors::http::outgoing::{AllowedHost, OutgoingConfig};
use sluicegate_connectors::quantity::{Secret, Size};

use super::{Resolver, is_name};
use crate::config::entries::Entries;
use crate::config::grants::{GrantsConfig, MetricConfig};
use crate::config::tree::join;
use crate::config::written::{GrantsSection, HttpGrantSection, MetricSection};

/// Least and most state of a plugin, in bytes.
const STATE_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 30;
/// Longest body of a response, in bytes: within what a message's host calls may hand over.
const RESPONSE_BYTES: std::ops::RangeInclusive<u64> = 1..=2 << 20;
/// Most secrets and most metrics of a plugin.
const MAX_ENTRIES: usize = 32;
/// Longest secret, in bytes.
const MAX_SECRET_BYTES: usize = 64 << 10;
/// Most values of a label.
const MAX_LABEL_VALUES: usize = 100;
/// Most time series that one plugin's metrics can come to.
const MAX_SERIES: usize = 1_000;
/// Longest name of a metric or label, and longest value of a label, in characters.
const MAX_LABEL_CHARS: usize = 64;
/// Labels that the gateway and Prometheus set themselves.
const RESERVED_LABELS: [&str; 3] = ["plugin", "le", "quantile"];

impl Resolver<'_> {
    pub(super) fn grants(&mut self, pointer: &str, section: &GrantsSection) -> GrantsConfig {
        let state_bytes = section
            .state
            .as_ref()
            .map(|state| self.size(&join(&join(pointer, "state"), "max"), state.max, STATE_BYTES, "1KiB to 1GiB"));
        let http = section.http.as_ref().map(|http| self.outgoing(&join(pointer, "http"), http));
        let secrets = self.secrets(&join(pointer, "secrets"), &section.secrets);
        let metrics = self.metrics(&join(pointer, "metrics"), &section.metrics);
        GrantsConfig { state_bytes, http, secrets, metrics }
    }

    fn size(&mut self, pointer: &str, size: Size, range: std::ops::RangeInclusive<u64>, hint: &str) -> u64 {
        if !range.contains(&size.0) {
            self.wrong(pointer, "this size is outside its limits").hint = Some(hint.to_owned());
        }
        size.0
    }

    fn outgoing(&mut self, pointer: &str, section: &HttpGrantSection) -> OutgoingConfig {
        let mut hosts = Vec::with_capacity(section.hosts.len());
        for (index, host) in section.hosts.iter().enumerate() {
            match AllowedHost::parse(host) {
                Ok(host) => hosts.push(host),
                Err(why) => {
                    let here = join(&join(pointer, "hosts"), &index.to_string());
                    self.wrong(&here, format!("`{host}` cannot be granted: {why}")).hint = Some(
                        "a host such as api.example.org, *.example.org or http://inside.example.org:9000".to_owned(),
                    );
                }
            }
        }
        let max_response =
            self.size(&join(pointer, "max_response"), section.max_response, RESPONSE_BYTES, "1B to 2MiB");
        OutgoingConfig {
            hosts,
            allow_private: section.allow_private,
            timeout: self.span(&join(pointer, "timeout"), section.timeout, ("10ms", "30s")),
            max_response_bytes: usize::try_from(max_response).unwrap_or(usize::MAX),
            per_second: section.rate.map(|rate| rate.per_second),
        }
    }

    fn secrets(&mut self, pointer: &str, secrets: &Entries<Secret>) -> Vec<(String, Secret)> {
        self.at_most(pointer, secrets.0.len(), "secrets");
        for (name, secret) in secrets.iter() {
            let here = join(pointer, name);
            if !is_name(name) {
                self.wrong(&here, format!("`{name}` cannot be the name of a secret")).hint =
                    Some("a name has at most 64 of a-z, 0-9, `-` and `_`".to_owned());
            }
            if secret.expose().len() > MAX_SECRET_BYTES {
                self.wrong(&here, "the secret is too long").hint = Some("at most 64 KiB".to_owned());
            }
        }
        secrets.0.clone()
    }

    fn metrics(&mut self, pointer: &str, metrics: &Entries<MetricSection>) -> Vec<MetricConfig> {
        self.at_most(pointer, metrics.0.len(), "metrics");
        let mut series = 0_usize;
        for (name, metric) in metrics.iter() {
            let here = join(pointer, name);
            self.metric_name(&here, "a metric", name);
            series = series.saturating_add(self.labels(&join(&here, "labels"), &metric.labels));
        }
        if series > MAX_SERIES {
            self.wrong(pointer, format!("these metrics can come to {series} time series, more than {MAX_SERIES}"))
                .hint =
                Some("declare fewer labels or fewer values; a value that is not declared counts as `other`".to_owned());
        }
        let resolved = |(name, metric): (&str, &MetricSection)| MetricConfig {
            name: name.to_owned(),
            kind: metric.kind,
            labels: metric.labels.0.clone(),
        };
        metrics.iter().map(resolved).collect()
    }

    /// Checks a metric's labels; says how many combinations they have.
    fn labels(&mut self, pointer: &str, labels: &Entries<Vec<String>>) -> usize {
        let mut series = 1_usize;
        for (label, values) in labels.iter() {
            let here = join(pointer, label);
            self.metric_name(&here, "a label", label);
            if RESERVED_LABELS.contains(&label) {
                self.wrong(&here, format!("the label `{label}` is not the plugin's to set")).hint =
                    Some("choose another name".to_owned());
            }
            if values.len() > MAX_LABEL_VALUES || values.iter().any(|value| value.chars().count() > MAX_LABEL_CHARS) {
                self.wrong(&here, "these values are outside their limits").hint =
                    Some(format!("at most {MAX_LABEL_VALUES} values of at most {MAX_LABEL_CHARS} characters"));
            }
            // And `other`, and none.
            series = series.saturating_mul(values.len() + 2);
        }
        series
    }

    fn metric_name(&mut self, pointer: &str, what: &str, name: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        if !begins || !name.chars().all(plain) || name.len() > MAX_LABEL_CHARS {
            self.wrong(pointer, format!("`{name}` cannot be the name of {what}")).hint =
                Some("at most 64 of a-z, 0-9 and `_`, beginning with a letter".to_owned());
        }
    }

    fn at_most(&mut self, pointer: &str, count: usize, what: &str) {
        if count > MAX_ENTRIES {
            self.wrong(pointer, format!("there are {count} {what}")).hint = Some(format!("at most {MAX_ENTRIES}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::in_memory::load_text;

    fn text(grants: &str) -> String {
        format!(
            "plugins:\n  p: {{ builtin: jq, grants: {{ {grants} }} }}\npipelines:\n  p:\n    source: {{ stdio: {{}} }}\n    \
             steps: [ {{ filter: {{ plugin: p, config: {{ program: . }} }} }} ]\n    targets: {{ out: {{ stdio: {{}} }} }}\n"
        )
    }

    fn mistakes(grants: &str) -> String {
        match load_text(&text(grants)) {
            Ok(loaded) => panic!("{:?}", loaded.config.plugins),
            Err(wrong) => wrong.to_string(),
        }
    }

    #[test]
    fn all_that_can_be_granted_is_taken_and_secrets_are_not_shown() {
        let grants = "state: { max: 1MiB }, http: { hosts: [api.example.org, 'http://localhost:9000'], timeout: 2s, \
            max_response: 256KiB, rate: 50/s, allow_private: true }, secrets: { api: hunter2 }, \
            metrics: { lookups_total: { kind: counter, labels: { outcome: [hit, miss] } } }";
        let loaded = load_text(&text(grants)).unwrap_or_else(|wrong| panic!("{wrong}"));
        let plugin = &loaded.config.plugins[0];
        for name in ["state", "http", "secrets", "metrics"] {
            assert!(plugin.grants.has(name), "{name}");
        }
        assert_eq!(plugin.grants.http.as_ref().and_then(|http| http.per_second), Some(50.0));
        assert!(!format!("{:?}", loaded.config).contains("hunter2"));
        let other = load_text(&text(&grants.replace("hunter2", "hunter3"))).unwrap_or_else(|wrong| panic!("{wrong}"));
        let fingerprint = |config: &crate::config::Config| config.pipelines[0].fingerprint().to_owned();
        assert_ne!(fingerprint(&loaded.config), fingerprint(&other.config), "another secret is another plugin");
        let none = load_text(&text("")).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(!none.config.plugins[0].grants.has("state"));
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let said = mistakes(
            "state: { max: 1B }, http: { hosts: ['ftp://a', 'u:hunter2@b'], timeout: 1ms, max_response: 1GiB }, \
             metrics: { Lookups: { kind: counter, labels: { plugin: [a], 'x-y': [b] } } }, secrets: { 'A B': s }",
        );
        for expected in [
            "grants.state.max",
            "`ftp://a` cannot be granted",
            "grants.http.hosts[1]",
            "grants.http.timeout",
            "grants.http.max_response",
            "`Lookups` cannot be the name of a metric",
            "the label `plugin` is not the plugin's to set",
            "`x-y` cannot be the name of a label",
            "cannot be the name of a secret",
        ] {
            assert!(said.contains(expected), "{expected} is not in {said}");
        }
        let said = mistakes("state: { maximum: 1MiB }, files: { a: b }, http: { hosts: [a], rate: often }");
        for expected in ["unknown key `maximum`", "unknown key `files`", "is not a rate"] {
            assert!(said.contains(expected), "{expected} is not in {said}");
        }
    }

    #[test]
    fn metrics_have_an_end() {
        let values: Vec<String> = (0..99).map(|n| format!("v{n}")).collect();
        let values = values.join(", ");
        let said =
            mistakes(&format!("metrics: {{ m: {{ kind: gauge, labels: {{ a: [{values}], b: [{values}] }} }} }}"));
        assert!(said.contains("time series, more than 1000"), "{said}");
    }
}
