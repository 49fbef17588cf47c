//! The source: a member of a consumer group.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, cmd};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Source};
use tokio_util::task::AbortOnDropHandle;

use super::config::{SourceConfig, Start};
use super::durability;
use super::in_flight::InFlight;
use super::inlet::RedisInlet;
use super::server::Server;
use super::settler::RedisSettler;
use super::stream::paused_key;
use crate::registry::BuildContext;

/// Reads a Redis Stream as a member of a consumer group.
///
/// - **Two connections**: one blocks in XREADGROUP, the other settles.
/// - **Delivered, dropped, dead-lettered** entries are acknowledged (XACK), many with one command.
/// - **Requeued** entries stay pending, with their idle time set to `claim_after`, so that the next look for stale
///   entries (of this gateway: with its next read; of any other: within `claim_after` / 6) delivers them again.
/// - **In flight** entries are touched (XCLAIM to itself, JUSTID) every `claim_after` / 3, however long they take, so
///   that no other gateway takes them over while this one lives.
/// - **Left behind** entries are taken over: at connect those pending for this consumer's own name; every
///   `claim_after` / 6 (at most 10s) those that no consumer has touched for `claim_after` (XAUTOCLAIM).
/// - **A deleted group or stream** is created again, from the earliest entry: what was pending with it is not known any
///   more, so entries may come twice, but none is lost.
/// - **Attempt** is the delivery count of the pending entry.
/// - **Pause**: before each read, if the source is [`pausable`](RedisSource::pausable).
pub struct RedisSource {
    server: Server,
    group: Option<Arc<Membership>>,
    config: SourceConfig,
    pipeline: Arc<str>,
    in_flight: Arc<InFlight>,
    /// Whether the group has existed before, so that its absence means that somebody deleted it.
    has_existed: bool,
    can_be_paused: bool,
}

/// The group this gateway belongs to, and under which name.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) server: Server,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) consumer: String,
    /// Whether nobody else uses the consumer's name, ever again.
    pub(super) is_consumer_unique: bool,
    pub(super) claim_after: Duration,
    /// The set in which the group stands while it is to read nothing, where groups can be paused.
    pub(super) paused_key: Option<String>,
}

impl Membership {
    /// `name stream group`, as most commands begin.
    pub(super) fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.stream).arg(&self.group);
        command
    }

    /// How often to look for stale entries.
    pub(super) fn claim_interval(&self) -> Duration {
        (self.claim_after / 6).min(Duration::from_secs(10))
    }

    /// What an error asks for.
    pub(super) fn failure(&self, doing: &str, error: &RedisError) -> Failure {
        self.server.failure(&format!("{doing} of stream `{}`, group `{}`", self.stream, self.group), error)
    }

    /// The server answered something that no version of Redis does.
    pub(super) fn nonsense(&self, doing: &str) -> Failure {
        Failure::disconnected(format!(
            "{doing} of stream `{}`, group `{}` ({}): the answer makes no sense; is this Redis 6.2 or newer?",
            self.stream, self.group, self.server.place
        ))
    }
}

impl RedisSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        let server = Server::new(
            &config.url,
            config.username.as_ref(),
            config.password.as_ref(),
            config.tls.as_ref(),
            config.timeout.0,
            &context.base_dir,
        );
        Self {
            server,
            group: None,
            config: config.clone(),
            pipeline: Arc::clone(&context.pipeline),
            in_flight: Arc::default(),
            has_existed: false,
            can_be_paused: false,
        }
    }

    /// Reads nothing while an operator has paused the group ([`Stream::set_paused`](super::stream::Stream::set_paused)).
    #[must_use]
    pub fn pausable(self) -> Self {
        Self { can_be_paused: true, ..self }
    }

    /// The membership, with the same consumer name for as long as this source lives.
    async fn membership(&mut self) -> Arc<Membership> {
        if let Some(group) = &self.group {
            return Arc::clone(group);
        }
        let (consumer, is_consumer_unique) = match &self.config.consumer {
            Some(name) => (name.clone(), false),
            None => (unique_name().await, true),
        };
        let group = Arc::new(Membership {
            server: self.server.clone(),
            stream: self.config.stream.clone(),
            group: self.config.group.clone().unwrap_or_else(|| self.pipeline.to_string()),
            consumer,
            is_consumer_unique,
            claim_after: self.config.claim_after.0,
            paused_key: self.can_be_paused.then(|| paused_key(&self.config.stream)),
        });
        self.group = Some(Arc::clone(&group));
        group
    }

    async fn create_group(
        &mut self,
        group: &Membership,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), Failure> {
        let start = match (self.has_existed, self.config.start) {
            (true, _) | (false, Start::Earliest) => "0",
            (false, Start::Latest) => "$",
        };
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&group.stream).arg(&group.group).arg(start).arg("MKSTREAM");
        match create.query_async::<()>(connection).await {
            Ok(()) if self.has_existed => tracing::warn!(
                stream = %group.stream, group = %group.group, server = %group.server.place,
                "the group was deleted while in use; created it again from the earliest entry, so entries may come twice"
            ),
            Ok(()) => tracing::info!(stream = %group.stream, group = %group.group, "created the consumer group"),
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => return Err(group.failure("creating the consumer group", &error)),
        }
        if !self.has_existed {
            durability::warn_if_unsafe(&group.server, connection).await;
        }
        self.has_existed = true;
        Ok(())
    }
}

#[async_trait]
impl Source for RedisSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let group = self.membership().await;
        let block = self.config.block.0;
        let reading = self.server.connect(block).await?;
        let mut settling = self.server.connect(Duration::ZERO).await?;
        self.create_group(&group, &mut settling).await?;
        let touching = tokio::spawn(super::settler::touch_in_flight(
            Arc::clone(&group),
            Arc::clone(&self.in_flight),
            settling.clone(),
        ));
        Ok(Connection {
            inlet: Box::new(RedisInlet::new(
                Arc::clone(&group),
                Arc::clone(&self.in_flight),
                reading,
                block,
                self.config.batch,
            )),
            settler: Box::new(RedisSettler::new(
                group,
                Arc::clone(&self.in_flight),
                settling,
                AbortOnDropHandle::new(touching),
            )),
            resumes: true,
            postpones: false,
        })
    }
}

/// Host, process and a random part: no two sources share it, not even in one process.
async fn unique_name() -> String {
    let host = match std::env::var("HOSTNAME") {
        Ok(host) if !host.is_empty() => host,
        _ => tokio::fs::read_to_string("/proc/sys/kernel/hostname").await.unwrap_or_else(|_| "gateway".to_owned()),
    };
    let random = uuid::Uuid::now_v7().simple().to_string();
    format!("{}-{}-{}", host.trim(), std::process::id(), &random[random.len() - 12..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn consumer_names_are_unique_within_a_process() {
        let (a, b) = (unique_name().await, unique_name().await);
        assert_ne!(a, b);
        assert!(a.contains(&std::process::id().to_string()), "{a}");
    }
}
