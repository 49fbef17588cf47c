//! Fuzz targets: arbitrary bytes into every parser of outside bytes. Each target is one function of a byte slice, in a
//! file of its own, with a folder of seeds under `corpus`; here is the plain driver that stable Rust can run: every seed
//! as it is, then mutations of seeds for `SLUICEGATE_FUZZ_SECONDS` (default 5) from `SLUICEGATE_FUZZ_SEED` (default 0).
//! The sequence of inputs depends on the seed alone.
//!
//! An input that fails is kept in `target/fuzz-failures`; `SLUICEGATE_FUZZ_INPUT=FILE cargo test --test fuzz NAME` runs
//! just that one.

mod cloudevents;
mod config;
mod envelope;
mod mutation;
mod plugin;
mod topic_pattern;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutation::Mutator;

/// No input may take longer, on an unoptimised build and a busy machine.
const SLOWEST_INPUT: Duration = Duration::from_secs(20);

#[test]
fn config() {
    drive("config", config::fuzz, config::WORDS, &[]);
}

#[test]
fn envelope() {
    drive("envelope", envelope::fuzz, envelope::WORDS, &[]);
}

#[test]
fn cloudevents() {
    drive("cloudevents", cloudevents::fuzz, cloudevents::WORDS, &[]);
}

#[test]
fn topic_pattern() {
    drive("topic_pattern", topic_pattern::fuzz, topic_pattern::WORDS, &[]);
}

#[test]
fn plugin() {
    drive("plugin", plugin::fuzz, plugin::WORDS, plugin::SEEDS);
}

/// Runs one target. `words` are inserted by mutations; `more_seeds` are files outside its corpus, relative to this
/// package.
fn drive(name: &str, fuzz: fn(&[u8]), words: &[&[u8]], more_seeds: &[&str]) {
    if let Some(path) = std::env::var_os("SLUICEGATE_FUZZ_INPUT") {
        let input = std::fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
        return fuzz(&input);
    }
    let seeds = seeds(name, more_seeds);
    for seed in &seeds {
        run_one(name, fuzz, seed);
    }
    let budget = Duration::from_secs(number("SLUICEGATE_FUZZ_SECONDS", 5));
    let mut mutator = Mutator::new(number("SLUICEGATE_FUZZ_SEED", 0), seeds, words);
    let (start, mut inputs) = (Instant::now(), 0_u64);
    while start.elapsed() < budget {
        run_one(name, fuzz, &mutator.next_input());
        inputs += 1;
    }
    println!("{name}: {inputs} inputs");
}

fn run_one(name: &str, fuzz: fn(&[u8]), input: &[u8]) {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| fuzz(input)));
    let failure = match outcome {
        Err(panic) => text(&*panic),
        Ok(()) if start.elapsed() > SLOWEST_INPUT => format!("took {:?}", start.elapsed()),
        Ok(()) => return,
    };
    let kept = keep(name, input);
    panic!("{name} failed on {} bytes, kept in {}: {failure}", input.len(), kept.display());
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without text").to_owned()
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz-failures");
    let path = folder.join(format!("{name}-{}", uuid::Uuid::now_v7().simple()));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    written.unwrap_or_else(|error| eprintln!("keeping the input in {}: {error}", path.display()));
    path
}

fn seeds(name: &str, more: &[&str]) -> Vec<Vec<u8>> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = package.join("fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("reading {}: {error}", corpus.display()))
        .map(|entry| entry.expect("an entry of the corpus").path())
        .collect();
    files.extend(more.iter().map(|file| package.join(file)));
    files.sort(); // a folder has no order, the sequence of inputs shall have one
    assert!(!files.is_empty(), "{} has no seeds", corpus.display());
    let read =
        |file: &PathBuf| std::fs::read(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
    files.iter().map(read).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number")),
        Err(_) => default,
    }
}
