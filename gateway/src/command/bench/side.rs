//! A side of a measurement: a process that carries messages from the source to the target.

use std::fmt;
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::broker::{Names, System};
use super::usage::Usage;
use super::{Plan, gateway};

/// Carries the broker's address to the sides: a command line would show its password to everyone on the machine.
pub(super) const URL_VARIABLE: &str = "SLUICEGATE_BENCH_URL";
/// How much of its output a failed side is quoted with, in bytes.
const MAX_QUOTED_BYTES: usize = 4 << 10;

/// Who carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    /// The client library alone.
    Bare,
    /// The gateway with source and target alone.
    GatewayWithoutSteps,
    /// The gateway with a filter and a router.
    Gateway,
    /// The same, keeping no receipts of delivered messages.
    GatewayWithoutReceipts,
    /// The same, keeping a receipt of every message.
    GatewayWithReceipts,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare loop",
            Self::GatewayWithoutSteps => "without steps",
            Self::Gateway => "gateway",
            Self::GatewayWithoutReceipts => "no receipts",
            Self::GatewayWithReceipts => "all receipts",
        })
    }
}

/// A side at work. Killed when dropped.
pub(super) struct Running {
    side: Side,
    child: Child,
    /// Its configuration, data and output; after the child, so that it is removed when the child is gone.
    folder: TempDir,
}

impl Running {
    /// Starts it on what is in the source.
    pub fn start(side: Side, system: System, url: &str, names: &Names, plan: &Plan) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-bench-").tempdir()?;
        let mut command = Command::new(&plan.program);
        match side {
            Side::Bare => {
                let name = match system {
                    System::Rabbitmq => "rabbitmq",
                    System::Redis => "redis",
                };
                let in_flight = plan.in_flight.to_string();
                command.args(["bench", "bare-loop", name, &names.source, &names.target, &in_flight]);
            }
            Side::Gateway | Side::GatewayWithoutSteps | Side::GatewayWithoutReceipts | Side::GatewayWithReceipts => {
                let file = folder.path().join("sluicegate.yaml");
                std::fs::write(&file, gateway::configuration(system, names, side, plan))?;
                command.arg("run").arg(file);
            }
        }
        command.env(URL_VARIABLE, url);
        Self::spawn(side, command, folder, plan)
    }

    fn spawn(side: Side, mut command: Command, folder: TempDir, plan: &Plan) -> anyhow::Result<Self> {
        let output = std::fs::File::create(folder.path().join("output.log"))?;
        let child = command
            .env("SLUICEGATE_LOG", "warn")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {side} ({})", plan.program.display()))?;
        Ok(Self { side, child, folder })
    }

    /// Starts it as a server that takes messages at `port`.
    pub fn start_server(side: Side, port: u16, configuration: &str, plan: &Plan) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-bench-").tempdir()?;
        let mut command = Command::new(&plan.program);
        match side {
            Side::Bare => {
                command.args(["bench", "bare-server", &port.to_string()]);
            }
            Side::Gateway | Side::GatewayWithoutSteps | Side::GatewayWithoutReceipts | Side::GatewayWithReceipts => {
                let file = folder.path().join("sluicegate.yaml");
                std::fs::write(&file, configuration)?;
                command.arg("run").arg(file);
            }
        }
        Self::spawn(side, command, folder, plan)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&mut self) -> anyhow::Result<Option<Usage>> {
        if let Some(status) = self.child.try_wait()? {
            return Err(self.ended(status));
        }
        Ok(self.child.id().and_then(Usage::of))
    }

    /// Why it is no use to go on, with its last words.
    pub fn failed(&self, why: impl fmt::Display) -> anyhow::Error {
        let output = std::fs::read(self.folder.path().join("output.log")).unwrap_or_default();
        let output = String::from_utf8_lossy(&output[output.len().saturating_sub(MAX_QUOTED_BYTES)..]).into_owned();
        anyhow::anyhow!("the {} {why}; it wrote:\n{output}", self.side)
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        self.failed(format_args!("ended ({status}) before all messages had arrived"))
    }

    /// Ends it at once: everything it could still do is of no more interest.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot end the {}", self.side))
    }
}
