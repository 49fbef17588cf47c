//! The source: a member of a group of a queue.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled, Settlement, Token};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};

use super::access::Access;
use super::backend::{Member, Verdict};
use super::config::{SourceConfig, Start};
use crate::registry::BuildContext;

/// How long a requeued message is held, so that one which fails the same way every time does not spin.
const REQUEUE_DELAY: Duration = Duration::from_millis(100);

/// Reads a queue as a member of a group, the same member for as long as the source lives: what it has claimed it may
/// settle after a reconnect, too.
pub struct QueueSource {
    queue: String,
    group: String,
    start: Start,
    access: Access,
    member: Option<Arc<dyn Member>>,
}

impl QueueSource {
    /// Not yet connected.
    pub fn new(config: &SourceConfig, context: &BuildContext) -> Self {
        Self {
            queue: config.name.clone(),
            group: config.group.clone().unwrap_or_else(|| context.pipeline.to_string()),
            start: config.start,
            access: context.queues.clone(),
            member: None,
        }
    }
}

#[async_trait]
impl Source for QueueSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        let member = match &self.member {
            Some(member) if !member.is_gone() => Arc::clone(member),
            Some(_) | None => {
                let backend = self.access.open(&self.queue).await?;
                let member = backend.join(&self.queue, &self.group, self.start).await?;
                Arc::clone(self.member.insert(member))
            }
        };
        Ok(Connection {
            inlet: Box::new(QueueInlet(Arc::clone(&member))),
            settler: Box::new(QueueSettler(member)),
            resumes: true,
            postpones: false,
        })
    }
}

struct QueueInlet(Arc<dyn Member>);

#[async_trait]
impl Inlet for QueueInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        self.0.claim(max).await
    }
}

struct QueueSettler(Arc<dyn Member>);

#[async_trait]
impl Settler for QueueSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let verdict = |settled: &Settled| match settled.outcome.settlement {
            Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {
                Verdict::Done
            }
            Settlement::Postponed { after, attempt: _ } => Verdict::Again(after),
            Settlement::Requeued => Verdict::Again(REQUEUE_DELAY),
        };
        let verdicts: Vec<(Token, Verdict)> = batch.iter().map(|settled| (settled.token, verdict(settled))).collect();
        self.0.settle(&verdicts).await
    }

    async fn close(&mut self) -> Result<(), Failure> {
        self.0.leave().await
    }
}
