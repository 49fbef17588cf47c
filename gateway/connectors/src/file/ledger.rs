//! Which lines are in flight, and up to where everything is settled.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluicegate_engine::delivery::Token;

use super::checkpoint::{FileId, Position};
use crate::json_lines::Line;

/// Most lines that may be handed over beyond the first one that is not settled.
const MAX_LINES_AHEAD: usize = 100_000;

/// Shared by the halves of a connection and kept from one connection to the next, since offsets still settle then.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The files that lines in flight are of.
    files: BTreeMap<u64, FileId>,
    /// Lines from the first that is not settled on, by generation and offset.
    lines: BTreeMap<(u64, u64), Entry>,
    /// The end of what has been handed over.
    read_to: Option<(u64, u64)>,
    /// The end of what is settled without a gap.
    settled_to: Option<(u64, u64)>,
    /// What of it is known to be on the disk.
    saved_to: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Entry {
    end: u64,
    is_settled: bool,
}

/// The token of a line.
pub(super) fn token(generation: u64, line: &Line) -> Token {
    Token(u128::from(generation) << 64 | u128::from(line.start))
}

impl Ledger {
    /// Lines are handed over.
    pub(super) fn hand_over(&self, generation: u64, file: FileId, lines: &[Line]) {
        let mut state = self.state();
        state.files.insert(generation, file);
        for line in lines {
            state.lines.insert((generation, line.start), Entry { end: line.end, is_settled: false });
            state.read_to = Some((generation, line.end));
        }
    }

    /// Lines are settled for good. Tokens that are not known (any more) are passed over.
    pub(super) fn settle(&self, tokens: impl IntoIterator<Item = Token>) {
        let mut state = self.state();
        for Token(token) in tokens {
            if let Some(entry) = state.lines.get_mut(&((token >> 64) as u64, token as u64)) {
                entry.is_settled = true;
            }
        }
        while let Some(first) = state.lines.first_entry()
            && first.get().is_settled
        {
            let (generation, _) = *first.key();
            let end = first.remove().end;
            state.settled_to = Some((generation, end));
        }
    }

    /// Where a restart is to go on, if that is not on the disk yet.
    pub(super) fn unsaved(&self) -> Option<Position> {
        let state = self.state();
        if state.settled_to == state.saved_to { None } else { state.position(state.settled_to?) }
    }

    /// It is on the disk now.
    pub(super) fn saved(&self, position: &Position) {
        let mut state = self.state();
        state.saved_to = Some((position.generation, position.offset));
        state.files.retain(|generation, _| *generation >= position.generation);
    }

    /// Where a new connection is to go on; `None` if nothing has been read yet.
    pub(super) fn read_to(&self) -> Option<Position> {
        let state = self.state();
        state.position(state.read_to?)
    }

    /// Whether so much is waiting for one unsettled line that reading has to wait too.
    pub(super) fn is_full(&self) -> bool {
        self.state().lines.len() >= MAX_LINES_AHEAD
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every step, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn position(&self, (generation, offset): (u64, u64)) -> Option<Position> {
        Some(Position { generation, offset, file: self.files.get(&generation)?.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn line(start: u64) -> Line {
        Line { start, end: start + 10, bytes: Bytes::new(), whole_bytes: None }
    }

    fn file() -> FileId {
        FileId::of(&File::open(".").expect("open"), 0).expect("an id")
    }

    fn ledger(lines: u64) -> Ledger {
        let ledger = Ledger::default();
        ledger.hand_over(1, file(), &(0..lines).map(|index| line(index * 10)).collect::<Vec<_>>());
        ledger
    }

    fn unsaved(ledger: &Ledger) -> Option<(u64, u64)> {
        ledger.unsaved().map(|position| (position.generation, position.offset))
    }

    #[test]
    fn the_checkpoint_waits_for_the_first_unsettled_line() {
        let ledger = ledger(3);
        ledger.settle([token(1, &line(10)), token(1, &line(20))]);
        assert_eq!(unsaved(&ledger), None);
        ledger.settle([token(1, &line(0))]);
        assert_eq!(unsaved(&ledger), Some((1, 30)));
    }

    #[test]
    fn what_could_not_be_saved_is_still_to_be_saved() {
        let ledger = ledger(1);
        ledger.settle([token(1, &line(0))]);
        let position = ledger.unsaved().expect("a position");
        ledger.settle([token(1, &line(0))]);
        assert_eq!(ledger.unsaved(), Some(position.clone()));
        ledger.saved(&position);
        assert_eq!(ledger.unsaved(), None);
    }

    #[test]
    fn lines_of_a_new_file_come_after_those_of_the_old_one() {
        let ledger = ledger(1);
        ledger.hand_over(2, file(), &[line(0)]);
        ledger.settle([token(2, &line(0))]);
        assert_eq!(unsaved(&ledger), None);
        assert_eq!(ledger.read_to().map(|position| position.generation), Some(2));
        ledger.settle([token(1, &line(0))]);
        assert_eq!(unsaved(&ledger), Some((2, 10)));
    }

    proptest! {
        #[test]
        fn the_checkpoint_is_never_past_an_unsettled_line(order in Just((0_u64..20).collect::<Vec<_>>()).prop_shuffle()) {
            let ledger = ledger(20);
            let mut settled = std::collections::BTreeSet::new();
            for index in order {
                ledger.settle([token(1, &line(index * 10))]);
                settled.insert(index);
                let contiguous = (0..20).take_while(|index| settled.contains(index)).count() as u64;
                let expected = if contiguous == 0 { None } else { Some((1, contiguous * 10)) };
                prop_assert_eq!(unsaved(&ledger), expected);
            }
        }
    }
}
