//! The store as its users see it: what is recorded comes back, also to another process, also after a kill.

#![allow(clippy::unwrap_used, reason = "tests")]

mod kill;
mod open;
mod read;
mod round_trip;
mod sample;
