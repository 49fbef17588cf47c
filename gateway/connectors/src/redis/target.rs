//! The target: appends to a stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, RedisWrite, Value};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Batching, Outlet, Target};

use super::config::TargetConfig;
use super::server::Server;
use super::{durability, mapping};
use crate::registry::BuildContext;

/// Most bytes of bodies sent before their answers are awaited: the library copies a pipeline once.
const MAX_PIPELINE_BYTES: usize = 8 << 20;

/// The command's own words, and the longest limit.
const MAX_COMMAND_BYTES: usize = 32;
const MAX_COMMAND_ARGUMENTS: usize = 6;

/// Appends messages to a Redis Stream, a pipeline of XADDs a batch, each confirmed by its own answer. Batches go one
/// after the other, so that entries stand in the stream in the order in which messages were handed over.
pub struct RedisTarget {
    server: Server,
    config: TargetConfig,
    has_warned: bool,
}

impl RedisTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, context: &BuildContext) -> Self {
        let server = Server::new(
            &config.url,
            config.username.as_ref(),
            config.password.as_ref(),
            config.tls.as_ref(),
            config.timeout.0,
            &context.base_dir,
        );
        Self { server, config: config.clone(), has_warned: false }
    }
}

#[async_trait]
impl Target for RedisTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let mut connection = self.server.connect(Duration::ZERO).await?;
        // Tells wrong credentials, a server that is loading or a half-open connection before the first message does.
        redis::cmd("PING")
            .query_async::<Value>(&mut connection)
            .await
            .map_err(|error| self.server.failure("greeting the server", &error))?;
        if !self.has_warned {
            durability::warn_if_unsafe(&self.server, &mut connection).await;
            self.has_warned = true;
        }
        Ok(Arc::new(RedisOutlet {
            server: self.server.clone(),
            doing: format!("adding to stream `{}`", self.config.stream),
            stream: self.config.stream.clone(),
            max_len: self.config.max_len,
            connection,
        }))
    }

    fn batching(&self) -> Batching {
        Batching { max_messages: 256, max_concurrent: 1 }
    }
}

struct RedisOutlet {
    server: Server,
    doing: String,
    stream: String,
    max_len: Option<u64>,
    connection: MultiplexedConnection,
}

impl RedisOutlet {
    fn add(&self, message: &Message) -> Cmd {
        // Room for all of it at once: what grows is copied again and again.
        let (mut bytes, mut fields) = (MAX_COMMAND_BYTES + self.stream.len(), MAX_COMMAND_ARGUMENTS);
        mapping::encode(message, |name, value| {
            bytes += name.len() + value.len();
            fields += 2;
        });
        let mut add = Cmd::with_capacity(fields, bytes);
        add.arg("XADD").arg(&self.stream);
        if let Some(max_len) = self.max_len {
            add.arg("MAXLEN").arg("~").arg(max_len);
        }
        add.arg("*");
        mapping::encode(message, |name, value| {
            add.write_arg(name);
            add.write_arg(value);
        });
        add
    }

    async fn publish_pipeline(&self, messages: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let mut pipeline = redis::Pipeline::with_capacity(messages.len());
        pipeline.ignore_errors();
        for message in messages {
            pipeline.add_command(self.add(message));
        }
        let answers: RedisResult<Vec<RedisResult<Value>>> = pipeline.query_async(&mut self.connection.clone()).await;
        match answers {
            Ok(answers) if answers.len() == messages.len() => answers
                .into_iter()
                .map(|answer| answer.map(drop).map_err(|error| self.server.failure(&self.doing, &error)))
                .collect(),
            Ok(answers) => {
                let text = format!(
                    "{} ({}): {} answers to {} commands; the connection is opened anew",
                    self.doing,
                    self.server.place,
                    answers.len(),
                    messages.len()
                );
                vec![Err(Failure::disconnected(text)); messages.len()]
            }
            Err(error) => vec![Err(self.server.failure(&self.doing, &error)); messages.len()],
        }
    }
}

#[async_trait]
impl Outlet for RedisOutlet {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let mut results = Vec::with_capacity(batch.len());
        while results.len() < batch.len() {
            let rest = &batch[results.len()..];
            results.extend(self.publish_pipeline(&rest[..fitting(rest)]).await);
        }
        results
    }
}

/// How many of the first messages go into one pipeline: at least one.
fn fitting(messages: &[Arc<Message>]) -> usize {
    let mut bytes = 0;
    let fit = messages.iter().take_while(|message| {
        bytes += message.body.len();
        bytes <= MAX_PIPELINE_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_holds_a_limited_number_of_bytes_but_at_least_one_message() {
        let message = |size: usize| Arc::new(Message::new("s", "t", vec![0_u8; size]));
        assert_eq!(fitting(&vec![message(10); 300]), 300);
        assert_eq!(fitting(&vec![message(3 << 20); 5]), 2);
        assert_eq!(fitting(&[message(9 << 20), message(1)]), 1);
    }
}
