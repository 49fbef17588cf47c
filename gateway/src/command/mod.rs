//! What the command line does with a configuration, apart from running it. Each command writes to a given writer and
//! returns how the process is to end, so that all of it can be tested.

pub mod backup;
pub mod bench;
pub mod check;
pub mod dlq;
pub mod graph;
pub mod inspection;
pub mod key;
pub mod keys;
pub mod location;
pub mod plugin;
pub mod queue;
pub mod run;
pub mod schema;
pub mod tenant;
pub mod test;
pub mod trace;

use std::process::ExitCode;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well: 0.
    Clean,
    /// It ran and found failures: 1.
    Failed,
    /// The configuration has mistakes: 2.
    Mistakes,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Mistakes => Self::from(2),
        }
    }
}

/// How a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text {
        /// With colours: only for a terminal.
        colour: bool,
    },
    /// For programs: one JSON value.
    Json,
}
