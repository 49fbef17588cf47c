//! A broker that is killed, hangs, or blocks its publishers.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use sluicegate_connectors::rabbitmq::{RabbitmqSource, RabbitmqTarget};
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::FailureKind;
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;
use sluicegate_tests::eventually;
use sluicegate_tests::servers::RabbitMq;

use super::{SOON, all_settled, bodies, context, failure, message, receive};

fn source(broker: &RabbitMq) -> Result<RabbitmqSource> {
    let settings = json!({ "url": broker.url(), "queue": "q", "heartbeat": "1s", "connection_timeout": "2s" });
    Ok(RabbitmqSource::new(&serde_json::from_value(settings)?, &context()))
}

fn target(broker: &RabbitMq) -> Result<RabbitmqTarget> {
    let settings = json!({
        "url": broker.url(), "queue": "q", "heartbeat": "1s", "connection_timeout": "2s", "publish_timeout": "2s",
    });
    Ok(RabbitmqTarget::new(&serde_json::from_value(settings)?, &context()))
}

#[tokio::test]
async fn a_killed_broker_loses_nothing_confirmed_and_takes_no_old_ack() -> Result<()> {
    let mut broker = RabbitMq::start().await?;
    let (mut source, mut target) = (source(&broker)?, target(&broker)?);
    let mut connection = source.connect().await?;
    let outlet = target.connect().await?;
    let batch: Vec<_> = (0..20).map(|n: u32| message("n", n.to_string())).collect();
    assert!(outlet.publish(&batch).await.iter().all(Result::is_ok));
    let held = receive(&mut *connection.inlet, 20).await?;
    broker.kill()?;
    assert_eq!(failure(&mut *connection.inlet).await?.kind, FailureKind::Disconnected);
    let lost = outlet.publish(&batch[..1]).await.remove(0).expect_err("the broker is dead");
    assert_eq!(lost.kind, FailureKind::Disconnected, "{lost}");
    // Settling now must fail: these tags are nobody's any more.
    let refused = connection.settler.settle(&all_settled(held, Settlement::Delivered)).await.expect_err("dead");
    assert_eq!(refused.kind, FailureKind::Disconnected, "{refused}");
    drop((connection, outlet));
    let refused = source.connect().await.err().map(|failure| failure.kind);
    assert_eq!(refused, Some(FailureKind::Disconnected));
    broker.restart().await?;
    let mut connection = source.connect().await?;
    let mut again = bodies(&receive(&mut *connection.inlet, 20).await?);
    again.sort_by_key(|body| body.parse::<u32>().unwrap_or(u32::MAX));
    assert_eq!(again, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    let outlet = target.connect().await?;
    assert!(outlet.publish(&batch).await.iter().all(Result::is_ok));
    Ok(())
}

#[tokio::test]
async fn a_hanging_broker_is_noticed_by_its_silence() -> Result<()> {
    let mut broker = RabbitMq::start().await?;
    let (mut source, mut target) = (source(&broker)?, target(&broker)?);
    let mut connection = source.connect().await?;
    let outlet = target.connect().await?;
    broker.pause()?;
    let begun = Instant::now();
    let unconfirmed = outlet.publish(&[message("n", "")]).await.remove(0).expect_err("nobody confirms");
    assert!(matches!(unconfirmed.kind, FailureKind::Transient { .. } | FailureKind::Disconnected), "{unconfirmed:?}");
    assert_eq!(failure(&mut *connection.inlet).await?.kind, FailureKind::Disconnected);
    assert!(begun.elapsed() < Duration::from_secs(10), "after {:?}", begun.elapsed());
    let refused = source.connect().await.err().map(|failure| failure.kind);
    assert_eq!(refused, Some(FailureKind::Disconnected));
    broker.resume()?;
    let mut connection = eventually("the source connects", SOON, async || Ok(source.connect().await?)).await;
    let outlet = eventually("the target connects", SOON, async || Ok(target.connect().await?)).await;
    assert!(outlet.publish(&[message("n", "")]).await.remove(0).is_ok());
    receive(&mut *connection.inlet, 1).await?;
    Ok(())
}
