//! Delay queues that cannot be had: attempts are counted all the same, and come to an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::BoxFuture;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use sluicegate_connectors::rabbitmq::RabbitmqSource;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::memory::{MemoryDeadLetters, MemoryTarget, Reply};
use sluicegate_engine::pipeline::{Assembly, Blueprint, Order, State, TargetPart};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::source::{Connection, Source};
use sluicegate_engine::target_driver::TargetSettings;
use sluicegate_tests::{eventually, unique};

use super::{SOON, bodies, channel, declare, nothing_comes, publish, publish_bodies, ready, receive, settled, source};

/// Counts its connects.
struct Counted {
    source: RabbitmqSource,
    connects: Arc<AtomicU32>,
}

impl Source for Counted {
    fn connect<'a, 'b>(&'a mut self) -> BoxFuture<'b, Result<Connection, Failure>>
    where
        'a: 'b,
        Self: 'b,
    {
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.source.connect()
    }
}

fn assembly(source: Counted, target: &MemoryTarget, dead_letters: &MemoryDeadLetters) -> Assembly {
    Assembly::new(Blueprint {
        name: "orders".into(),
        config_version: "0123456789ab".into(),
        source_system: "rabbitmq",
        source: Box::new(source),
        steps: Vec::new(),
        targets: vec![TargetPart {
            name: "a".into(),
            system: "memory",
            target: Box::new(target.clone()),
            settings: TargetSettings::default(),
        }],
        retry: RetryPolicy { max_attempts: 3, ..RetryPolicy::default() },
        dead_letters: Arc::new(dead_letters.clone()),
        max_in_flight: 64,
        order: Order::None,
        handler_timeout: None,
        state: State::default(),
    })
}

/// Longer than the engine holds a message whose source takes it back.
const LONG: Duration = Duration::from_millis(1_100);

#[tokio::test]
async fn attempts_end_although_the_delay_queue_exists_with_other_arguments() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let delay_queue = format!("{queue}.delay.1250ms");
    declare(&channel, &delay_queue).await?;
    let connects = Arc::new(AtomicU32::new(0));
    let counted = Counted { source: source(json!({ "queue": queue })).await?, connects: Arc::clone(&connects) };
    let (target, dead_letters) = (MemoryTarget::default(), MemoryDeadLetters::default());
    let busy = || Reply::Fail(Failure::retry_after(LONG, "busy"));
    // The attempt before the refused parking is not known to the broker: it comes once more.
    target.script([busy(), busy(), busy(), busy()]);
    let running = tokio::spawn(assembly(counted, &target, &dead_letters).run(Default::default(), SOON));
    publish_bodies(&channel, &queue, ["dead".to_owned()]).await?;
    let letter = eventually("the message is dead", SOON, async || {
        dead_letters.letters().first().cloned().ok_or_else(|| anyhow::anyhow!("no dead letter"))
    })
    .await;
    assert_eq!(letter.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(target.calls(), 4);
    target.script([busy()]);
    publish_bodies(&channel, &queue, ["late".to_owned()]).await?;
    eventually("the message is delivered", SOON, async || {
        anyhow::ensure!(target.bodies() == ["late"], "{:?}", target.bodies());
        Ok(())
    })
    .await;
    assert_eq!((target.calls(), dead_letters.letters().len()), (6, 1));
    assert_eq!(connects.load(Ordering::Relaxed), 2, "one to find out, one to go on");
    running.abort();
    assert!(running.await.is_err_and(|error| error.is_cancelled()), "the pipeline has run until now");
    assert_eq!(ready(&channel, &delay_queue).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_cannot_wait_comes_back_alone_and_to_a_connection_that_does_not_postpone() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    declare(&channel, &format!("{queue}.delay.100ms")).await?;
    publish_bodies(&channel, &queue, ["done".to_owned(), "waits".to_owned()]).await?;
    let mut source = source(json!({ "queue": queue })).await?;
    let mut connection = source.connect().await?;
    assert!(connection.postpones);
    let mut received = receive(&mut *connection.inlet, 2).await?.into_iter();
    let settlements = [Settlement::Delivered, Settlement::Postponed { after: Duration::ZERO, attempt: 2 }];
    let batch: Vec<_> =
        received.by_ref().zip(settlements).map(|(received, settlement)| settled(received, settlement)).collect();
    let failure = connection.settler.settle(&batch).await.expect_err("the delay queue is another");
    assert_eq!(failure.kind, FailureKind::Disconnected);
    for part in ["PRECONDITION_FAILED", "delay.100ms", "retry.queue_prefix"] {
        assert!(failure.text.contains(part), "{part} in {failure}");
    }
    drop(connection);
    let mut connection = source.connect().await?;
    assert!(!connection.postpones);
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["waits"]);
    nothing_comes(&mut *connection.inlet).await
}

#[tokio::test]
async fn a_message_too_heavy_to_wait_is_neither_lost_nor_requeued_forever() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let mut headers = FieldTable::default();
    headers.insert("large".into(), AMQPValue::LongString(vec![b'x'; 130_900].into()));
    publish(&channel, "", &queue, BasicProperties::default().with_headers(headers), b"heavy").await?;
    publish_bodies(&channel, &queue, ["light".to_owned()]).await?;
    let mut source = source(json!({ "queue": queue })).await?;
    let mut connection = source.connect().await?;
    let received = receive(&mut *connection.inlet, 2).await?;
    let batch = super::all_settled(received, Settlement::Postponed { after: Duration::ZERO, attempt: 2 });
    let failure = connection.settler.settle(&batch).await.expect_err("one is too heavy");
    assert_eq!(failure.kind, FailureKind::Disconnected);
    assert!(failure.text.contains("frame_max") && failure.text.contains(&queue), "{failure}");
    drop(connection);
    let mut connection = source.connect().await?;
    assert!(!connection.postpones);
    let mut back: Vec<_> =
        receive(&mut *connection.inlet, 2).await?.into_iter().map(|r| (r.message.attempt, r)).collect();
    back.sort_by_key(|(attempt, _)| *attempt);
    let (attempts, back): (Vec<_>, Vec<_>) = back.into_iter().unzip();
    assert_eq!((bodies(&back), attempts), (vec!["heavy".to_owned(), "light".to_owned()], vec![1, 2]));
    nothing_comes(&mut *connection.inlet).await
}
