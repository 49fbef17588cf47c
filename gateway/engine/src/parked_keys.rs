//! Which keys of an ordered pipeline have messages in the inbox: what comes after those must go behind them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// How many messages of a key are parked, by lane.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys(Mutex<HashMap<(String, Bytes), usize>>);

impl ParkedKeys {
    /// Whether messages of `key` wait in `lane`.
    pub fn holds(&self, lane: &str, key: &Bytes) -> bool {
        // Without parked messages, which is nearly always, nothing is allocated for the question.
        let parked = self.lock();
        !parked.is_empty() && parked.contains_key(&(lane.to_owned(), key.clone()))
    }

    /// One more is about to be parked. Before it is: what follows at this moment must already see it.
    pub fn enter(&self, lane: &str, key: Bytes) {
        *self.lock().entry((lane.to_owned(), key)).or_default() += 1;
    }

    /// One has left, or was not parked after all.
    pub fn leave(&self, lane: &str, key: &Bytes) {
        let mut parked = self.lock();
        let place = (lane.to_owned(), key.clone());
        if let Some(count) = parked.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                parked.remove(&place);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Bytes), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_once_all_its_messages_have_left_its_lane() {
        let keys = ParkedKeys::default();
        let key = Bytes::from_static(b"k");
        assert!(!keys.holds("", &key));
        keys.enter("", key.clone());
        keys.enter("", key.clone());
        assert!(keys.holds("", &key));
        assert!(!keys.holds("eu", &key));
        keys.leave("", &key);
        assert!(keys.holds("", &key));
        keys.leave("", &key);
        keys.leave("", &key);
        assert!(!keys.holds("", &key));
    }
}
