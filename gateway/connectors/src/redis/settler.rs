//! The settling half of a source.

use std::sync::Arc;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value, cmd};
use sluicegate_engine::delivery::{Settled, Settlement};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::source::Settler;
use tokio_util::task::AbortOnDropHandle;

use super::in_flight::InFlight;
use super::reply::{self, EntryId};
use super::source::Membership;

/// Takes a consumer that has nothing pending out of its group. One step for the server: a read of this consumer may still
/// block there, and what it is given between a look at what is pending and XGROUP DELCONSUMER would be forgotten with the
/// consumer, and so be lost.
const LEAVE_UNLESS_PENDING: &str = r"
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
";

/// Most ids in one command, so that no command blocks the server for long.
const MAX_IDS: usize = 1_000;

/// Acknowledges what is done and gives back what is not.
pub(super) struct RedisSettler {
    group: Arc<Membership>,
    in_flight: Arc<InFlight>,
    connection: MultiplexedConnection,
    /// Lives as long as the settler: while the gateway drains, the inlet is gone but entries are still in flight.
    _touching: AbortOnDropHandle<()>,
}

impl RedisSettler {
    pub(super) fn new(
        group: Arc<Membership>,
        in_flight: Arc<InFlight>,
        connection: MultiplexedConnection,
        touching: AbortOnDropHandle<()>,
    ) -> Self {
        Self { group, in_flight, connection, _touching: touching }
    }

    /// Entries pending for this consumer, at most [`MAX_IDS`].
    async fn pending(&mut self) -> Result<Vec<EntryId>, Failure> {
        const DOING: &str = "looking for this consumer's pending entries";
        let mut pending = self.group.command("XPENDING");
        pending.arg("-").arg("+").arg(MAX_IDS).arg(&self.group.consumer);
        let answer =
            pending.query_async(&mut self.connection).await.map_err(|error| self.group.failure(DOING, &error))?;
        let pending = reply::pending(answer).ok_or_else(|| self.group.nonsense(DOING))?;
        Ok(pending.into_iter().map(|(id, _)| id).collect())
    }

    /// `XCLAIM` as if nobody had touched the entries for `claim_after`: whoever looks next takes them.
    fn give_back(&self, ids: &[EntryId]) -> Cmd {
        let mut claim = self.group.command("XCLAIM");
        claim.arg(&self.group.consumer).arg(0);
        for id in ids {
            claim.arg(id.to_string());
        }
        claim.arg("IDLE").arg(self.group.claim_after.as_millis() as u64).arg("JUSTID");
        claim
    }
}

#[async_trait]
impl Settler for RedisSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let (mut done, mut given_back) = (Vec::with_capacity(batch.len()), Vec::new());
        for settled in batch {
            match settled.outcome.settlement {
                Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => {
                    &mut done
                }
                Settlement::Postponed { .. } | Settlement::Requeued => &mut given_back,
            }
            .push(EntryId::from(settled.token));
        }
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for ids in done.chunks(MAX_IDS) {
            let mut acknowledge = self.group.command("XACK");
            for id in ids {
                acknowledge.arg(id.to_string());
            }
            pipeline.add_command(acknowledge);
        }
        for ids in given_back.chunks(MAX_IDS) {
            pipeline.add_command(self.give_back(ids));
        }
        let turn = if given_back.is_empty() { None } else { Some(self.in_flight.turn().await) };
        const DOING: &str = "settling entries";
        let answers: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut self.connection).await.map_err(|error| self.group.failure(DOING, &error))?;
        for answer in answers {
            match answer {
                Ok(_) => {}
                // The group was deleted, and the entries' being pending with it: nothing is left to settle.
                Err(error) if error.code() == Some("NOGROUP") => {}
                Err(error) => return Err(self.group.failure(DOING, &error)),
            }
        }
        let any_given_back = !given_back.is_empty();
        self.in_flight.end(done.into_iter().chain(given_back));
        drop(turn);
        if any_given_back {
            self.in_flight.note_given_back();
        }
        Ok(())
    }

    /// Gives back what is still pending (a read that was cut off by the stop may have left something) and leaves the
    /// group, unless something is pending: it would be forgotten with the consumer.
    async fn close(&mut self) -> Result<(), Failure> {
        let pending = self.pending().await?;
        if !pending.is_empty() {
            let give_back = self.give_back(&pending);
            let given_back = give_back.query_async::<Value>(&mut self.connection).await;
            return given_back.map(drop).map_err(|error| self.group.failure("giving back pending entries", &error));
        }
        if self.group.is_consumer_unique {
            self.leave().await;
        }
        Ok(())
    }
}

impl RedisSettler {
    /// A consumer that stays in the group costs a name there and nothing else, so that a server or a user that may not
    /// run scripts is no failure.
    async fn leave(&mut self) {
        let mut leave = cmd("EVAL");
        leave.arg(LEAVE_UNLESS_PENDING).arg(1).arg(&self.group.stream).arg(&self.group.group).arg(&self.group.consumer);
        if let Err(error) = leave.query_async::<Value>(&mut self.connection).await {
            tracing::info!(
                stream = %self.group.stream, group = %self.group.group, consumer = %self.group.consumer, %error,
                "this consumer's name stays in its group"
            );
        }
    }
}

/// Resets the idle time of everything in flight three times per `claim_after`, so that no other gateway takes it over
/// while this one lives. Ends never; its owner aborts it.
pub(super) async fn touch_in_flight(
    group: Arc<Membership>,
    in_flight: Arc<InFlight>,
    mut connection: MultiplexedConnection,
) {
    let mut interval = tokio::time::interval(group.claim_after / 3);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let _turn = in_flight.turn().await;
        for ids in in_flight.all().chunks(MAX_IDS) {
            let mut claim = group.command("XCLAIM");
            claim.arg(&group.consumer).arg(0);
            for id in ids {
                claim.arg(id.to_string());
            }
            // JUSTID leaves the delivery count alone.
            if let Err(error) = claim.arg("JUSTID").query_async::<Value>(&mut connection).await {
                // Whoever reads or settles meets the same and reconnects; meanwhile an entry may come twice.
                tracing::debug!(stream = %group.stream, group = %group.group, "touching entries in flight: {error}");
                break;
            }
        }
    }
}
