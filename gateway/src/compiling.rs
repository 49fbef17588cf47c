//! Compiling uploads in a process of its own: this same program, started for one component, with limits on time,
//! processor and memory, without the gateway's environment and files. What is trusted of it: see the plugin host's
//! `compiler.rs`.

use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use sluicegate_plugin_host::{Compiler, HostConfig, compile};

/// The hidden subcommand.
pub const COMMAND: &str = "compile-component";
/// Compilations at the same time.
const AT_ONCE: usize = 2;
/// Longest compilation of an upload.
const WALL_LIMIT: Duration = Duration::from_secs(7);
/// Processor time of one, over all its threads, in seconds.
const CPU_LIMIT_SECS: u64 = 14;
/// Memory that one may write to. Address space that wasmtime only reserves does not count.
const DATA_LIMIT_BYTES: u64 = 1 << 30;
/// Address space, reservations counted.
const ADDRESS_LIMIT_BYTES: u64 = 64 << 30;
/// Longest machine code that is taken.
const MAX_CODE_BYTES: u64 = 256 << 20;
/// Longest input: a component, or a snapshot of one with all the memory it has written to.
const MAX_INPUT_BYTES: u64 = 512 << 20;
/// Kept of what the process says about a component it refuses.
const MAX_REASON_BYTES: u64 = 4_096;
/// How long an upload waits for its turn; it is told to come again then.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(2);
/// The same for the pipelines of a start or a reload, which have nobody to tell.
const BUILD_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a process that is ending.
const PAUSE: Duration = Duration::from_millis(1);
/// Exit status of the process when the component is at fault.
pub const REFUSED: u8 = 65;
/// What a compiler says when it has no time; uploads are answered 503 for it.
pub const BUSY: &str = "too many components are being compiled";

/// Starts processes that compile. Clones share the turns.
#[derive(Debug, Clone)]
pub struct Subprocess {
    program: PathBuf,
    turns: Arc<Turns>,
    patience: Duration,
    limit: Duration,
}

#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Given back when dropped.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

impl Turns {
    fn take(&self, patience: Duration) -> Option<Turn<'_>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_timeout_while(free, patience, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Turn(self))
    }
}

impl Default for Subprocess {
    /// By the program that runs, even if its file has been replaced since.
    fn default() -> Self {
        Self::of("/proc/self/exe".into())
    }
}

impl Subprocess {
    /// By this program, which is a `sluicegate` of the same build.
    pub fn of(program: PathBuf) -> Self {
        let turns = Arc::new(Turns { free: Mutex::new(AT_ONCE), freed: Condvar::new() });
        Self { program, turns, patience: UPLOAD_PATIENCE, limit: WALL_LIMIT }
    }

    /// For whoever can wait for a turn and cannot come again.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { patience: BUILD_PATIENCE, ..self.clone() }
    }

    /// With another limit on the time of a compilation.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .arg(COMMAND)
            .env_clear()
            // Its allocator would take a whole gigabyte at once, and with it the limit.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }
}

impl Compiler for Subprocess {
    fn compile(&self, component: &[u8]) -> Result<Vec<u8>, String> {
        let _turn = self.turns.take(self.patience).ok_or(BUSY)?;
        let failed = |error: std::io::Error| format!("the compiler cannot be run: {error}");
        let mut child = self.start().map_err(failed)?;
        let give_up = Instant::now() + self.limit;
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("the compiler cannot be run: it has no pipes".to_owned());
        };
        // The scope ends only when its threads do; the process is ended before, and with it their pipes.
        std::thread::scope(|scope| {
            // A process that ends early has not read everything: its status says more than this error.
            scope
                .spawn(move || input.write_all(component).map_err(|error| tracing::debug!(%error, "not all was read")));
            let (code, reason) = (reading(scope, output, MAX_CODE_BYTES), reading(scope, errors, MAX_REASON_BYTES));
            let code = code.recv_timeout(give_up.saturating_duration_since(Instant::now()));
            let is_whole = code.as_ref().is_ok_and(|code| code.len() as u64 <= MAX_CODE_BYTES);
            let has_ended = is_whole && ended_by(&mut child, give_up);
            if !has_ended && let Err(error) = child.kill() {
                tracing::warn!(%error, "cannot end a compiler that took too long");
            }
            let status = child.wait().map_err(failed)?;
            let Ok(code) = code else {
                return Err(format!("it takes longer than {:?} to compile; make its functions smaller", self.limit));
            };
            let reason = reason.recv().unwrap_or_default();
            verdict(status, code, &String::from_utf8_lossy(&reason))
        })
    }
}

/// Reads up to `limit` bytes and one more.
fn reading<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    pipe: impl Read + Send + 'scope,
    limit: u64,
) -> mpsc::Receiver<Vec<u8>> {
    let (done, result) = mpsc::sync_channel(1);
    scope.spawn(move || {
        let mut bytes = Vec::new();
        if let Err(error) = pipe.take(limit + 1).read_to_end(&mut bytes) {
            tracing::debug!(%error, "reading from the compiler failed");
        }
        // Nobody waits any more when it took too long.
        done.send(bytes).is_ok()
    });
    result
}

/// Whether it ends by itself in time, having closed its output: that is within moments, or it never does.
#[expect(clippy::disallowed_methods, reason = "on a thread for what blocks")]
fn ended_by(child: &mut Child, give_up: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return true,
            Ok(None) if Instant::now() < give_up => std::thread::sleep(PAUSE),
            Ok(None) | Err(_) => return false,
        }
    }
}

fn verdict(status: ExitStatus, code: Vec<u8>, reason: &str) -> Result<Vec<u8>, String> {
    if code.len() as u64 > MAX_CODE_BYTES {
        return Err(format!("its machine code has more than {MAX_CODE_BYTES} bytes"));
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(code),
        (Some(code), _) if code == i32::from(REFUSED) => Err(reason.trim().to_owned()),
        // SIGXCPU and the SIGKILL that follows it.
        (_, Some(24 | 9)) => Err(format!("it takes more than {CPU_LIMIT_SECS} s of CPU to compile")),
        _ => Err(format!(
            "the compiler gave up on it ({status}): it takes more memory than compiling may, or is hostile"
        )),
    }
}

/// The process itself: limits what it may use, reads a component from standard input and writes its code to standard
/// output. The exit status is 0, [`REFUSED`] with the reason on standard error, or 1.
///
/// # Errors
/// The limits cannot be set, or a pipe is gone.
pub fn run() -> anyhow::Result<u8> {
    confine()?;
    let config = HostConfig::default();
    let mut component = Vec::new();
    std::io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut component)?;
    match compile(&config, &component) {
        Ok(code) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&code)?;
            out.flush()?;
            Ok(0)
        }
        Err(reason) => {
            let mut out = std::io::stderr().lock();
            writeln!(out, "{reason}")?;
            Ok(REFUSED)
        }
    }
}

/// Before any thread is started: threads inherit how nice they are.
fn confine() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let to = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
    setrlimit(Resource::Cpu, to(CPU_LIMIT_SECS))?;
    setrlimit(Resource::Data, to(DATA_LIMIT_BYTES))?;
    setrlimit(Resource::As, to(ADDRESS_LIMIT_BYTES))?;
    setrlimit(Resource::Core, to(0))?;
    setrlimit(Resource::Fsize, to(0))?;
    nice(19)?;
    Ok(())
}
