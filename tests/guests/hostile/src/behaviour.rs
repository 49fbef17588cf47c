//! The behaviours, and what each does whatever the role.

use std::hint::black_box;
use std::time::Duration;

use serde::Deserialize;
use sluicegate_plugin::{Destination, Failure, log};

use crate::edit::Edit;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(rename = "do")]
    pub behaviour: Behaviour,
    /// Misbehave for messages of this kind only; others pass. Not given: for all.
    #[serde(default)]
    pub only_kind: Option<String>,
    /// Of `huge`: length of the body.
    #[serde(default = "two_mebibytes")]
    pub bytes: usize,
    /// Of `drafts`, `abandon`, `log_flood`: how many.
    #[serde(default = "ten_thousand")]
    pub count: usize,
    /// Of `slow`: turns of a loop of about a nanosecond each.
    #[serde(default = "five_million")]
    pub turns: u64,
    /// Of the router: names answered.
    #[serde(default = "nope")]
    pub to: Vec<String>,
    #[serde(default)]
    pub key: Option<String>,
    #[serde(default)]
    pub delay_ms: Option<u64>,
    /// Of `retry`.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// Of `retry` and `reject`.
    #[serde(default = "a_reason")]
    pub text: String,
    /// Of `echo`: what to ask for.
    #[serde(default)]
    pub headers: Vec<String>,
    #[serde(default)]
    pub pointers: Vec<String>,
    /// Of `edit`: what to do to the draft, in order.
    #[serde(default)]
    pub edits: Vec<Edit>,
}

impl Config {
    pub fn destinations(&self) -> Vec<Destination> {
        let destination =
            |name: &String| Destination { key: self.key.clone(), delay_ms: self.delay_ms, ..Destination::to(name) };
        self.to.iter().map(destination).collect()
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Nothing bad.
    Pass,
    /// Drop verdict, no drafts, no destinations.
    Drop,
    /// Never returns.
    Loop,
    /// Takes memory until there is none.
    Grow,
    Panic,
    Unreachable,
    /// Recurses until the stack ends.
    Overflow,
    /// Loops for `turns`, then passes.
    Slow,
    /// Writes `count` lines of 4 KiB.
    LogFlood,
    Retry,
    Reject,
    /// Rejects with a code and a text of `bytes` each.
    LongReason,
    /// Transform: a body of `bytes`.
    Huge,
    /// Transform: `count` drafts.
    Drafts,
    /// Transform: makes and forgets `count` drafts, then passes.
    Abandon,
    /// Transform: header `calls` says which call of this instance it was, from 1.
    Count,
    /// Transform: the body says what every function of the message answered.
    Echo,
    /// Transform: does `edits`.
    Edit,
    ConfigureFail,
    ConfigurePanic,
    ConfigureLoop,
}

pub fn act(config: &Config) -> Result<(), Failure> {
    match config.behaviour {
        Behaviour::Loop => spin_forever(),
        Behaviour::Grow => grow_forever(),
        Behaviour::Panic => recognisable_panic(),
        Behaviour::Unreachable => recognisable_trap(),
        Behaviour::Overflow => {
            black_box(recognisable_recursion(0));
        }
        Behaviour::Slow => spin(config.turns),
        Behaviour::LogFlood => {
            let line = "flood ".repeat(683);
            (0..config.count).for_each(|at| log::warn(format!("{at} {line}")));
        }
        Behaviour::Retry => {
            return Err(match config.after_ms {
                Some(after_ms) => Failure::retry_after(Duration::from_millis(after_ms), "busy", &config.text),
                None => Failure::retry("busy", &config.text),
            });
        }
        Behaviour::Reject => return Err(Failure::reject("refused", &config.text)),
        Behaviour::LongReason => return Err(Failure::reject("c".repeat(config.bytes), "t".repeat(config.bytes))),
        _ => {}
    }
    Ok(())
}

#[inline(never)]
pub fn spin_forever() -> ! {
    loop {
        black_box(());
    }
}

fn spin(turns: u64) {
    for turn in 0..turns {
        black_box(turn);
    }
}

#[inline(never)]
fn grow_forever() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 256 * 1024]));
    }
}

/// The tests look for these names in backtraces.
#[inline(never)]
pub fn recognisable_panic() -> ! {
    panic!("hostile panic as configured");
}

#[inline(never)]
fn recognisable_trap() -> ! {
    black_box(());
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    std::process::abort();
}

#[inline(never)]
#[allow(unconditional_recursion, reason = "the stack is to end")]
fn recognisable_recursion(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recognisable_recursion(depth + 1) + frame[63]
}

fn two_mebibytes() -> usize {
    2 * 1024 * 1024
}

fn ten_thousand() -> usize {
    10_000
}

fn five_million() -> u64 {
    5_000_000
}

fn nope() -> Vec<String> {
    vec!["nope".to_owned()]
}

fn a_reason() -> String {
    "as configured".to_owned()
}
