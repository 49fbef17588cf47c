//! jaq-std asks for jiff with its default features, which search a file system for time zones and bring 200 KB of them. A
//! plugin has no file system, but would import it, and sockets with it (its C library closes both alike), for which the
//! gateway would refuse it. Without those features local time is UTC, as in a plugin it is anyway.
//!
//! Of no more use once jaq-std lets jiff's default features be turned off.
pub use jiff_itself::*;
