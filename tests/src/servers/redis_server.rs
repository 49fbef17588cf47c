//! A private Redis.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::server::{Server, own};
use crate::port::Port;
use crate::process::Program;

/// A connection that takes longer is tried again by those who wait.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A Redis that appends every write to disk before it answers (`appendfsync always`).
#[derive(Debug)]
pub struct Redis {
    url: String,
    server: Option<Server>,
}

impl Redis {
    /// Starts one of the caller's own.
    ///
    /// # Errors
    /// When `redis-server` is missing or does not answer, with its log.
    pub async fn start() -> Result<Self> {
        Self::start_with("always").await
    }

    /// As [`start`](Self::start), with another `appendfsync`: with `everysec` a kill of the machine loses what was written
    /// in the last second, and a kill of the process what it had not yet handed to the kernel.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(append_fsync: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = tempfile::Builder::new().prefix("sluicegate-redis-").tempdir()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.number().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", append_fsync]);
        command.arg("--dir").arg(folder.path());
        let url = format!("redis://127.0.0.1:{}", port.number());
        let program = Program {
            name: "redis",
            command,
            output: folder.path().join("output.log"),
            folder: Some(folder.path().to_owned()),
        };
        let server = Server::start(program, port, folder, async || probe(&url).await)
            .await
            .context("is redis-server installed (Debian: redis-server)?")?;
        Ok(Self { url, server: Some(server) })
    }

    pub(super) fn running_elsewhere(url: String) -> Self {
        Self { url, server: None }
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(&self) -> Result<redis::aio::MultiplexedConnection> {
        connect(&self.url).await
    }

    /// SIGKILL; what was answered is on disk.
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn kill(&mut self) -> Result<()> {
        own(&mut self.server, "Redis")?.kill()
    }

    /// Starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it is the shared one or does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        let url = &self.url;
        own(&mut self.server, "Redis")?.restart(async || probe(url).await).await
    }

    /// Lets it hang: connections stay open and nothing answers, until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn pause(&mut self) -> Result<()> {
        own(&mut self.server, "Redis")?.signal("STOP")
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// When it is the shared one.
    pub fn resume(&mut self) -> Result<()> {
        own(&mut self.server, "Redis")?.signal("CONT")
    }
}

async fn connect(url: &str) -> Result<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    let connecting = client.get_multiplexed_async_connection();
    Ok(timeout(CONNECT_LIMIT, connecting).await.context("Redis does not answer")??)
}

/// Also while it still loads its file it accepts connections, but refuses commands.
async fn probe(url: &str) -> Result<()> {
    let mut connection = connect(url).await?;
    redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_kill() -> Result<()> {
        let mut server = Redis::start().await?;
        let mut client = server.connect().await?;
        redis::cmd("SET").arg("name").arg("value").exec_async(&mut client).await?;
        server.kill()?;
        assert!(server.connect().await.is_err());
        server.restart().await?;
        let mut client = server.connect().await?;
        let value: String = redis::cmd("GET").arg("name").query_async(&mut client).await?;
        assert_eq!(value, "value");
        Ok(())
    }

    #[tokio::test]
    async fn a_paused_server_does_not_answer_until_it_is_resumed() -> Result<()> {
        let mut server = Redis::start().await?;
        server.pause()?;
        assert!(tokio::time::timeout(Duration::from_millis(200), probe(server.url())).await.is_err());
        server.resume()?;
        eventually("it answers", Duration::from_secs(10), async || probe(server.url()).await).await;
        Ok(())
    }
}
