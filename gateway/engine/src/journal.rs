//! What happens to one message, noted as it happens.

use std::sync::{Mutex, PoisonError};

use crate::message::now_ms;
use crate::receipt::{Event, Happening};

/// Events of one stretch of a message's way; nothing is noted when nobody keeps receipts.
pub(crate) struct Journal(Option<Mutex<Vec<Event>>>);

impl Journal {
    pub fn new(kept: bool) -> Self {
        Self(kept.then(|| Mutex::new(Vec::with_capacity(8))))
    }

    pub fn note(&self, what: impl FnOnce() -> Happening) {
        self.note_if(|| Some(what()));
    }

    /// Notes what there is to note, if anything.
    pub fn note_if(&self, what: impl FnOnce() -> Option<Happening>) {
        if let Some(events) = &self.0
            && let Some(what) = what()
        {
            let event = Event { at_ms: now_ms(), what };
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    }

    /// What was noted; `None` when nobody keeps receipts.
    pub fn close(self) -> Option<Vec<Event>> {
        self.0.map(|events| events.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
