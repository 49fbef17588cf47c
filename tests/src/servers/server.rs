//! What the three servers have in common: a program, its process, and the folder with its data.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::eventually;
use crate::port::Port;
use crate::process::{Process, Program, run};

/// A broker on a busy machine of two cores takes about ten seconds.
pub(super) const START_LIMIT: Duration = Duration::from_secs(90);

/// A server of this test process: its program can be started again on the same port with the same data.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    program: Program,
    pub(super) port: Port,
    /// After the process: removed once it is gone.
    _folder: TempDir,
}

impl Server {
    /// Starts `program`; it listens when `probe` says so.
    pub(super) async fn start(
        program: Program,
        port: Port,
        folder: TempDir,
        probe: impl AsyncFn() -> Result<()>,
    ) -> Result<Self> {
        let process = program.start()?;
        let mut server = Self { process, program, port, _folder: folder };
        server.await_ready(probe).await?;
        Ok(server)
    }

    async fn await_ready(&mut self, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        let process = &mut self.process;
        eventually(&format!("{} answers on port {}", self.program.name, self.port.number()), START_LIMIT, async || {
            if let Err(ended) = process.ensure_running() {
                return Ok(Err(ended));
            }
            probe().await.map(Ok)
        })
        .await
        .with_context(|| format!("starting {}", self.program.name))
    }

    /// SIGKILL; the data stays.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        Ok(())
    }

    /// Starts again what was killed, or kills and starts.
    pub(super) async fn restart(&mut self, probe: impl AsyncFn() -> Result<()>) -> Result<()> {
        self.process.kill()?;
        self.process = self.program.start()?;
        self.await_ready(probe).await
    }

    /// Runs another program of the server's own folder with the server's environment.
    pub(super) fn beside(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let server = Path::new(self.program.command.get_program());
        run(server.with_file_name(program), |command| {
            command.args(arguments);
            command.envs(self.program.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.env_remove("detached");
        })
    }

    /// SIGSTOP or SIGCONT: connections stay open and nothing answers.
    pub(super) fn signal(&self, name: &str) -> Result<()> {
        self.process.signal(name)
    }
}

/// The server, or why it cannot be killed.
pub(super) fn own<'a>(server: &'a mut Option<Server>, name: &str) -> Result<&'a mut Server> {
    match server {
        Some(server) => Ok(server),
        None => bail!("this {name} is shared by all tests: start one of the test's own to kill, restart or pause it"),
    }
}
