//! The embedded store's file: opening it in any state, and what another process finds in it, also after a kill. What
//! holds for both databases is in `tests/tests/store`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kill;
mod open;
mod sample;
