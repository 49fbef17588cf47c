//! Measures what pipelines do with queues.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_connectors::queue::{Declaration, Member, Outgoing, QueueBackend, Start, Verdict};
use sluicegate_engine::delivery::{Received, Token};
use sluicegate_engine::failure::Failure;
use tokio::time::Instant;

use super::{Flow, QueueMeters};

/// A backend whose traffic is measured.
#[derive(Debug)]
pub struct MeasuredBackend {
    backend: Arc<dyn QueueBackend>,
    meters: Arc<QueueMeters>,
}

impl MeasuredBackend {
    /// In front of this one.
    pub fn new(backend: Arc<dyn QueueBackend>, meters: Arc<QueueMeters>) -> Self {
        Self { backend, meters }
    }
}

#[async_trait]
impl QueueBackend for MeasuredBackend {
    async fn declare(&self, queue: &str, declaration: &Declaration) -> Result<(), Failure> {
        self.backend.declare(queue, declaration).await
    }

    async fn publish(&self, queue: &str, batch: Vec<Outgoing>) -> Result<Vec<Result<(), Failure>>, Failure> {
        let (started, count) = (Instant::now(), batch.len());
        let published = self.backend.publish(queue, batch).await;
        let done = published.as_ref().map_or(0, |results| results.iter().filter(|result| result.is_ok()).count());
        self.meters.record(queue, Flow::Published, started.elapsed(), done, count.saturating_sub(done));
        published
    }

    async fn join(&self, queue: &str, group: &str, start: Start) -> Result<Arc<dyn Member>, Failure> {
        let member = self.backend.join(queue, group, start).await?;
        let (queue, meters) = (queue.to_owned(), Arc::clone(&self.meters));
        Ok(Arc::new(MeasuredMember { member, queue, meters, claimed: Mutex::default() }))
    }
}

struct MeasuredMember {
    member: Arc<dyn Member>,
    queue: String,
    meters: Arc<QueueMeters>,
    /// When each was claimed; as many as a pipeline has in flight.
    claimed: Mutex<HashMap<Token, Instant>>,
}

#[async_trait]
impl Member for MeasuredMember {
    async fn claim(&self, max: usize) -> Result<Vec<Received>, Failure> {
        let received = self.member.claim(max).await?;
        let now = Instant::now();
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.extend(received.iter().map(|received| (received.token, now)));
        Ok(received)
    }

    async fn settle(&self, batch: &[(Token, Verdict)]) -> Result<(), Failure> {
        self.member.settle(batch).await?;
        let ended: Vec<(Duration, Verdict)> = {
            let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
            batch.iter().filter_map(|(token, verdict)| Some((claimed.remove(token)?.elapsed(), *verdict))).collect()
        };
        for (took, verdict) in ended {
            let (done, again) = match verdict {
                Verdict::Done => (1, 0),
                Verdict::Again(_) => (0, 1),
            };
            self.meters.record(&self.queue, Flow::Consumed, took, done, again);
        }
        Ok(())
    }

    async fn leave(&self) -> Result<(), Failure> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.member.leave().await
    }

    fn is_gone(&self) -> bool {
        self.member.is_gone()
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::message::Message;

    use super::*;

    /// Gives out two messages, and takes whatever it is given; full once it has one.
    #[derive(Debug)]
    struct Memory;

    #[async_trait]
    impl QueueBackend for Memory {
        async fn declare(&self, _: &str, _: &Declaration) -> Result<(), Failure> {
            Ok(())
        }

        async fn publish(&self, _: &str, batch: Vec<Outgoing>) -> Result<Vec<Result<(), Failure>>, Failure> {
            tokio::time::advance(Duration::from_millis(10)).await;
            let result = |index| if index == 0 { Ok(()) } else { Err(Failure::transient("full")) };
            Ok((0..batch.len()).map(result).collect())
        }

        async fn join(&self, _: &str, _: &str, _: Start) -> Result<Arc<dyn Member>, Failure> {
            Ok(Arc::new(Memory))
        }
    }

    #[async_trait]
    impl Member for Memory {
        async fn claim(&self, max: usize) -> Result<Vec<Received>, Failure> {
            Ok((0..max).map(|n| Received::new(Message::new("s", "k", "b"), Token(n as u128))).collect())
        }

        async fn settle(&self, _: &[(Token, Verdict)]) -> Result<(), Failure> {
            Ok(())
        }

        async fn leave(&self) -> Result<(), Failure> {
            Ok(())
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pipelines_are_measured_from_claim_to_settlement() {
        let meters = Arc::new(QueueMeters::default());
        let backend = MeasuredBackend::new(Arc::new(Memory), Arc::clone(&meters));
        let outgoing = || Outgoing { message: Arc::new(Message::new("s", "k", "b")), priority: None, delay: None };
        backend.publish("q", vec![outgoing(), outgoing()]).await.expect("published");
        let published = meters.figures("q", Flow::Published);
        assert_eq!((published.total, published.failed), (1, 1));

        let member = backend.join("q", "g", Start::Earliest).await.expect("a member");
        assert_eq!(member.claim(2).await.expect("messages").len(), 2);
        tokio::time::advance(Duration::from_millis(100)).await;
        let verdicts = [(Token(0), Verdict::Done), (Token(1), Verdict::Again(Duration::ZERO))];
        member.settle(&verdicts).await.expect("settled");
        // A repetition counts once.
        member.settle(&verdicts).await.expect("settled");
        let consumed = meters.figures("q", Flow::Consumed);
        assert_eq!((consumed.total, consumed.failed), (1, 1));
        assert!((consumed.average_ms - 100.0).abs() < 1.0, "{consumed:?}");
    }
}
