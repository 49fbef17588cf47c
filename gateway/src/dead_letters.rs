//! Where a pipeline's dead letters go: the store always, a broker too if configured.

use std::sync::Arc;

use async_trait::async_trait;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::failure::{Failure, FailureKind};
use tracing::error;

/// The store first, then the broker: a record counts once both have it, or the broker has refused it for good (no
/// permission, a full queue that rejects): what the store holds is not lost, and a pipeline must not stand still for a
/// copy. The store takes a repeated record as one; the broker's consumers know it by its header `x-sluicegate-id`.
pub struct StoreAndBroker {
    store: Arc<dyn DeadLetters>,
    broker: Option<Box<dyn DeadLetters>>,
}

impl StoreAndBroker {
    /// `broker` may be none.
    pub fn new(store: Arc<dyn DeadLetters>, broker: Option<Box<dyn DeadLetters>>) -> Self {
        Self { store, broker }
    }
}

#[async_trait]
impl DeadLetters for StoreAndBroker {
    async fn record(&self, letter: &Arc<DeadLetter>) -> Result<(), Failure> {
        self.store.record(letter).await?;
        match &self.broker {
            None => Ok(()),
            Some(broker) => match broker.record(letter).await {
                Err(failure) if failure.kind == FailureKind::Permanent => {
                    metrics::counter!("sluicegate_dead_letters_refused_total", "pipeline" => letter.pipeline.to_string())
                        .increment(1);
                    error!(pipeline = %letter.pipeline, dead_letter = %letter.id, error = %failure,
                        "the broker refused a dead letter; it is kept in the store alone");
                    Ok(())
                }
                recorded => recorded,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::failure::FailureClass;
    use sluicegate_engine::memory::MemoryDeadLetters;
    use sluicegate_engine::message::Message;

    use super::*;

    fn letter() -> Arc<DeadLetter> {
        let message = Arc::new(Message::new("test", "test", "body"));
        Arc::new(DeadLetter {
            id: "d1".into(),
            failed_at_ms: 1,
            pipeline: "p".into(),
            config_version: "v".into(),
            original: Arc::clone(&message),
            at_failure: message,
            step: None,
            target: None,
            class: FailureClass::Rejected,
            error: "no".into(),
            schema_errors: Vec::new(),
            plugin: None,
            plugin_digest: None,
            backtrace: Vec::new(),
            attempts: Vec::new(),
            trace_id: None,
            redrive_count: 0,
        })
    }

    #[tokio::test]
    async fn a_record_counts_only_once_store_and_broker_have_it() {
        let (store, broker) = (MemoryDeadLetters::default(), MemoryDeadLetters::default());
        broker.refuse([Failure::disconnected("down")]);
        let both = StoreAndBroker::new(Arc::new(store.clone()), Some(Box::new(broker.clone())));
        assert!(both.record(&letter()).await.is_err());
        assert!(both.record(&letter()).await.is_ok());
        assert_eq!((broker.letters().len(), store.letters().len()), (1, 2));
    }

    #[tokio::test]
    async fn a_broker_that_refuses_for_good_does_not_hold_the_message() {
        let (store, broker) = (MemoryDeadLetters::default(), MemoryDeadLetters::default());
        broker.refuse([Failure::permanent("access refused")]);
        let both = StoreAndBroker::new(Arc::new(store.clone()), Some(Box::new(broker.clone())));
        assert!(both.record(&letter()).await.is_ok());
        assert_eq!((broker.letters().len(), store.letters().len()), (0, 1));
    }
}
