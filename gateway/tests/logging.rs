//! The gateway where its log cannot be written.

use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const CONFIG: &str = "
server: { listen: '127.0.0.1:0' }
pipelines:
  copy:
    source: { file: { path: in.jsonl, follow: true, poll: 10ms } }
    targets: { out: { file: { path: out.jsonl } } }
";
const LIMIT: Duration = Duration::from_secs(60);

/// Ends with the test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        // It has ended where the test passed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Gateway {
    fn await_that<T>(&mut self, what: &str, mut look: impl FnMut(&mut Child) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(&mut self.0) {
                return found;
            }
            assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("gateway.yaml"), CONFIG).expect("a configuration");
    std::fs::write(folder.path().join("in.jsonl"), "{\"number\":1}\n").expect("a message");
    let full = File::options().write(true).open("/dev/full").expect("Linux has it: every write fails for lack of room");
    let child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["run", "gateway.yaml"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full)
        .spawn()
        .expect("the gateway starts");
    let mut gateway = Gateway(child);
    let out = folder.path().join("out.jsonl");
    gateway.await_that("the message arrives", |child| {
        let ended = child.try_wait().expect("it can be waited for");
        assert!(ended.is_none(), "the gateway ended with {ended:?}");
        let written = std::fs::read_to_string(&out).unwrap_or_default();
        (written == "{\"number\":1}\n").then_some(())
    });
    let asked = Command::new("kill").args(["-s", "TERM", &gateway.0.id().to_string()]).status().expect("kill runs");
    assert!(asked.success());
    let status: ExitStatus = gateway.await_that("it stops", |child| child.try_wait().expect("it can be waited for"));
    assert!(status.success(), "asked to stop, it ended with {status}");
}
