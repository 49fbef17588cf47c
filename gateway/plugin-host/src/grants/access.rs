//! What stands behind the capabilities: implemented by the gateway, or by doubles in tests. Whoever implements these need
//! not check what `wit/` says of sizes; the host has done so before it asks.
//!
//! All of it is called for a guest that waits; a call is dropped when its time is over or its message is given up, so each
//! has to be cancel safe: whether a change is made that was dropped may be left open.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Key-value state of one plugin of one tenant.
#[async_trait]
pub trait StateAccess: Send + Sync {
    /// The value, unless there is none or its time is over.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError>;
    /// Changes a value, as one with looking at the present one. On the disk when it returns.
    async fn change(&self, key: &str, change: StateChange) -> Result<StateChanged, StateError>;
}

/// What is to become of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// This value, for so long if given.
    Set(Bytes, Option<Duration>),
    /// No value.
    Delete,
    /// The value (or none) and its time to live, if the present value is the expected one (or none).
    CompareAndSet {
        /// What has to be there.
        expected: Option<Bytes>,
        /// What is to be there.
        value: Option<Bytes>,
        /// For how long, if not for ever.
        ttl: Option<Duration>,
    },
    /// A number that is larger by so much; the time to live is for a number that is made by this.
    Increment(i64, Option<Duration>),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChanged {
    /// The change was made.
    Done,
    /// Nothing was changed: there was no value to delete, or another than expected.
    Not,
    /// The sum.
    Number(i64),
}

/// Why state cannot be had or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// The plugin's space is full.
    Full,
    /// What is to be incremented is no number, or the sum is none.
    NotANumber,
    /// The store cannot be asked; in words for the guest, without secrets.
    Unavailable(String),
}

/// Outgoing HTTP of one plugin.
#[async_trait]
pub trait HttpAccess: Send + Sync {
    /// Sends a request to a host that is granted, within the limits that are granted.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError>;
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// In capitals.
    pub method: &'static str,
    /// As the guest wrote it.
    pub url: String,
    /// As the guest wrote them.
    pub headers: Vec<(String, Bytes)>,
    /// May be empty.
    pub body: Bytes,
    /// What the guest wants, which is not more than is granted.
    pub timeout: Option<Duration>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Any.
    pub status: u16,
    /// In lower case.
    pub headers: Vec<(String, Bytes)>,
    /// Within what is granted.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// The request is malformed; says why.
    Invalid(String),
    /// The host or its address is not granted; says which.
    Refused(String),
    /// Over the rate; there is room after so long.
    Rate(Duration),
    /// No response in time.
    Timeout,
    /// The response is larger than granted.
    TooLarge,
    /// No connection, or it broke; says how.
    Unavailable(String),
}

/// Secrets of one plugin.
pub trait SecretsAccess: Send + Sync {
    /// The secret, if one of this name is granted.
    fn get(&self, name: &str) -> Option<String>;
}

/// Metrics of one plugin.
pub trait MetricsAccess: Send + Sync {
    /// Records a value of a declared metric.
    ///
    /// # Errors
    /// What is not declared, in words for the guest.
    fn record(&self, name: &str, labels: &[(String, String)], value: MetricValue) -> Result<(), String>;
}

/// A value of a metric's kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricValue {
    /// Added to a counter.
    Counter(u64),
    /// Set as the gauge; finite.
    Gauge(f64),
    /// Recorded in a histogram; finite.
    Histogram(f64),
}
