//! The capability `metrics`.

use super::bindings::sluicegate::metrics::recording::{Error, Host};
use super::call::{Refusal, TOLD_BYTES};
use super::{Capability, MetricValue};
use crate::state::State;
use crate::text::tame;

/// Most labels of one value.
const MAX_LABELS: usize = 16;

impl Host for State {
    async fn counter_add(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: u64,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.record(&name, &labels, MetricValue::Counter(value)))
    }

    async fn gauge_set(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.record(&name, &labels, MetricValue::Gauge(value)))
    }

    async fn histogram_record(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        value: f64,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.record(&name, &labels, MetricValue::Histogram(value)))
    }
}

impl State {
    fn record(&mut self, name: &str, labels: &[(String, String)], value: MetricValue) -> Result<(), Error> {
        let recorded = self.try_record(name, labels, value);
        // Those that succeed are counted by what they record.
        if recorded.is_err() {
            self.count_call(Capability::Metrics, "refused");
        }
        recorded
    }

    fn try_record(&mut self, name: &str, labels: &[(String, String)], value: MetricValue) -> Result<(), Error> {
        let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let grants = self.admit(Capability::Metrics, name.len() + bytes)?;
        let metrics = grants.metrics.as_ref().ok_or(Error::TooEarly)?;
        if labels.len() > MAX_LABELS {
            return Err(Error::Invalid(format!("a value has at most {MAX_LABELS} labels")));
        }
        match value {
            MetricValue::Gauge(number) | MetricValue::Histogram(number) if !number.is_finite() => {
                return Err(Error::Invalid("the number is not finite".to_owned()));
            }
            MetricValue::Counter(_) | MetricValue::Gauge(_) | MetricValue::Histogram(_) => {}
        }
        metrics.record(name, labels, value).map_err(|text| Error::Invalid(tame(&text, TOLD_BYTES)))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooEarly => Self::TooEarly,
            Refusal::Limit(_) => Self::Limit,
        }
    }
}
