//! A private RabbitMQ, with an Erlang port mapper of its own: it cannot meet another broker of this machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lapin::{Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::time::timeout;

use super::server::{Server, own};
use crate::port::Port;
use crate::process::{Process, Program};

/// Debian's, the vendor's generic archive's and Homebrew's places; the wrapper in `/usr/sbin` would switch the user.
const SCRIPTS: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
];

/// A connection that takes longer is tried again by those who wait.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A RabbitMQ with the user `guest`, password `guest`.
#[derive(Debug)]
pub struct RabbitMq {
    url: String,
    server: Option<Server>,
    /// After the server, which is registered with it, and for its whole life, restarts included.
    _port_mapper: Option<(Process, Port, Port)>,
}

impl RabbitMq {
    /// Starts one of the caller's own.
    ///
    /// # Errors
    /// When RabbitMQ is missing or does not answer, with its log.
    pub async fn start() -> Result<Self> {
        let (port, distribution, mapper) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let folder = tempfile::Builder::new().prefix("sluicegate-rabbitmq-").tempdir()?;
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", port.number());
        let port_mapper = start_port_mapper(&mapper, folder.path())?;
        let program = program(&folder, &port, &distribution, &mapper)?;
        let server = Server::start(program, port, folder, async || probe(&url).await).await?;
        Ok(Self { url, server: Some(server), _port_mapper: Some((port_mapper, mapper, distribution)) })
    }

    pub(super) fn running_elsewhere(url: String) -> Self {
        Self { url, server: None, _port_mapper: None }
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `HOST:PORT`, to build URLs with other credentials.
    pub fn host_and_port(&self) -> &str {
        let host = self.url.rsplit_once('@').map_or(self.url.as_str(), |(_, host)| host);
        host.split_once('/').map_or(host, |(host, _)| host)
    }

    /// A client.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(&self) -> Result<Connection> {
        connect(&self.url).await
    }

    /// SIGKILL; durable queues and persistent messages stay.
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn kill(&mut self) -> Result<()> {
        own(&mut self.server, "RabbitMQ")?.kill()
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it is the shared one or does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        let url = &self.url;
        own(&mut self.server, "RabbitMQ")?.restart(async || probe(url).await).await
    }

    /// Runs `rabbitmqctl ARGUMENTS` against it.
    ///
    /// # Errors
    /// When it is the shared one or the command fails.
    pub fn control(&mut self, arguments: &[&str]) -> Result<String> {
        own(&mut self.server, "RabbitMQ")?.beside("rabbitmqctl", arguments)
    }

    /// Lets it hang: connections stay open and nothing answers, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn pause(&mut self) -> Result<()> {
        own(&mut self.server, "RabbitMQ")?.signal("STOP")
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn resume(&mut self) -> Result<()> {
        own(&mut self.server, "RabbitMQ")?.signal("CONT")
    }
}

/// A client of the broker at `url`. One that is just starting or stopping may take a connection and never answer on it:
/// 5 s.
///
/// # Errors
/// When it does not answer.
pub async fn connect(url: &str) -> Result<Connection> {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    Ok(timeout(CONNECT_LIMIT, connecting).await.context("RabbitMQ does not answer")??)
}

async fn probe(url: &str) -> Result<()> {
    connect(url).await?.close(200, "ready".into()).await?;
    Ok(())
}

fn start_port_mapper(port: &Port, folder: &Path) -> Result<Process> {
    let mut command = Command::new("epmd");
    command.args(["-address", "127.0.0.1", "-port", &port.number().to_string()]);
    let program = Program { name: "epmd", command, output: folder.join("epmd.log"), folder: None };
    program.start()
}

fn program(folder: &TempDir, port: &Port, distribution: &Port, mapper: &Port) -> Result<Program> {
    let Some(script) = SCRIPTS.iter().find(|script| Path::new(script).exists()) else {
        bail!("RabbitMQ is not installed (Debian: rabbitmq-server): none of {} is there", SCRIPTS.join(", "));
    };
    let folder = folder.path();
    let settings = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n\
         disk_free_limit.absolute = 50MB\n",
        port.number()
    );
    std::fs::write(folder.join("rabbitmq.conf"), settings).context("writing rabbitmq.conf")?;
    std::fs::write(folder.join("enabled_plugins"), "[].\n").context("writing enabled_plugins")?;
    let mut command = Command::new(script);
    command
        .env("HOME", folder) // its Erlang cookie
        .env("ERL_EPMD_PORT", mapper.number().to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("sluicegate-{}@localhost", port.number()))
        .env("RABBITMQ_DIST_PORT", distribution.number().to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null") // not the machine's rabbitmq-env.conf
        .env("detached", "true") // the script becomes the broker instead of waiting for it, so that signals reach it
        .env_remove("RABBITMQ_NODE_PORT")
        .current_dir(folder);
    Ok(Program { name: "rabbitmq", command, output: folder.join("output.log"), folder: Some(folder.to_owned()) })
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;
    use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
    use lapin::types::FieldTable;

    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn what_was_confirmed_is_there_after_a_kill() -> Result<()> {
        let mut server = RabbitMq::start().await?;
        let connection = server.connect().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channel.queue_declare("kept".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
        let persistent = BasicProperties::default().with_delivery_mode(2);
        channel
            .basic_publish("".into(), "kept".into(), BasicPublishOptions::default(), b"body", persistent)
            .await?
            .await?;
        server.kill()?;
        assert!(server.connect().await.is_err());
        server.restart().await?;
        let connection = server.connect().await?;
        let channel = connection.create_channel().await?;
        let message = channel.basic_get("kept".into(), BasicGetOptions { no_ack: true }).await?;
        assert_eq!(message.context("the queue is empty")?.data, b"body");
        Ok(())
    }

    #[tokio::test]
    async fn a_paused_broker_does_not_answer_until_it_is_resumed() -> Result<()> {
        let mut server = RabbitMq::start().await?;
        server.pause()?;
        assert!(tokio::time::timeout(Duration::from_millis(300), probe(server.url())).await.is_err());
        server.resume()?;
        eventually("it answers", Duration::from_secs(10), async || probe(server.url()).await).await;
        Ok(())
    }
}
