//! What was confirmed survives the death of the process, and is read from another process before and after.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::dead_letter::DeadLetters;
use sluicegate_store::dead_letter::Filter;
use sluicegate_store::{Location, Reader, Store};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::sample;

const DATA_DIR: &str = "SLUICEGATE_TEST_DATA_DIR";
const CONFIRMED: &str = "confirmed ";
const DEADLINE: Duration = Duration::from_secs(60);
/// Enough that the write-ahead log is checkpointed while records are written.
const RECORDS_BEFORE_KILL: usize = 3_000;

/// The child: records from several tasks at once and says what was confirmed, until it is killed.
#[tokio::test]
#[ignore = "started by the tests below"]
async fn child_records_until_killed() {
    let data_dir = PathBuf::from(std::env::var_os(DATA_DIR).expect("started by the tests below"));
    let store = Arc::new(Store::open(&Location::embedded(&data_dir)).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            loop {
                let letter = Arc::new(sample::letter());
                store.record(&letter).await.unwrap();
                // Not println, which the harness may capture; in one write, so that a kill cannot cut it.
                let line = format!("{CONFIRMED}{}\n", letter.id);
                std::io::stdout().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

struct Recorder {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    confirmed: Vec<String>,
}

impl Recorder {
    fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_records_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
            .env(DATA_DIR, data_dir)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, confirmed: Vec::new() }
    }

    async fn confirm(&mut self, records: usize) {
        let until = self.confirmed.len() + records;
        while self.confirmed.len() < until {
            let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await.expect("the child records");
            self.take(&line.unwrap().expect("the child is alive"));
        }
    }

    /// SIGKILL, then everything it had still said.
    async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.unwrap();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.take(&line);
        }
        self.confirmed
    }

    fn take(&mut self, line: &str) {
        // The harness writes its own words before the first line.
        if let Some((_, id)) = line.split_once(CONFIRMED) {
            self.confirmed.push(id.to_owned());
        }
    }
}

#[tokio::test]
async fn everything_confirmed_is_there_after_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed = Vec::new();
    // The second child starts on what the first one left behind.
    for _ in 0..2 {
        let mut recorder = Recorder::start(folder.path());
        recorder.confirm(RECORDS_BEFORE_KILL).await;
        confirmed.extend(recorder.kill().await);

        let reader = Reader::open(&Location::embedded(folder.path())).await.unwrap();
        assert!(reader.count(&Filter::default()).await.unwrap() >= confirmed.len() as u64);
        for id in &confirmed {
            reader.show(id).await.unwrap_or_else(|error| panic!("confirmed, then lost: {error}"));
        }
        reader.close().await;
    }
}

#[tokio::test]
async fn another_process_reads_while_records_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(folder.path());
    recorder.confirm(50).await;
    let reader = Reader::open(&Location::embedded(folder.path())).await.unwrap();
    let mut seen = 0;
    for _ in 0..10 {
        recorder.confirm(50).await;
        for id in &recorder.confirmed[seen..] {
            reader.show(id).await.unwrap();
        }
        seen = recorder.confirmed.len();
        let page = reader.list(&Filter::default(), 1_000, None).await.unwrap();
        assert!(page.letters.len() >= seen.min(1_000));
    }
    recorder.kill().await;
}
