//! A stream as an operator sees it: what it holds, who reads it, and what can be changed about both. Pipelines read and
//! write it by source and target.

mod groups;
mod publishing;
mod reading;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, Value, cmd};
use sluicegate_engine::failure::{Failure, FailureKind};

use super::config::Tls;
use super::server::Server;
use crate::quantity::Secret;

pub use groups::{GroupInfo, GroupPosition};
pub use publishing::{AddOnce, Added, OnceTaken};
pub use reading::{MAX_SEARCHED_ENTRIES, PendingEntry, StoredEntry, StreamInfo};

/// Deadline of connecting and of each command.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A stream and what belongs to it. Connects when it is first asked, and again after a failure; cheap to clone.
#[derive(Clone)]
pub struct Stream {
    server: Server,
    key: Arc<str>,
    connection: Arc<Mutex<Option<MultiplexedConnection>>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("key", &self.key).field("place", &self.server.place).finish_non_exhaustive()
    }
}

/// The set in which the groups of a stream stand that are paused. Pipelines look into it before they read.
pub(crate) fn paused_key(stream: &str) -> String {
    format!("{stream}:paused")
}

impl Stream {
    /// Not yet connected. Relative paths in `tls` start at `base_dir`.
    pub fn new(
        url: &Secret,
        username: Option<&Secret>,
        password: Option<&Secret>,
        tls: Option<&Tls>,
        base_dir: &Path,
        key: &str,
    ) -> Self {
        let server = Server::new(url, username, password, tls, TIMEOUT, base_dir);
        Self { server, key: key.into(), connection: Arc::default() }
    }

    /// Host, port and database, never user or password.
    pub fn place(&self) -> &str {
        &self.server.place
    }

    /// `name KEY`, as most commands begin.
    fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&*self.key);
        command
    }

    /// A script on the stream and what is kept beside it.
    fn script(&self, text: &str, more_keys: &[&str]) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(text).arg(1 + more_keys.len()).arg(&*self.key).arg(more_keys);
        command
    }

    async fn connected(&self) -> Result<MultiplexedConnection, Failure> {
        let found = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(connection) = found {
            return Ok(connection);
        }
        let connection = self.server.connect(Duration::ZERO).await?;
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
        Ok(connection)
    }

    /// The answer to a command, error answers of the server included.
    async fn ask_raw<T: FromRedisValue>(&self, command: &Cmd) -> Result<Result<T, RedisError>, Failure> {
        let mut connection = self.connected().await?;
        match command.query_async::<T>(&mut connection).await {
            Err(error) if error.code().is_none() => Err(self.failed("asking", &error)),
            answer => Ok(answer),
        }
    }

    /// The answer to a command.
    async fn ask<T: FromRedisValue>(&self, doing: &str, command: &Cmd) -> Result<T, Failure> {
        self.ask_raw(command).await?.map_err(|error| self.failed(doing, &error))
    }

    fn failed(&self, doing: &str, error: &RedisError) -> Failure {
        let failure = self.server.failure(&format!("{doing} stream `{}`", self.key), error);
        if failure.kind == FailureKind::Disconnected {
            // The next one connects anew.
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        failure
    }

    fn nonsense(&self, doing: &str) -> Failure {
        let place = &self.server.place;
        Failure::transient(format!(
            "{doing} stream `{}` ({place}): the answer makes no sense; is this Redis 6.2 or newer?",
            self.key
        ))
    }
}

/// The value of a name in a flat list of names and values, as XINFO answers.
fn member<'v>(pairs: &'v Value, name: &str) -> Option<&'v Value> {
    match pairs {
        Value::Array(list) => list.chunks_exact(2).find(|pair| is_text(&pair[0], name)).map(|pair| &pair[1]),
        Value::Map(map) => map.iter().find(|(key, _)| is_text(key, name)).map(|(_, value)| value),
        _ => None,
    }
}

fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::SimpleString(found) => found == text,
        _ => false,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
