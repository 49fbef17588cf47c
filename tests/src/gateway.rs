//! The real `sluicegate` binary as a process of the test.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::eventually;
use crate::port::Port;
use crate::process::{Process, Program, run};

/// Environment variable with the path of the binary; `tests/run` sets it.
pub const BINARY: &str = "SLUICEGATE_TEST_BIN";
/// Name of the configuration in the gateway's folder.
const CONFIG_FILE: &str = "sluicegate.yaml";
/// From start to `/ready`, with plugins compiled by an unoptimised compiler on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to the end; above the gateway's own limit for draining.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// For each request to `/ready`, `/health`, `/metrics`.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// A running gateway, or one that was stopped and can be started again, in a temporary folder with its configuration
/// `sluicegate.yaml` and its data. Its output is shown when the test fails.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    program: Program,
    port: Port,
    client: reqwest::Client,
    /// After the process: removed once it is gone.
    folder: TempDir,
}

impl Gateway {
    /// Starts it with `config`, to which `server` and `data_dir` are added, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends before it is ready, with its output.
    pub async fn start(config: &str) -> Result<Self> {
        Self::start_in(new_folder()?, config).await
    }

    /// As [`start`](Self::start), in a folder that has files already which the configuration names.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_in(folder: TempDir, config: &str) -> Result<Self> {
        let mut gateway = Self::spawn_in(folder, config)?;
        gateway.await_ready().await?;
        Ok(gateway)
    }

    /// Starts it and waits only until it is alive: a source or target of it cannot connect.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_unready(config: &str) -> Result<Self> {
        Self::start_unready_in(new_folder()?, config).await
    }

    /// Starts it with a configuration file that is in `folder` already and makes it listen on `port`, which
    /// `environment` tells it, and waits until it is ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_file(
        folder: TempDir,
        config: &str,
        port: Port,
        environment: &[(&'static str, String)],
    ) -> Result<Self> {
        let mut gateway = Self::spawn(folder, config, port, environment)?;
        gateway.await_ready().await?;
        Ok(gateway)
    }

    /// As [`start_unready`](Self::start_unready), in a folder that has files already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_unready_in(folder: TempDir, config: &str) -> Result<Self> {
        let mut gateway = Self::spawn_in(folder, config)?;
        gateway.await_status("/health", 200, READY_LIMIT).await?;
        Ok(gateway)
    }

    fn spawn_in(folder: TempDir, config: &str) -> Result<Self> {
        let port = Port::reserve()?;
        write_config(folder.path(), &port, config)?;
        Self::spawn(folder, CONFIG_FILE, port, &[])
    }

    fn spawn(folder: TempDir, config: &str, port: Port, environment: &[(&'static str, String)]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(["run", config]).current_dir(folder.path()).env("NO_COLOR", "1");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let program = Program {
            name: "sluicegate",
            command,
            output: folder.path().join("gateway-output.log"),
            folder: Some(folder.path().to_owned()),
        };
        let client = http_client()?;
        Ok(Self { process: program.start()?, program, port, client, folder })
    }

    /// Where its configuration, data and relative paths are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    /// `HOST:PORT`, for raw connections.
    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// The process, for its id.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// All it has written to standard output and error.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The status of `GET path`, or why there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, path: &str) -> Result<u16> {
        Ok(self.client.get(self.url(path)).timeout(PROBE_LIMIT).send().await?.status().as_u16())
    }

    /// The text of `GET path`.
    ///
    /// # Errors
    /// When it does not answer with a success.
    pub async fn text(&self, path: &str) -> Result<String> {
        let answer = self.client.get(self.url(path)).timeout(PROBE_LIMIT).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The sum of all samples of the metric `name` whose labels contain each of `labels` (`pipeline="orders"`); 0 when
    /// there is none.
    ///
    /// # Errors
    /// When `/metrics` does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = self.text("/metrics").await?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        Ok(samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Errors
    /// When the gateway ends instead, with its output.
    pub async fn await_ready(&mut self) -> Result<()> {
        self.await_status("/ready", 200, READY_LIMIT).await
    }

    /// Waits until `GET path` answers `status`.
    ///
    /// # Errors
    /// When the gateway ends instead, with its output.
    pub async fn await_status(&mut self, path: &str, status: u16, deadline: Duration) -> Result<()> {
        let (process, client) = (&mut self.process, &self.client);
        let url = format!("http://{}{path}", self.port.address());
        eventually(&format!("{path} answers {status}"), deadline, async || {
            if let Err(ended) = process.ensure_running() {
                return Ok(Err(ended));
            }
            let answer = client.get(&url).timeout(PROBE_LIMIT).send().await?;
            let found = answer.status();
            ensure!(found == status, "{path} answers {found}: {}", answer.text().await?);
            Ok(Ok(()))
        })
        .await
    }

    /// Waits until its output contains `text`.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    pub async fn await_output(&self, text: &str, deadline: Duration) {
        eventually(&format!("the output contains {text:?}"), deadline, async || {
            ensure!(self.output().contains(text), "it does not");
            Ok(())
        })
        .await;
    }

    /// Memory of the process that is resident now, in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS")?;
        Ok(kilobytes << 10)
    }

    /// Writes another configuration and sends SIGHUP. The reload is through when the gateway says so.
    ///
    /// # Errors
    /// When the file cannot be written or the gateway is gone.
    pub fn reload(&self, config: &str) -> Result<()> {
        write_config(self.folder(), &self.port, config)?;
        self.process.signal("HUP")
    }

    /// SIGTERM: it drains. Does not wait; see [`stop`](Self::stop).
    ///
    /// # Errors
    /// When it is gone already.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal("TERM")
    }

    /// SIGTERM, and waits until it has drained and ended.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        Ok(self.process.wait(STOP_LIMIT).await)
    }

    /// Waits until it has ended after [`terminate`](Self::terminate).
    ///
    /// # Panics
    /// When it has not within `deadline`.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait(deadline).await
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        Ok(())
    }

    /// Starts it again after it ended, with the same configuration, data and port, and waits until it is ready.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "restarting the gateway: it still runs; stop or kill it first");
        self.process = self.program.start()?;
        self.await_ready().await
    }

    /// Runs `sluicegate ARGUMENTS` beside it, in its folder, to its end; returns what it printed.
    ///
    /// # Errors
    /// When the command fails, with its standard error.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        run_binary(self.folder(), arguments).await
    }
}

/// Runs `sluicegate ARGUMENTS` in `folder` to its end; returns what it printed.
///
/// # Errors
/// When the command fails, with its standard error.
pub async fn run_binary(folder: &Path, arguments: &[&str]) -> Result<String> {
    let folder = folder.to_owned();
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let command = tokio::task::spawn_blocking(move || {
        run(binary()?, |command| {
            command.args(arguments).current_dir(folder).env("NO_COLOR", "1");
        })
    });
    command.await?
}

/// An empty temporary folder for [`Gateway::start_in`].
///
/// # Errors
/// When it cannot be created.
pub fn new_folder() -> Result<TempDir> {
    tempfile::Builder::new().prefix("sluicegate-gateway-").tempdir().context("creating the gateway's folder")
}

/// A client for requests to the gateway.
///
/// # Errors
/// When it cannot be made.
pub fn http_client() -> Result<reqwest::Client> {
    static TLS_PROVIDER: OnceLock<()> = OnceLock::new();
    TLS_PROVIDER.get_or_init(|| {
        // reqwest is built without one. Fails only if somebody installed one before, which serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
    reqwest::Client::builder().no_proxy().build().context("making an HTTP client")
}

fn write_config(folder: &Path, port: &Port, config: &str) -> Result<()> {
    let path = folder.join(CONFIG_FILE);
    let text = format!("server: {{ listen: '{}' }}\ndata_dir: ./data\n{config}", port.address());
    // Renamed into place: a gateway that watches the file never reads half of it.
    let new = folder.join("sluicegate.yaml.new");
    std::fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
    std::fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
}

/// The gateway's binary: [`BINARY`], or the one beside the test binary, which is brought up to date first.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("building the gateway: {error}"))
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY) {
        return Ok(PathBuf::from(path));
    }
    // target/PROFILE/deps/TEST: the binary is two folders up, in the same profile.
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(Path::parent).context("the test binary is not in target/PROFILE/deps")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(cargo, |command| {
        command.args(["build", "--quiet", "--package", "sluicegate", "--manifest-path"]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
        if profile.ends_with("release") {
            command.arg("--release");
        }
    })?;
    Ok(profile.join("sluicegate"))
}
