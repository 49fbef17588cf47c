//! The target: publishes to a queue.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::failure::Failure;
use sluicegate_engine::message::Message;
use sluicegate_engine::target::{Batching, Outlet, Target};

use super::access::Access;
use super::backend::{Outgoing, QueueBackend};
use super::config::TargetConfig;
use super::declaration::Kind;
use crate::registry::BuildContext;

/// Most messages of one publication.
const MAX_BATCH_MESSAGES: usize = 256;

/// Publishes to a queue. A message counts as published once it is durable.
pub struct QueueTarget {
    queue: String,
    priority: Option<u8>,
    delay: Option<Duration>,
    access: Access,
}

impl QueueTarget {
    /// Not yet connected.
    pub fn new(config: &TargetConfig, context: &BuildContext) -> Self {
        Self {
            queue: config.name.clone(),
            priority: config.priority,
            delay: config.delay.map(|delay| delay.0),
            access: context.queues.clone(),
        }
    }
}

#[async_trait]
impl Target for QueueTarget {
    async fn connect(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        let backend = Arc::clone(self.access.open(&self.queue).await?);
        let (queue, priority, delay) = (self.queue.clone(), self.priority, self.delay);
        Ok(Arc::new(QueueOutlet { queue, priority, delay, backend }))
    }

    fn batching(&self) -> Batching {
        let max_messages = MAX_BATCH_MESSAGES;
        match self.access.declaration(&self.queue).map(|declaration| declaration.kind) {
            // The order of publication is the order in which the messages were handed over.
            Some(Kind::Ordered) => Batching { max_messages, max_concurrent: 1 },
            Some(Kind::Normal | Kind::Delay) | None => Batching { max_messages, ..Batching::default() },
        }
    }
}

struct QueueOutlet {
    queue: String,
    priority: Option<u8>,
    delay: Option<Duration>,
    backend: Arc<dyn QueueBackend>,
}

#[async_trait]
impl Outlet for QueueOutlet {
    async fn publish(&self, batch: &[Arc<Message>]) -> Vec<Result<(), Failure>> {
        let outgoing = batch.iter().map(|message| Outgoing {
            message: Arc::clone(message),
            priority: self.priority,
            delay: self.delay,
        });
        match self.backend.publish(&self.queue, outgoing.collect()).await {
            Ok(results) => results,
            Err(failure) => vec![Err(failure); batch.len()],
        }
    }
}
