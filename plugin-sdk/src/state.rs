//! Key-value state that outlives a call, the plugin's own. The operator grants it: `grants: { state: { max: 1MiB } }`.
//!
//! Keys have 1 to 256 bytes, values up to 64 KiB; a message has 64 calls. A change is durable before it returns, and a
//! message that is tried again finds it: make changes that can be repeated. None of it can be used in `configure`.
//!
//! Natively there is a double in memory, one for each thread and so for each test; see [`double`].
//!
//! ```
//! use std::time::Duration;
//! use sluicegate_plugin::state;
//!
//! // The first to come gets it.
//! let first = state::compare_and_set("order-7", None, Some(b"seen"), Some(Duration::from_secs(60)))?;
//! assert!(first);
//! assert!(!state::compare_and_set("order-7", None, Some(b"seen"), None)?);
//! assert_eq!(state::increment("count", 2, None)?, 2);
//! assert_eq!(state::get("count")?.as_deref(), Some(&b"2"[..]));
//!
//! # #[cfg(not(target_family = "wasm"))]
//! state::double::advance(Duration::from_secs(60));
//! assert_eq!(state::get("order-7")?, None, "its time is over");
//! # Ok::<(), state::Error>(())
//! ```

use std::time::Duration;

pub use crate::contract::state::Error;
use crate::{Failure, outcome::milliseconds};

#[cfg(target_family = "wasm")]
use crate::contract::state as backend;
#[cfg(not(target_family = "wasm"))]
use double as backend;

/// The value, unless there is none or its time is over.
///
/// # Errors
/// As the gateway says.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    backend::get(key)
}

/// Sets the value, for so long if given, in whole milliseconds.
///
/// # Errors
/// As the gateway says; nothing is changed but perhaps if it is unavailable.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
    backend::set(key, value, ttl.map(milliseconds))
}

/// Deletes the value; says whether there was one.
///
/// # Errors
/// As of [`set`].
pub fn delete(key: &str) -> Result<bool, Error> {
    backend::delete(key)
}

/// Sets the value (or deletes it) only if the present one is `expected` (`None`: if there is none); says whether it was.
///
/// # Errors
/// As of [`set`].
pub fn compare_and_set(
    key: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
    ttl: Option<Duration>,
) -> Result<bool, Error> {
    backend::compare_and_set(key, expected, value, ttl.map(milliseconds))
}

/// Adds to a number, which begins as 0, and answers the sum. The time to live counts from when the number is made.
///
/// # Errors
/// As of [`set`], or that the value is no number.
pub fn increment(key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, Error> {
    backend::increment(key, by, ttl.map(milliseconds))
}

/// A store that is not available or a space that is full may be better later; all else is the plugin's mistake.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(text) => Self::retry("state_unavailable", text),
            Error::Full => {
                Self::retry("state_full", "the plugin's state is full; raise its `grants: { state: { max } }`")
            }
            Error::Limit(text) => Self::reject("state_limit", text),
            Error::Invalid(text) => Self::reject("state_invalid", text),
            Error::NotANumber => Self::reject("state_not_a_number", "the value is no number, or would be none"),
            Error::TooEarly => Self::reject("state_too_early", "there is no state in `configure`"),
        }
    }
}

/// State in memory, for tests: each thread has its own.
#[cfg(not(target_family = "wasm"))]
pub mod double {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::Error;

    const MAX_KEY_BYTES: usize = 256;
    const MAX_VALUE_BYTES: usize = 64 * 1_024;
    const ENTRY_BYTES: usize = 64;

    #[derive(Default)]
    struct Memory {
        /// With the time at which it ends.
        values: BTreeMap<String, (Vec<u8>, Option<u64>)>,
        now_ms: u64,
        max_bytes: Option<usize>,
        failing: Option<Error>,
    }

    thread_local! {
        static MEMORY: RefCell<Memory> = RefCell::default();
    }

    /// Forgets all values and settings.
    pub fn clear() {
        MEMORY.take();
    }

    /// Lets time pass for values that have a time to live.
    pub fn advance(time: Duration) {
        MEMORY.with_borrow_mut(|memory| {
            memory.now_ms += super::milliseconds(time);
            let now = memory.now_ms;
            memory.values.retain(|_, (_, ends)| ends.is_none_or(|at| at > now));
        });
    }

    /// Grants so many bytes; without this any number.
    pub fn grant_bytes(max_bytes: usize) {
        MEMORY.with_borrow_mut(|memory| memory.max_bytes = Some(max_bytes));
    }

    /// Makes every call fail so, until it is `None`.
    pub fn fail(error: Option<Error>) {
        MEMORY.with_borrow_mut(|memory| memory.failing = error);
    }

    fn with<T>(key: &str, call: impl FnOnce(&mut Memory) -> Result<T, Error>) -> Result<T, Error> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Error::Invalid(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one {}", key.len())));
        }
        MEMORY.with_borrow_mut(|memory| match &memory.failing {
            Some(error) => Err(error.clone()),
            None => call(memory),
        })
    }

    impl Memory {
        fn put(&mut self, key: &str, value: &[u8], ends: Option<u64>) -> Result<(), Error> {
            if value.len() > MAX_VALUE_BYTES {
                return Err(Error::Invalid(format!(
                    "a value has at most {MAX_VALUE_BYTES} bytes, this one {}",
                    value.len()
                )));
            }
            let others = self.values.iter().filter(|(other, _)| *other != key);
            let others: usize = others.map(|(key, (value, _))| key.len() + value.len() + ENTRY_BYTES).sum();
            if self.max_bytes.is_some_and(|max| others + key.len() + value.len() + ENTRY_BYTES > max) {
                return Err(Error::Full);
            }
            self.values.insert(key.to_owned(), (value.to_vec(), ends));
            Ok(())
        }

        fn ends(&self, ttl_ms: Option<u64>) -> Option<u64> {
            ttl_ms.map(|ttl| self.now_ms.saturating_add(ttl))
        }
    }

    pub(super) fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        with(key, |memory| Ok(memory.values.get(key).map(|(value, _)| value.clone())))
    }

    pub(super) fn set(key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Error> {
        with(key, |memory| memory.put(key, value, memory.ends(ttl_ms)))
    }

    pub(super) fn delete(key: &str) -> Result<bool, Error> {
        with(key, |memory| Ok(memory.values.remove(key).is_some()))
    }

    pub(super) fn compare_and_set(
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
        ttl_ms: Option<u64>,
    ) -> Result<bool, Error> {
        with(key, |memory| {
            if memory.values.get(key).map(|(value, _)| value.as_slice()) != expected {
                return Ok(false);
            }
            match value {
                Some(value) => memory.put(key, value, memory.ends(ttl_ms))?,
                None => drop(memory.values.remove(key)),
            }
            Ok(true)
        })
    }

    pub(super) fn increment(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        with(key, |memory| {
            let (number, ends) = match memory.values.get(key) {
                None => (Some(0), memory.ends(ttl_ms)),
                Some((value, ends)) => (std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()), *ends),
            };
            let sum = number.and_then(|number: i64| number.checked_add(by)).ok_or(Error::NotANumber)?;
            memory.put(key, sum.to_string().as_bytes(), ends)?;
            Ok(sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Error, compare_and_set, delete, double, get, increment, set};
    use crate::Failure;

    #[test]
    fn the_double_keeps_the_contracts_limits() {
        double::clear();
        assert!(matches!(set("", b"", None), Err(Error::Invalid(_))));
        assert!(matches!(get(&"k".repeat(257)), Err(Error::Invalid(_))));
        assert!(matches!(set("k", &[0; 65_537], None), Err(Error::Invalid(_))));
        double::grant_bytes(100);
        assert_eq!(set("k", &[0; 35], None), Ok(()));
        assert_eq!(set("k", &[0; 36], None), Err(Error::Full));
        assert_eq!(set("l", &[0; 1], None), Err(Error::Full));
        assert_eq!(delete("k"), Ok(true));
        assert_eq!(delete("k"), Ok(false));
    }

    #[test]
    fn numbers_keep_their_first_time_to_live() {
        double::clear();
        assert_eq!(increment("n", 1, Some(Duration::from_secs(1))), Ok(1));
        double::advance(Duration::from_millis(900));
        assert_eq!(increment("n", i64::MAX, None), Err(Error::NotANumber));
        assert_eq!(increment("n", -3, Some(Duration::from_secs(9))), Ok(-2));
        double::advance(Duration::from_millis(100));
        assert_eq!(get("n"), Ok(None));
        assert_eq!(compare_and_set("n", Some(b"-2"), None, None), Ok(false));
    }

    #[test]
    fn a_store_that_is_away_makes_a_retry() {
        double::clear();
        double::fail(Some(Error::Unavailable("away".to_owned())));
        let failure = Failure::from(get("k").expect_err("fails as told"));
        assert!(matches!(failure, Failure::Retry(_)), "{failure:?}");
        double::fail(None);
        assert_eq!(get("k"), Ok(None));
    }
}
