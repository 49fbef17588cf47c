//! Log lines, written to the gateway's log with the plugin's and the message's name. At most 32 lines of 1 KiB a call
//! are kept by default. Natively they go to stderr, and a test reads them with `log::captured`.

pub use crate::contract::log::Level;

/// Writes a line at a level.
pub fn write(level: Level, text: &str) {
    #[cfg(target_family = "wasm")]
    crate::contract::log::write(level, text);
    #[cfg(not(target_family = "wasm"))]
    capture::write(level, text);
}

/// For following a message through the plugin.
pub fn trace(text: impl AsRef<str>) {
    write(Level::Trace, text.as_ref());
}

/// For finding a mistake in the plugin.
pub fn debug(text: impl AsRef<str>) {
    write(Level::Debug, text.as_ref());
}

/// For what an operator may want to know.
pub fn info(text: impl AsRef<str>) {
    write(Level::Info, text.as_ref());
}

/// For what an operator should look at.
pub fn warn(text: impl AsRef<str>) {
    write(Level::Warn, text.as_ref());
}

/// For what an operator must look at.
pub fn error(text: impl AsRef<str>) {
    write(Level::Error, text.as_ref());
}

#[cfg(not(target_family = "wasm"))]
pub use capture::captured;

#[cfg(not(target_family = "wasm"))]
mod capture {
    use std::cell::RefCell;

    use super::Level;

    thread_local! {
        // Each test runs on a thread of its own, so its lines are its own.
        static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn write(level: Level, text: &str) {
        eprintln!("[{level:?}] {text}");
        LINES.with_borrow_mut(|lines| lines.push((level, text.to_owned())));
    }

    /// Takes the lines this thread has logged since the last call.
    #[must_use]
    pub fn captured() -> Vec<(Level, String)> {
        LINES.take()
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, captured};

    #[test]
    fn lines_are_captured_once() {
        super::info("one");
        super::error(format!("{}", 2));
        assert_eq!(captured(), [(Level::Info, "one".to_owned()), (Level::Error, "2".to_owned())]);
        assert!(captured().is_empty());
    }
}
