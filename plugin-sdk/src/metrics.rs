//! Metrics of the plugin's own, of declared names and labels:
//! `grants: { metrics: { lookups_total: { kind: counter, labels: { outcome: [hit, miss] } } } }`.
//!
//! A label's value that is not declared counts as `other`. A message has 256 calls. None of it can be used in `configure`.
//! A metric that cannot be recorded is seldom a reason to fail a message, so most plugins ignore the answer.
//!
//! ```
//! use sluicegate_plugin::metrics;
//!
//! metrics::count("lookups_total", &[("outcome", "hit")], 1).ok();
//! metrics::record("answer_seconds", &[], 0.25).ok();
//! # #[cfg(not(target_family = "wasm"))]
//! assert_eq!(metrics::captured()[0].name, "lookups_total");
//! ```

pub use crate::contract::metrics::Error;

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Adds to a counter.
///
/// # Errors
/// It is not declared so, or the message has used up its calls.
pub fn count(name: &str, labels: &[(&str, &str)], value: u64) -> Result<(), Error> {
    #[cfg(target_family = "wasm")]
    return crate::contract::metrics::counter_add(name, &owned(labels), value);
    #[cfg(not(target_family = "wasm"))]
    return capture::push(name, owned(labels), Value::Counter(value));
}

/// Sets a gauge.
///
/// # Errors
/// As of [`count`], or the value is not finite.
pub fn set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Error> {
    #[cfg(target_family = "wasm")]
    return crate::contract::metrics::gauge_set(name, &owned(labels), value);
    #[cfg(not(target_family = "wasm"))]
    return capture::push(name, owned(labels), Value::Gauge(value));
}

/// Records a value in a histogram.
///
/// # Errors
/// As of [`set`].
pub fn record(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Error> {
    #[cfg(target_family = "wasm")]
    return crate::contract::metrics::histogram_record(name, &owned(labels), value);
    #[cfg(not(target_family = "wasm"))]
    return capture::push(name, owned(labels), Value::Histogram(value));
}

#[cfg(not(target_family = "wasm"))]
pub use capture::{Recorded, Value, captured};

#[cfg(not(target_family = "wasm"))]
mod capture {
    use std::cell::RefCell;

    use super::Error;

    /// What a plugin recorded.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Recorded {
        /// The metric.
        pub name: String,
        /// As given.
        pub labels: Vec<(String, String)>,
        /// As given.
        pub value: Value,
    }

    /// A value of its kind.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub enum Value {
        /// Added to a counter.
        Counter(u64),
        /// Set as a gauge.
        Gauge(f64),
        /// Recorded in a histogram.
        Histogram(f64),
    }

    thread_local! {
        static RECORDED: RefCell<Vec<Recorded>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn push(name: &str, labels: Vec<(String, String)>, value: Value) -> Result<(), Error> {
        RECORDED.with_borrow_mut(|all| all.push(Recorded { name: name.to_owned(), labels, value }));
        Ok(())
    }

    /// Takes what this thread has recorded since the last call.
    #[must_use]
    pub fn captured() -> Vec<Recorded> {
        RECORDED.take()
    }
}
