//! What guests say, within a budget.

use std::sync::{Arc, Mutex, PoisonError};

use sluicegate_engine::message::Message;

use crate::bindings::sluicegate::plugin::log::{Host, Level};
use crate::limits::{CAPTURED_BYTES, Limits};
use crate::state::State;
use crate::text::tame;

/// Log lines of one call.
#[derive(Debug, Default)]
pub(crate) struct LogBudget {
    lines_left: u32,
    line_bytes: usize,
    dropped: u64,
    last_error: Option<String>,
}

impl LogBudget {
    pub fn new(limits: &Limits) -> Self {
        Self { lines_left: limits.log_lines, line_bytes: limits.log_line_bytes as usize, ..Self::default() }
    }

    /// Lines dropped so far in this call.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The last line of level `error`, whether or not there was room for it: the SDK logs panics so.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Writes a line, or drops and counts it. The text is a value of the log record, never its format, name or label.
    pub fn write(&mut self, level: Level, text: &str, plugin: &str, message: Option<&Message>) {
        if level == Level::Error {
            self.last_error = Some(tame(text, self.line_bytes));
        }
        if self.lines_left == 0 {
            self.dropped += 1;
            return;
        }
        self.lines_left -= 1;
        let text = tame(text, self.line_bytes);
        let message = message.map_or("-", |message| message.id.as_str());
        match level {
            Level::Trace => tracing::trace!(target: "sluicegate::plugin", plugin, message = ?message, "{text}"),
            Level::Debug => tracing::debug!(target: "sluicegate::plugin", plugin, message = ?message, "{text}"),
            Level::Info => tracing::info!(target: "sluicegate::plugin", plugin, message = ?message, "{text}"),
            Level::Warn => tracing::warn!(target: "sluicegate::plugin", plugin, message = ?message, "{text}"),
            Level::Error => tracing::error!(target: "sluicegate::plugin", plugin, message = ?message, "{text}"),
        }
    }
}

impl Host for State {
    fn write(&mut self, level: Level, text: String) -> wasmtime::Result<()> {
        self.call.log.write(level, &text, &self.plugin, self.call.message.as_deref());
        Ok(())
    }
}

/// What a guest wrote to standard output and error: the first few kilobytes of a call. Rust's panics say there why.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// Keeps what there is room for, forgets the rest.
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CAPTURED_BYTES - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Takes the text out.
    pub fn take(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&std::mem::take(&mut *kept)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_past_the_budget_are_counted() {
        let mut budget = LogBudget::new(&Limits { log_lines: 2, ..Limits::default() });
        (0..5).for_each(|_| budget.write(Level::Info, "line", "plugin", None));
        assert_eq!(budget.dropped(), 3);
    }

    #[test]
    fn captured_text_is_bounded_and_taken_once() {
        let captured = Captured::default();
        captured.push(&vec![b'x'; CAPTURED_BYTES - 1]);
        captured.push(b"yz");
        let text = captured.take();
        assert_eq!(text.len(), CAPTURED_BYTES);
        assert!(text.ends_with('y'));
        assert_eq!(captured.take(), "");
    }
}
