//! The capability `state`.

use std::time::Duration;

use bytes::Bytes;

use super::bindings::sluicegate::state::key_value::{Error, Host};
use super::call::{Refusal, TOLD_BYTES};
use super::{Capability, StateChange, StateChanged, StateError};
use crate::state::State;
use crate::text::tame;

/// Longest key.
const MAX_KEY_BYTES: usize = 256;
/// Longest value.
const MAX_VALUE_BYTES: usize = 64 * 1_024;
/// Longest time to live: ten years.
const MAX_TTL_MS: u64 = 10 * 366 * 86_400_000;

impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let value = match self.look_up(&key).await {
            Ok(Some(value)) => self.take_bytes(value.len()).map(|()| Some(value.to_vec())).map_err(Error::from),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        self.count_call(Capability::State, outcome(&value));
        Ok(value)
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> wasmtime::Result<Result<(), Error>> {
        let change = checked_value(value).and_then(|value| Ok(StateChange::Set(value, ttl(ttl_ms)?)));
        Ok(self.change(&key, change).await.map(|_| ()))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<bool, Error>> {
        Ok(self.change(&key, Ok(StateChange::Delete)).await.map(|changed| changed == StateChanged::Done))
    }

    async fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<bool, Error>> {
        let change = || {
            let expected = expected.map(checked_value).transpose()?;
            let value = value.map(checked_value).transpose()?;
            Ok(StateChange::CompareAndSet { expected, value, ttl: ttl(ttl_ms)? })
        };
        Ok(self.change(&key, change()).await.map(|changed| changed == StateChanged::Done))
    }

    async fn increment(&mut self, key: String, by: i64, ttl_ms: Option<u64>) -> wasmtime::Result<Result<i64, Error>> {
        let change = ttl(ttl_ms).map(|ttl| StateChange::Increment(by, ttl));
        Ok(self.change(&key, change).await.and_then(|changed| match changed {
            StateChanged::Number(sum) => Ok(sum),
            StateChanged::Done | StateChanged::Not => Err(Error::Unavailable("the store gave no number".to_owned())),
        }))
    }
}

impl State {
    async fn look_up(&mut self, key: &str) -> Result<Option<Bytes>, Error> {
        check_key(key)?;
        let grants = self.admit(Capability::State, key.len())?;
        let state = grants.state.as_ref().ok_or(Error::TooEarly)?;
        Ok(self.wait(state.get(key)).await.ok_or_else(too_slow)??)
    }

    async fn change(&mut self, key: &str, change: Result<StateChange, Error>) -> Result<StateChanged, Error> {
        let changed = self.try_change(key, change).await;
        self.count_call(Capability::State, outcome(&changed));
        changed
    }

    async fn try_change(&mut self, key: &str, change: Result<StateChange, Error>) -> Result<StateChanged, Error> {
        check_key(key)?;
        let change = change?;
        let grants = self.admit(Capability::State, key.len() + size(&change))?;
        let state = grants.state.as_ref().ok_or(Error::TooEarly)?;
        Ok(self.wait(state.change(key, change)).await.ok_or_else(too_slow)??)
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    match key.len() {
        1..=MAX_KEY_BYTES => Ok(()),
        length => Err(Error::Invalid(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one {length}"))),
    }
}

fn checked_value(value: Vec<u8>) -> Result<Bytes, Error> {
    match value.len() {
        ..=MAX_VALUE_BYTES => Ok(value.into()),
        length => Err(Error::Invalid(format!("a value has at most {MAX_VALUE_BYTES} bytes, this one {length}"))),
    }
}

fn ttl(ttl_ms: Option<u64>) -> Result<Option<Duration>, Error> {
    match ttl_ms {
        None => Ok(None),
        Some(ttl_ms @ 1..=MAX_TTL_MS) => Ok(Some(Duration::from_millis(ttl_ms))),
        Some(_) => Err(Error::Invalid(format!("a time to live is 1 to {MAX_TTL_MS} ms"))),
    }
}

fn size(change: &StateChange) -> usize {
    match change {
        StateChange::Set(value, _) => value.len(),
        StateChange::Delete | StateChange::Increment(..) => 0,
        StateChange::CompareAndSet { expected, value, .. } => {
            expected.as_ref().map_or(0, Bytes::len) + value.as_ref().map_or(0, Bytes::len)
        }
    }
}

fn too_slow() -> Error {
    Error::Unavailable("the store did not answer within what is left of this message's time for waiting".to_owned())
}

fn outcome<T>(answer: &Result<T, Error>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(Error::TooEarly) => "too_early",
        Err(Error::Invalid(_)) => "invalid",
        Err(Error::Full) => "full",
        Err(Error::NotANumber) => "not_a_number",
        Err(Error::Limit(_)) => "limit",
        Err(Error::Unavailable(_)) => "unavailable",
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooEarly => Self::TooEarly,
            Refusal::Limit(text) => Self::Limit(text),
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Full => Self::Full,
            StateError::NotANumber => Self::NotANumber,
            StateError::Unavailable(text) => Self::Unavailable(tame(&text, TOLD_BYTES)),
        }
    }
}
