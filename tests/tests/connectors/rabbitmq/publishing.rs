//! Confirms, unroutable messages, and failures that stay with the message they belong to.

use std::sync::Arc;

use anyhow::Result;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde_json::json;
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::target::Target;
use sluicegate_tests::unique;

use super::{channel, declare, message, outlet, ready, take, target};

async fn direct_exchange(channel: &Channel, exchange: &str, queue: &str, keys: &[&str]) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, FieldTable::default()).await?;
    declare(channel, queue).await?;
    for key in keys {
        let (queue, exchange) = (queue.into(), exchange.into());
        channel.queue_bind(queue, exchange, (*key).into(), QueueBindOptions::default(), FieldTable::default()).await?;
    }
    Ok(())
}

fn kinds(results: &[Result<(), Failure>]) -> Vec<Option<FailureKind>> {
    results.iter().map(|result| result.as_ref().err().map(|failure| failure.kind)).collect()
}

#[tokio::test]
async fn a_confirmed_batch_is_in_the_queue_in_order() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let outlet = outlet(json!({ "queue": queue })).await?;
    let batch: Vec<_> = (0..500).map(|n: u32| message("order.created", n.to_string())).collect();
    assert!(outlet.publish(&batch).await.iter().all(Result::is_ok));
    assert_eq!(ready(&channel, &queue).await?, 500);
    for (n, sent) in batch.iter().enumerate() {
        let taken = take(&channel, &queue).await?;
        assert_eq!(taken.data, n.to_string().as_bytes());
        assert_eq!(taken.properties.message_id().as_ref().map(|id| id.as_str()), Some(sent.id.as_str()));
        assert_eq!(taken.properties.kind().as_ref().map(|kind| kind.as_str()), Some("order.created"));
        assert_eq!(*taken.properties.delivery_mode(), Some(2));
    }
    outlet.close().await?;
    Ok(())
}

#[tokio::test]
async fn only_the_unroutable_of_a_batch_fail() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    direct_exchange(&channel, &exchange, &queue, &["good"]).await?;
    let outlet = outlet(json!({ "exchange": exchange, "routing_key": "{kind}" })).await?;
    // In every mixture: the broker confirms and returns in another order than was published.
    for round in 0..20_u64 {
        let good = |n: u64| !(n * 7 + round).is_multiple_of(3);
        let batch: Vec<_> = (0..60).map(|n| message(if good(n) { "good" } else { "bad" }, "same body")).collect();
        let results = outlet.publish(&batch).await;
        for (n, result) in (0..60).zip(&results) {
            match result {
                Ok(()) => assert!(good(n), "message {n} was taken by no queue"),
                Err(failure) => {
                    assert!(!good(n), "message {n}: {failure}");
                    assert_eq!(failure.kind, FailureKind::Permanent);
                    assert!(failure.text.contains(&exchange) && failure.text.contains("`bad`"), "{failure}");
                    assert!(failure.text.contains("NO_ROUTE"), "{failure}");
                }
            }
        }
        let taken = u32::try_from(results.iter().filter(|result| result.is_ok()).count())?;
        assert_eq!(ready(&channel, &queue).await?, taken);
        for _ in 0..taken {
            take(&channel, &queue).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_mandatory_the_broker_drops_silently() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    direct_exchange(&channel, &exchange, &queue, &[]).await?;
    let outlet = outlet(json!({ "exchange": exchange, "mandatory": false })).await?;
    assert_eq!(kinds(&outlet.publish(&[message("bad", "")]).await), [None]);
    Ok(())
}

#[tokio::test]
async fn a_missing_exchange_is_a_clear_failure_and_the_outlet_lives_on() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    let outlet = outlet(json!({ "exchange": exchange })).await?;
    let batch = [message("a", ""), message("b", "")];
    for result in outlet.publish(&batch).await {
        let failure = result.expect_err("there is no such exchange");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("NOT_FOUND") && failure.text.contains(&exchange), "{failure}");
    }
    direct_exchange(&channel, &exchange, &queue, &["a", "b"]).await?;
    assert_eq!(kinds(&outlet.publish(&batch).await), [None, None]);
    Ok(())
}

#[tokio::test]
async fn what_the_target_declared_and_lost_is_declared_again() -> Result<()> {
    let (exchange, channel) = (unique("e"), channel().await?);
    let settings = json!({ "exchange": { "name": exchange, "kind": "topic" }, "mandatory": false });
    let mut target = target(settings).await?;
    let outlet = target.connect().await?;
    channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    assert_eq!(kinds(&outlet.publish(&[message("a", "")]).await), [Some(FailureKind::Disconnected)]);
    let outlet = target.connect().await?;
    assert_eq!(kinds(&outlet.publish(&[message("a", "")]).await), [None]);
    Ok(())
}

#[tokio::test]
async fn a_full_queue_is_tried_again() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments).await?;
    let outlet = outlet(json!({ "queue": queue, "declare": "passive" })).await?;
    assert_eq!(kinds(&outlet.publish(&[message("a", "")]).await), [None]);
    let failure = outlet.publish(&[message("a", "")]).await.remove(0).expect_err("the queue is full");
    assert!(matches!(failure.kind, FailureKind::Transient { .. }), "{failure:?}");
    assert!(failure.text.contains("nack"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn a_message_amqp_cannot_carry_fails_alone() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let outlet = outlet(json!({ "queue": queue })).await?;
    let mut heavy = Message::new("test", "heavy", "");
    heavy.headers.append("large", vec![b'x'; 200_000]);
    let mut expired = Message::new("test", "late", "");
    expired.expires_at_ms = Some(now_ms() - 1_000);
    let batch = [message("a", ""), Arc::new(heavy), message("b", ""), Arc::new(expired), message("c", "")];
    let results = outlet.publish(&batch).await;
    let permanent = Some(FailureKind::Permanent);
    assert_eq!(kinds(&results), [None, permanent, None, permanent, None]);
    assert_eq!(ready(&channel, &queue).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_routing_key_is_made_of_the_message() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    direct_exchange(&channel, &exchange, &queue, &["eu.order.created"]).await?;
    let outlet = outlet(json!({ "exchange": exchange, "routing_key": "{key}.{kind}" })).await?;
    let keyed = Message { key: Some("eu".into()), ..Message::new("test", "order.created", "") };
    let keyless = message("order.created", "");
    let results = outlet.publish(&[Arc::new(keyed), keyless]).await;
    assert_eq!(kinds(&results), [None, Some(FailureKind::Permanent)]);
    assert_eq!(take(&channel, &queue).await?.routing_key.as_str(), "eu.order.created");
    Ok(())
}

#[tokio::test]
async fn bodies_of_a_mebibyte_and_their_expiry_arrive() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let outlet = outlet(json!({ "queue": queue, "message_ttl": "1m", "persistent": false })).await?;
    let body: Vec<u8> = (0..1_048_576_u32).map(|n| (n % 251) as u8).collect();
    let batch: Vec<_> = (0..8).map(|_| message("large", body.clone())).collect();
    assert!(outlet.publish(&batch).await.iter().all(Result::is_ok));
    for _ in 0..8 {
        let taken = take(&channel, &queue).await?;
        assert!(taken.data == body);
        assert_eq!(taken.properties.expiration().as_ref().map(|text| text.as_str()), Some("60000"));
        assert_eq!(*taken.properties.delivery_mode(), Some(1));
    }
    Ok(())
}

#[tokio::test]
async fn batches_at_the_same_time_do_not_mix_their_returns() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    direct_exchange(&channel, &exchange, &queue, &["good"]).await?;
    let outlet = outlet(json!({ "exchange": exchange })).await?;
    let good: Vec<_> = (0..100).map(|_| message("good", "x")).collect();
    let bad: Vec<_> = (0..100).map(|_| message("bad", "x")).collect();
    let (first, second, third, fourth) =
        tokio::join!(outlet.publish(&good), outlet.publish(&bad), outlet.publish(&good), outlet.publish(&bad));
    assert!(first.iter().chain(&third).all(Result::is_ok));
    assert!(second.iter().chain(&fourth).all(Result::is_err));
    assert_eq!(ready(&channel, &queue).await?, 200);
    Ok(())
}
