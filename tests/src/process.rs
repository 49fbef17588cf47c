//! A child process that never outlives its test: it dies when it is dropped and when the test process dies in any way.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::eventually;

/// Runs the given command as this very process, with a companion that waits for the end of its standard input: a pipe
/// whose other end only the test process holds. `$1` is a folder the companion then removes, or empty.
const GUARD: &str = r#"
exec 3<&0
folder=$1
shift
(
  trap '' TERM INT HUP
  read -r _ <&3
  kill -KILL $$ 2>/dev/null
  [ -z "$folder" ] || rm -rf "$folder"
  kill -KILL 0
) >/dev/null 2>&1 &
exec 3<&- "$@" </dev/null
"#;

/// How long a killed process may take to be gone.
const REAP_LIMIT: Duration = Duration::from_secs(10);
/// Lines of output shown when a test fails.
const SHOWN_LINES: usize = 150;

static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// From now on the last lines of processes that end are appended to this file instead of being printed: for tests with
/// a harness of their own, which does not hold back what they print.
pub fn keep_output_in(path: PathBuf) {
    // The first call counts.
    KEPT_IN.get_or_init(|| path);
}

/// What to start.
#[derive(Debug)]
pub struct Program {
    /// Short, for messages: `rabbitmq`.
    pub name: &'static str,
    /// With arguments, environment and working folder; standard streams are set here.
    pub command: Command,
    /// Standard output and error are appended here.
    pub output: PathBuf,
    /// Removed when the test process dies without dropping the process.
    pub folder: Option<PathBuf>,
}

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
}

impl Program {
    /// Starts it in a process group of its own.
    ///
    /// # Errors
    /// When the program or its output file cannot be opened.
    pub fn start(&self) -> Result<Process> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.output)
            .with_context(|| format!("opening {} for the output of {}", self.output.display(), self.name))?;
        let mut guarded = Command::new("/bin/sh");
        guarded.args(["-c", GUARD, "guard"]).arg(self.folder.as_deref().unwrap_or(Path::new("")));
        guarded.arg(self.command.get_program()).args(self.command.get_args());
        if let Some(folder) = self.command.get_current_dir() {
            guarded.current_dir(folder);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => guarded.env(name, value),
                None => guarded.env_remove(name),
            };
        }
        let child = guarded
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}: {:?}", self.name, self.command.get_program()))?;
        Ok(Process { name: self.name, child, output: self.output.clone() })
    }
}

impl Process {
    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal such as `TERM`, `HUP`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status()?;
        if !status.success() {
            bail!("sending SIG{name} to {} (process {}) failed: {status}", self.name, self.id());
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone with all it started.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // The group has the companion and, of RabbitMQ, small helpers that end by themselves; it is gone when all are.
        let status = signal_group(self.id(), "KILL")?;
        if !status.success() && self.child.try_wait()?.is_none() {
            bail!("killing {} (group {}) failed: {status}", self.name, self.id());
        }
        self.child.wait().with_context(|| format!("waiting for {} to die", self.name))
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it has not ended within `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let (name, child) = (self.name, &mut self.child);
        eventually(&format!("{name} ends"), deadline, async || {
            child.try_wait()?.with_context(|| format!("{name} still runs"))
        })
        .await
    }

    /// All it has written so far to standard output and error, undecodable bytes replaced.
    pub fn output(&self) -> String {
        std::fs::read(&self.output).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails, with its output, if it has ended.
    ///
    /// # Errors
    /// Its exit status and last lines.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; its last lines:\n{}", self.name, self.last_lines()),
        }
    }

    /// The end of its output.
    pub fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
        let end = std::time::Instant::now() + REAP_LIMIT;
        // Children in sessions of their own (PostgreSQL's) end by themselves when they see their parent gone; the folder
        // under them is removed next, so give the group the moment it takes.
        while signal_group(self.id(), "0").is_ok_and(|status| status.success()) && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        let text = format!("--- output of {} (process {}):\n{}\n---\n", self.name, self.id(), self.last_lines());
        match KEPT_IN.get() {
            None => print!("{text}"), // the test harness shows this only if the test fails
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
                    eprintln!("keeping the output of {} in {}: {error}", self.name, path.display());
                }
            }
        }
    }
}

fn signal_group(id: u32, signal: &str) -> std::io::Result<ExitStatus> {
    Command::new("kill").args(["-s", signal, "--", &format!("-{id}")]).stderr(Stdio::null()).status()
}

/// Runs a short command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails, with its standard error.
pub fn run(program: impl AsRef<OsStr>, configure: impl FnOnce(&mut Command)) -> Result<String> {
    let mut command = Command::new(program);
    configure(&mut command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
