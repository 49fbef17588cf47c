//! Which entries this gateway has in flight. Shared by the halves of a connection and kept from one connection to the
//! next, since entry ids still settle after a reconnect.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::reply::EntryId;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    ids: Mutex<BTreeSet<EntryId>>,
    /// Whether entries were given back since the last look, so that claiming is worth a try at once.
    given_back: AtomicBool,
    /// Touching and giving back take turns.
    turn: tokio::sync::Mutex<()>,
}

impl InFlight {
    /// Takes in an entry; `false` if it is in flight already and must not be delivered a second time.
    pub(super) fn begin(&self, id: EntryId) -> bool {
        self.ids().insert(id)
    }

    /// Whether the entry is in flight.
    pub(super) fn contains(&self, id: EntryId) -> bool {
        self.ids().contains(&id)
    }

    /// The entries are settled.
    pub(super) fn end(&self, ids: impl IntoIterator<Item = EntryId>) {
        let mut in_flight = self.ids();
        for id in ids {
            in_flight.remove(&id);
        }
    }

    /// All, in order.
    pub(super) fn all(&self) -> Vec<EntryId> {
        self.ids().iter().copied().collect()
    }

    /// Held while entries are touched or given back, until Redis has answered: touching one after it was given back would
    /// hide it from everybody for another `claim_after`. A command has a deadline, so nobody waits for long.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Some entries may be claimed again at once.
    pub(super) fn note_given_back(&self) {
        self.given_back.store(true, Ordering::Release);
    }

    /// Whether some were given back since the last call.
    pub(super) fn take_given_back(&self) -> bool {
        self.given_back.swap(false, Ordering::AcqRel)
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<EntryId>> {
        // A set of ids is whole after every step, so a panic elsewhere does not spoil it.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_begins_once_until_it_ends() {
        let in_flight = InFlight::default();
        let id = EntryId { millis: 1, sequence: 0 };
        assert!(in_flight.begin(id));
        assert!(!in_flight.begin(id));
        assert!(in_flight.contains(id));
        in_flight.end([id]);
        assert!(in_flight.all().is_empty());
        assert!(in_flight.begin(id));
    }

    #[test]
    fn giving_back_is_noticed_once() {
        let in_flight = InFlight::default();
        assert!(!in_flight.take_given_back());
        in_flight.note_given_back();
        assert!(in_flight.take_given_back());
        assert!(!in_flight.take_given_back());
    }
}
