//! From wasmtime's errors to the engine's classes, with the evidence.

use std::time::Duration;

use sluicegate_engine::failure::{GuestFailure, Reason};
use wasmtime::{Trap, WasmBacktrace};

use crate::bindings::sluicegate::plugin::outcomes;
use crate::limits::{Limits, REASON_CODE_BYTES, REASON_TEXT_BYTES};
use crate::meter::Stop;
use crate::state::State;
use crate::text::tame;

/// Kept of a frame of a backtrace, in bytes.
const FRAME_BYTES: usize = 256;
/// Kept of what a guest had written to its standard streams when it trapped, in bytes.
const LAST_WORDS_BYTES: usize = 512;

/// Why a call ended without an answer.
pub(crate) fn of_error(error: &wasmtime::Error, state: &mut State, limits: &Limits) -> GuestFailure {
    match error.downcast_ref::<Stop>() {
        Some(&Stop::Output { size_bytes, limit_bytes }) => {
            return GuestFailure::OutputLimit { size_bytes, limit_bytes };
        }
        Some(Stop::Breach(text)) => return GuestFailure::ContractViolation(text.clone()),
        None => {}
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return GuestFailure::Unavailable("the pool of instances is exhausted; raise `max_instances`".to_owned());
    }
    let memory = || GuestFailure::Memory { limit_bytes: limits.memory_bytes, backtrace: backtrace(error) };
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => GuestFailure::Deadline { limit: limits.cpu, backtrace: backtrace(error) },
        Some(Trap::StackOverflow) => trap("the call stack is exhausted".to_owned(), error),
        // Guests abort when they are given no more memory; the trap itself does not say why.
        Some(_) if state.memory.refused => memory(),
        Some(other) => trap(with_last_words(other.to_string(), state), error),
        None if state.memory.refused => memory(),
        None if is_transfer_exhausted(error) => {
            GuestFailure::OutputLimit { size_bytes: limits.transfer_bytes() as u64, limit_bytes: limits.output_bytes }
        }
        // What is left are violations of the canonical ABI: bad UTF-8, pointers out of bounds, handles it does not have.
        None => GuestFailure::ContractViolation(tame(&error.root_cause().to_string(), REASON_TEXT_BYTES)),
    }
}

/// What the guest itself answered.
pub(crate) fn of_guest(failure: outcomes::Failure) -> GuestFailure {
    match failure {
        outcomes::Failure::Retry(postponement) => GuestFailure::Retry {
            reason: reason(postponement.reason),
            after: postponement.after_ms.map(Duration::from_millis),
        },
        outcomes::Failure::Reject(why) => GuestFailure::Reject(reason(why)),
    }
}

/// A guest's reason, cut and cleaned.
pub(crate) fn reason(reason: outcomes::Reason) -> Reason {
    Reason::new(tame(&reason.code, REASON_CODE_BYTES), tame(&reason.text, REASON_TEXT_BYTES))
}

fn trap(text: String, error: &wasmtime::Error) -> GuestFailure {
    GuestFailure::Trap { text, backtrace: backtrace(error) }
}

/// Guest frames with demangled names, innermost first, as in `hostile.wasm!hostile::spin`.
fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return Vec::new() };
    // Only its text has demangled names: one frame a line, `  0:   0x1234 - module!function`.
    let text = backtrace.to_string();
    let frames = text.lines().map(|line| line.split_once(" - ").map_or(line, |(_, name)| name).trim());
    frames.map(|frame| tame(frame, FRAME_BYTES)).collect()
}

/// A panic says on standard error, or through the SDK in the log, what was wrong; the trap itself does not.
fn with_last_words(trap: String, state: &mut State) -> String {
    let captured = state.take_captured();
    let lines: Vec<_> = captured
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
        .collect();
    let words = if lines.is_empty() { state.call.log.last_error().map(str::to_owned) } else { Some(lines.join(" ")) };
    match words {
        Some(words) => format!("{trap}; it said: {}", tame(&words, LAST_WORDS_BYTES)),
        None => trap,
    }
}

/// Wasmtime keeps this error's type to itself.
fn is_transfer_exhausted(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted")
}
