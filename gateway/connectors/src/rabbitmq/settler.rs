//! The settling half of a source's connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Channel, Connection};
use sluicegate_engine::delivery::{Settled, Settlement, Token};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::source::Settler;

use super::delay::{DelayQueues, Parked};
use super::endpoint::{self, Endpoint};
use super::mapping::REDELIVERED;
use super::refusal;

/// How long a message that was delivered before is held back when it is requeued again: the broker would deliver it at
/// once, and something that keeps requeueing would spin.
const REQUEUE_PAUSE: Duration = Duration::from_millis(100);

/// Acknowledges, parks and requeues on the channels the messages came by. Delivery tags count for their channel only and
/// die with it, so this settler never outlives its connection.
pub(super) struct RabbitmqSettler {
    pub connection: Arc<Connection>,
    pub endpoint: Endpoint,
    pub workers: Vec<Worker>,
    pub delays: DelayQueues,
    /// Set for good once the broker has refused to let a message wait in a way it would refuse again.
    pub cannot_park: Arc<AtomicBool>,
}

/// A worker's channel and what was settled on it.
pub(super) struct Worker {
    pub channel: Channel,
    pub ledger: Ledger,
}

/// A delivery's token: its worker and its delivery tag.
pub(super) fn token(worker: usize, tag: u64) -> Token {
    Token((worker as u128) << 64 | u128::from(tag))
}

fn worker_and_tag(token: Token) -> (usize, u64) {
    ((token.0 >> 64) as usize, token.0 as u64)
}

#[async_trait]
impl Settler for RabbitmqSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let mut acked = Vec::with_capacity(batch.len());
        let mut requeued = Vec::new();
        let mut parked = Vec::new();
        for settled in batch {
            match settled.outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {
                    acked.push(settled);
                }
                Settlement::Requeued => requeued.push(settled),
                Settlement::Postponed { after, attempt } => {
                    parked.push((settled, Parked { message: &settled.message, after, attempt }));
                }
            }
        }
        // Those that cannot wait go back with the connection; the others need not be delivered twice for that.
        let not_parked = self.park(&parked, &mut acked).await.err();
        if requeued.iter().any(|settled| settled.message.headers.get(REDELIVERED).is_some()) {
            tokio::time::sleep(REQUEUE_PAUSE).await;
        }
        self.requeue(&requeued).await?;
        self.acknowledge(&acked).await?;
        not_parked.map_or(Ok(()), Err)
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let parked = self.delays.close().await;
        // Closing hands what was pushed to us and never taken back to the queue.
        endpoint::close(&self.connection, &self.endpoint).await.and(parked)
    }
}

impl RabbitmqSettler {
    /// Lets messages wait in delay queues; adds to `acked` those that do.
    ///
    /// # Errors
    /// Disconnected, if one does not.
    async fn park<'a>(
        &mut self,
        parked: &[(&'a Settled, Parked<'_>)],
        acked: &mut Vec<&'a Settled>,
    ) -> Result<(), Failure> {
        if parked.is_empty() {
            return Ok(());
        }
        let waiting: Vec<Parked<'_>> = parked.iter().map(|(_, parked)| *parked).collect();
        let taken = self.delays.park(&waiting).await.map_err(|failure| self.not_parked(failure))?;
        let mut refused = None;
        for ((settled, _), taken) in parked.iter().zip(taken) {
            match taken {
                Ok(()) => acked.push(settled),
                Err(failure) => refused = Some(failure),
            }
        }
        refused.map_or(Ok(()), |failure| Err(self.not_parked(failure)))
    }

    /// Ends the connection, so that its messages come again. What would fail again must not be tried again: nothing would
    /// count the attempts. The source's next connection then leaves all waiting to the engine, which does.
    fn not_parked(&self, failure: Failure) -> Failure {
        if failure.kind == FailureKind::Permanent && !self.cannot_park.swap(true, Ordering::Relaxed) {
            tracing::error!(
                system = "rabbitmq",
                queue = self.delays.queue,
                error = %failure,
                "messages cannot wait in delay queues: from now on they wait in flight, within `prefetch`; mend what the \
                 error says and restart the gateway"
            );
        }
        Failure::disconnected(failure.text)
    }

    async fn requeue(&mut self, requeued: &[&Settled]) -> Result<(), Failure> {
        let mut nacks = Vec::with_capacity(requeued.len());
        for settled in requeued {
            let (worker, tag) = worker_and_tag(settled.token);
            let Some(worker) = self.workers.get_mut(worker) else { continue };
            worker.ledger.note(tag);
            let channel = worker.channel.clone();
            nacks.push(
                async move { channel.basic_nack(tag, BasicNackOptions { multiple: false, requeue: true }).await },
            );
        }
        try_join_all(nacks).await.map_err(|error| refusal::lost(&error, "requeueing messages", &self.endpoint))?;
        Ok(())
    }

    async fn acknowledge(&mut self, acked: &[&Settled]) -> Result<(), Failure> {
        let mut tags = vec![Vec::new(); self.workers.len()];
        for settled in acked {
            let (worker, tag) = worker_and_tag(settled.token);
            if let Some(tags) = tags.get_mut(worker) {
                tags.push(tag);
            }
        }
        let mut acks = Vec::new();
        for (worker, tags) in self.workers.iter_mut().zip(tags) {
            for Ack { tag, multiple } in worker.ledger.settle(tags) {
                let channel = worker.channel.clone();
                acks.push(async move { channel.basic_ack(tag, BasicAckOptions { multiple }).await });
            }
        }
        try_join_all(acks).await.map_err(|error| refusal::lost(&error, "acknowledging messages", &self.endpoint))?;
        Ok(())
    }
}

/// Which delivery tags of a channel are settled. The broker counts them from 1 without gaps, so that all up to the first
/// unsettled one can be acknowledged at a stroke.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// All tags up to this one are settled.
    through: u64,
    /// Settled tags beyond.
    ahead: BTreeSet<u64>,
}

/// One acknowledgement: of `tag` alone, or of all up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ack {
    tag: u64,
    multiple: bool,
}

impl Ledger {
    /// Notes a tag that was settled otherwise.
    fn note(&mut self, tag: u64) {
        self.ahead.insert(tag);
        while self.ahead.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }

    /// Notes `tags` and says how to acknowledge them: never a tag that is not settled.
    fn settle(&mut self, tags: Vec<u64>) -> Vec<Ack> {
        for tag in &tags {
            self.note(*tag);
        }
        let (run, mut rest): (Vec<u64>, Vec<u64>) = tags.into_iter().partition(|tag| *tag <= self.through);
        rest.sort_unstable();
        let mut acks: Vec<Ack> = rest.into_iter().map(|tag| Ack { tag, multiple: false }).collect();
        if let Some(tag) = run.iter().copied().max() {
            acks.push(Ack { tag, multiple: run.len() > 1 });
        }
        acks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_carries_worker_and_tag() {
        assert_eq!(worker_and_tag(token(3, u64::MAX)), (3, u64::MAX));
        assert_eq!(worker_and_tag(token(0, 1)), (0, 1));
    }

    #[test]
    fn a_gap_is_never_acknowledged() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.settle(vec![3, 2]), [Ack { tag: 2, multiple: false }, Ack { tag: 3, multiple: false }]);
        assert_eq!(ledger.settle(vec![1, 4]), [Ack { tag: 4, multiple: true }]);
        ledger.note(6);
        assert_eq!(ledger.settle(vec![5]), [Ack { tag: 5, multiple: false }]);
        assert_eq!(ledger.settle(vec![7, 9]), [Ack { tag: 9, multiple: false }, Ack { tag: 7, multiple: false }]);
    }

    proptest! {
        /// The broker's view: exactly the settled tags are gone after each batch, and no ack names an unknown tag.
        #[test]
        fn acks_settle_exactly_what_was_settled(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            cuts in prop::collection::vec(1..8_usize, 1..20),
            nacked in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut ledger = Ledger::default();
            let mut outstanding: BTreeSet<u64> = (1..=40).collect();
            let mut unsettled = outstanding.clone();
            let mut order = order.into_iter();
            for size in cuts {
                let batch: Vec<u64> = order.by_ref().take(size).collect();
                let (nacks, acks): (Vec<u64>, Vec<u64>) = batch.iter().partition(|tag| nacked[**tag as usize - 1]);
                for tag in nacks {
                    ledger.note(tag);
                    outstanding.remove(&tag);
                }
                for ack in ledger.settle(acks) {
                    prop_assert!(outstanding.contains(&ack.tag));
                    outstanding.retain(|tag| if ack.multiple { *tag > ack.tag } else { *tag != ack.tag });
                }
                unsettled.retain(|tag| !batch.contains(tag));
                prop_assert_eq!(&outstanding, &unsettled);
            }
        }
    }
}
