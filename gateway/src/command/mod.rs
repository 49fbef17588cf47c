//! The commands of `sluicegate`, one file each: its arguments and what it does.

pub mod dlq;
