//! Test doubles: what a plugin finds behind its grants where a message is only tried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use sluicegate_engine::message::now_ms;
use sluicegate_plugin_host::{
    Grants, HttpAccess, HttpError, HttpRequest, HttpResponse, MetricValue, MetricsAccess, SecretsAccess, StateAccess,
    StateChange, StateChanged, StateError,
};
use sluicegate_store::state::ENTRY_BYTES;

/// State in memory, with the store's limits.
#[derive(Debug)]
pub struct MemoryState {
    values: Mutex<HashMap<String, (Bytes, Option<u64>)>>,
    max_bytes: u64,
}

impl MemoryState {
    /// Nothing in it yet.
    pub fn new(max_bytes: u64) -> Self {
        Self { values: Mutex::default(), max_bytes }
    }
}

#[async_trait]
impl StateAccess for MemoryState {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StateError> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        forget_expired(&mut values);
        Ok(values.get(key).map(|(value, _)| value.clone()))
    }

    async fn change(&self, key: &str, change: StateChange) -> Result<StateChanged, StateError> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        forget_expired(&mut values);
        let present = values.get(key).cloned();
        let value = present.as_ref().map(|(value, _)| value);
        let (next, changed) = match change {
            StateChange::Set(value, ttl) => (Some((value, expiry(ttl))), StateChanged::Done),
            StateChange::Delete if present.is_none() => return Ok(StateChanged::Not),
            StateChange::Delete => (None, StateChanged::Done),
            StateChange::CompareAndSet { expected, .. } if expected.as_ref() != value => return Ok(StateChanged::Not),
            StateChange::CompareAndSet { value, ttl, .. } => {
                (value.map(|value| (value, expiry(ttl))), StateChanged::Done)
            }
            StateChange::Increment(by, ttl) => {
                let number = value.map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
                let sum = number.and_then(|number| number.checked_add(by)).ok_or(StateError::NotANumber)?;
                let expires = present.as_ref().map_or_else(|| expiry(ttl), |(_, expires)| *expires);
                (Some((sum.to_string().into(), expires)), StateChanged::Number(sum))
            }
        };
        let size = |key: &str, value: &Bytes| (key.len() + value.len()) as u64 + ENTRY_BYTES;
        let others: u64 =
            values.iter().filter(|(other, _)| *other != key).map(|(key, (value, _))| size(key, value)).sum();
        match next {
            Some((value, _)) if others + size(key, &value) > self.max_bytes => return Err(StateError::Full),
            Some(next) => values.insert(key.to_owned(), next),
            None => values.remove(key),
        };
        Ok(changed)
    }
}

fn expiry(ttl: Option<Duration>) -> Option<u64> {
    ttl.map(|ttl| now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
}

fn forget_expired(values: &mut HashMap<String, (Bytes, Option<u64>)>) {
    let now = now_ms();
    values.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
}

/// Sends nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoHttp;

#[async_trait]
impl HttpAccess for NoHttp {
    async fn send(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        Err(HttpError::Unavailable("nothing is sent while a message is only tried".to_owned()))
    }
}

/// Answers as written.
#[derive(Debug, Clone, Default)]
pub struct ScriptedHttp(Vec<Answer>);

/// One answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Of which URL.
    url: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: HashMap<String, String>,
    /// A text as it is, anything else as JSON.
    #[serde(default)]
    body: Value,
}

fn ok() -> u16 {
    200
}

#[async_trait]
impl HttpAccess for ScriptedHttp {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let found = self.0.iter().find(|answer| answer.url == request.url);
        let answer =
            found.ok_or_else(|| HttpError::Unavailable(format!("no answer for {} is written", request.url)))?;
        Ok(HttpResponse {
            status: answer.status,
            headers: answer.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone().into())).collect(),
            body: match &answer.body {
                Value::Null => Bytes::new(),
                Value::String(text) => text.clone().into(),
                other => other.to_string().into(),
            },
        })
    }
}

/// Takes every metric.
struct AnyMetric;

impl MetricsAccess for AnyMetric {
    fn record(&self, _: &str, _: &[(String, String)], _: MetricValue) -> Result<(), String> {
        Ok(())
    }
}

struct TrialSecrets(HashMap<String, String>);

impl SecretsAccess for TrialSecrets {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

/// Doubles of all capabilities, as `sluicegate plugin test` takes them: those that are written are granted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doubles {
    /// What is in the state at first: texts.
    state: Option<HashMap<String, String>>,
    /// What is answered.
    http: Option<Vec<Answer>>,
    /// For the trial.
    secrets: Option<HashMap<String, String>>,
    /// Whether metrics are taken; none is recorded.
    metrics: Option<bool>,
}

/// As much as a trial may keep.
const TRIAL_STATE_BYTES: u64 = 1 << 20;

impl Doubles {
    /// The grants that they stand behind.
    pub fn grants(&self) -> Grants {
        Grants {
            state: self.state.as_ref().map(|first| {
                let state = MemoryState::new(TRIAL_STATE_BYTES);
                let values = first.iter().map(|(key, value)| (key.clone(), (Bytes::from(value.clone()), None)));
                state.values.lock().unwrap_or_else(PoisonError::into_inner).extend(values);
                Arc::new(state) as Arc<dyn StateAccess>
            }),
            http: self.http.as_ref().map(|answers| Arc::new(ScriptedHttp(answers.clone())) as Arc<dyn HttpAccess>),
            secrets: self
                .secrets
                .as_ref()
                .map(|secrets| Arc::new(TrialSecrets(secrets.clone())) as Arc<dyn SecretsAccess>),
            metrics: self.metrics.unwrap_or_default().then(|| Arc::new(AnyMetric) as Arc<dyn MetricsAccess>),
            ..Grants::default()
        }
    }
}
