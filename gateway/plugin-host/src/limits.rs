//! What a call may use. Everything a guest can make the host do is bounded here.

use std::time::Duration;

/// Drafts that a call may hold at once, and messages that a transform may answer.
pub const MAX_DRAFTS: usize = 1_000;
/// Destinations that a router may answer.
pub const MAX_DESTINATIONS: usize = 1_000;
/// Headers of one draft, repeats counted.
pub const MAX_HEADERS: usize = 1_000;
/// Calls that an instance serves under [`Isolation::Batch`](crate::Isolation::Batch).
pub const BATCH_CALLS: u32 = 64;
/// Kept of a reason's code, in bytes.
pub(crate) const REASON_CODE_BYTES: usize = 64;
/// Kept of a reason's text, in bytes.
pub(crate) const REASON_TEXT_BYTES: usize = 1_024;
/// Reasons kept of one refused configuration.
pub(crate) const MAX_REASONS: usize = 100;
/// Kept of what a guest wrote to standard output and error in one call, in bytes.
pub(crate) const CAPTURED_BYTES: usize = 4_096;
/// Handles a guest may hold at once: its drafts and a few streams and pollables.
pub(crate) const MAX_HANDLES: usize = MAX_DRAFTS + 64;
/// Random bytes a guest may ask for at once.
pub(crate) const RANDOM_BYTES: u64 = 65_536;
/// Deepest guest stack, in bytes. The host's functions run on the same fiber, so the fiber has [`FIBER_STACK_BYTES`].
pub(crate) const GUEST_STACK_BYTES: usize = 512 * 1_024;
/// A fiber's whole stack, in bytes.
pub(crate) const FIBER_STACK_BYTES: usize = 2 * 1_024 * 1_024;
/// CPU time of `configure` and of `config-schema`.
pub(crate) const CONFIGURE_CPU: Duration = Duration::from_secs(2);
/// Size of a configuration and of its schema, in bytes of JSON.
pub(crate) const MAX_CONFIG_BYTES: usize = 1_024 * 1_024;

/// What one call of a plugin may use. The operator sets it for each plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of one call. The call gives way to others every few milliseconds, and waiting for its turn costs it
    /// nothing. It is measured in slices of [`SLICE`](crate::SLICE): a call is never stopped before this much time,
    /// and at the latest one slice after it.
    pub cpu: Duration,
    /// Memory of an instance in bytes, summed over all its memories and tables.
    pub memory_bytes: u64,
    /// What all drafts of a call may add to the message, or all destinations of a call together, in bytes.
    pub output_bytes: u64,
    /// Log lines of one call; further ones are dropped and counted.
    pub log_lines: u32,
    /// Bytes of a log line; the rest is cut.
    pub log_line_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(50),
            memory_bytes: 16 * 1_024 * 1_024,
            output_bytes: 1_024 * 1_024,
            log_lines: 32,
            log_line_bytes: 1_024,
        }
    }
}

impl Limits {
    /// For `configure` and `config-schema`: the plugin's own limits, but with time to compile what it is given.
    pub(crate) fn for_configure(&self) -> Self {
        Self { cpu: CONFIGURE_CPU.max(self.cpu), ..self.clone() }
    }

    /// How much a guest may hand to the host in one host call, in bytes. A single list fits into the guest's memory, but
    /// a list of strings can name the same bytes again and again.
    pub(crate) fn transfer_bytes(&self) -> usize {
        let wanted = self.output_bytes.saturating_mul(4).saturating_add(1_024 * 1_024);
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }
}
