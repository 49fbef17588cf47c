//! Retries by way of delay queues.

use std::time::{Duration, Instant};

use anyhow::Result;
use lapin::BasicProperties;
use lapin::options::QueueDeleteOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;
use sluicegate_engine::delivery::Settlement;
use sluicegate_tests::unique;

use super::{
    all_settled, bodies, channel, consume, declare, nothing_comes, publish, publish_bodies, ready, receive, settled,
};

fn postponed(after_ms: u64, attempt: u32) -> Settlement {
    Settlement::Postponed { after: Duration::from_millis(after_ms), attempt }
}

#[tokio::test]
async fn a_postponed_message_comes_back_later_as_it_was() -> Result<()> {
    let (exchange, queue, channel) = (unique("e"), unique("q"), channel().await?);
    let exchange_settings = json!({ "name": exchange, "kind": "topic" });
    let mut connection = consume(json!({ "queue": queue, "exchange": exchange_settings, "bindings": ["#"] })).await?;
    assert!(connection.postpones && !connection.resumes);
    let mut headers = FieldTable::default();
    headers.insert("binary".into(), AMQPValue::LongString(vec![0xff, 0x00].into()));
    let properties = BasicProperties::default().with_headers(headers).with_priority(3).with_expiration("600000".into());
    publish(&channel, &exchange, "market.open", properties, b"\x00body").await?;
    let mut original = receive(&mut *connection.inlet, 1).await?.remove(0);
    let mut expected = original.message.clone();
    for attempt in 2..=4 {
        let begun = Instant::now();
        connection.settler.settle(&[settled(original, postponed(300, attempt))]).await?;
        original = receive(&mut *connection.inlet, 1).await?.remove(0);
        assert!(begun.elapsed() >= Duration::from_millis(300), "after {:?}", begun.elapsed());
        expected.attempt = attempt;
        assert_eq!(original.message, expected);
    }
    assert_eq!(original.message.headers.text("amqp-exchange"), Some(exchange.as_str()));
    assert_eq!(original.message.headers.text("amqp-routing-key"), Some("market.open"));
    connection.settler.settle(&[settled(original, Settlement::Delivered)]).await?;
    nothing_comes(&mut *connection.inlet).await?;
    drop(connection.inlet);
    connection.settler.close().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_short_delay_does_not_wait_behind_a_long_one() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    publish_bodies(&channel, &queue, ["long".to_owned(), "middle".to_owned(), "short".to_owned()]).await?;
    let mut connection = consume(json!({ "queue": queue })).await?;
    let received = receive(&mut *connection.inlet, 3).await?;
    let delays_ms = [1_600, 800, 100];
    let batch: Vec<_> =
        received.into_iter().zip(delays_ms).map(|(received, ms)| settled(received, postponed(ms, 2))).collect();
    connection.settler.settle(&batch).await?;
    let back = receive(&mut *connection.inlet, 3).await?;
    assert_eq!(bodies(&back), ["short", "middle", "long"]);
    assert!(back.iter().all(|received| received.message.attempt == 2));
    Ok(())
}

#[tokio::test]
async fn the_count_is_kept_in_the_configured_header() -> Result<()> {
    let (queue, prefix, channel) = (unique("q"), unique("later"), channel().await?);
    let retry = json!({ "header": "x-tries", "queue_prefix": prefix });
    let mut connection = consume(json!({ "queue": queue, "retry": retry })).await?;
    publish_bodies(&channel, &queue, ["a".to_owned()]).await?;
    let received = receive(&mut *connection.inlet, 1).await?;
    connection.settler.settle(&all_settled(received, postponed(60_000, 3))).await?;
    let waiting = super::take(&channel, &format!("{prefix}.63000ms")).await?;
    let headers = waiting.properties.headers().clone().unwrap_or_default();
    assert_eq!(headers.inner().get("x-tries"), Some(&AMQPValue::LongLongInt(2)));
    assert_eq!(headers.inner().get("x-original-exchange"), Some(&AMQPValue::LongString("".into())));
    assert_eq!(headers.inner().get("x-original-routing-key"), Some(&AMQPValue::LongString(queue.as_str().into())));
    assert_eq!(*waiting.properties.delivery_mode(), Some(2));
    drop(connection);
    assert_eq!(ready(&channel, &queue).await?, 0, "the original is acknowledged");
    Ok(())
}

#[tokio::test]
async fn a_delay_queue_that_was_deleted_is_made_again() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let mut connection = consume(json!({ "queue": queue })).await?;
    for _ in 0..2 {
        publish_bodies(&channel, &queue, ["a".to_owned()]).await?;
        let received = receive(&mut *connection.inlet, 1).await?;
        connection.settler.settle(&all_settled(received, postponed(200, 2))).await?;
        let back = receive(&mut *connection.inlet, 1).await?;
        assert_eq!(back[0].message.attempt, 2);
        connection.settler.settle(&all_settled(back, Settlement::Delivered)).await?;
        channel.queue_delete(format!("{queue}.delay.200ms").into(), QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_made_again_of_another_kind_still_waits() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    for kind in ["classic", "quorum", "classic"] {
        let options = json!({ "arguments": { "x-queue-type": kind } });
        let mut connection = consume(json!({ "queue": queue, "queue_options": options })).await?;
        publish_bodies(&channel, &queue, [kind.to_owned()]).await?;
        let received = receive(&mut *connection.inlet, 1).await?;
        connection.settler.settle(&all_settled(received, postponed(100, 2))).await?;
        let back = receive(&mut *connection.inlet, 1).await?;
        assert_eq!((bodies(&back), back[0].message.attempt), (vec![kind.to_owned()], 2));
        connection.settler.settle(&all_settled(back, Settlement::Delivered)).await?;
        drop(connection.inlet);
        connection.settler.close().await?;
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn quorum_queues_wait_in_quorum_queues() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let options = json!({ "arguments": { "x-queue-type": "quorum" } });
    let mut connection = consume(json!({ "queue": queue, "queue_options": options })).await?;
    publish_bodies(&channel, &queue, ["a".to_owned()]).await?;
    for attempt in 2..=3 {
        let received = receive(&mut *connection.inlet, 1).await?;
        assert_eq!(received[0].message.attempt, attempt - 1);
        connection.settler.settle(&all_settled(received, postponed(100, attempt))).await?;
    }
    assert_eq!(receive(&mut *connection.inlet, 1).await?[0].message.attempt, 3);
    assert_eq!(ready(&channel, &format!("{queue}.delay.quorum.100ms")).await?, 0, "it exists");
    Ok(())
}

/// What the broker adds on the way back must not make a frame larger than the gateway takes.
#[tokio::test]
async fn a_heavy_message_comes_back_in_a_frame_that_fits() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let mut headers = FieldTable::default();
    headers.insert("large".into(), AMQPValue::LongString(vec![b'x'; 128_600].into()));
    publish(&channel, "", &queue, BasicProperties::default().with_headers(headers), b"heavy").await?;
    let mut connection = consume(json!({ "queue": queue })).await?;
    let original = receive(&mut *connection.inlet, 1).await?.remove(0);
    let mut expected = original.message.clone();
    connection.settler.settle(&[settled(original, postponed(100, 2))]).await?;
    let back = receive(&mut *connection.inlet, 1).await?.remove(0);
    expected.attempt = 2;
    assert_eq!(back.message, expected);
    connection.settler.settle(&[settled(back, Settlement::Delivered)]).await?;
    Ok(())
}

/// An application's own dead-letter cycle must not make the broker believe that ours goes round in circles.
#[tokio::test]
async fn a_message_that_expired_in_this_queue_before_can_still_wait() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let mut death = FieldTable::default();
    death.insert("queue".into(), AMQPValue::LongString(queue.as_str().into()));
    death.insert("reason".into(), AMQPValue::LongString("expired".into()));
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
    publish(&channel, "", &queue, BasicProperties::default().with_headers(headers), b"a").await?;
    let mut connection = consume(json!({ "queue": queue })).await?;
    let received = receive(&mut *connection.inlet, 1).await?;
    assert!(received[0].message.headers.text("x-death").is_some_and(|death| death.contains("expired")));
    connection.settler.settle(&all_settled(received, postponed(100, 2))).await?;
    assert_eq!(receive(&mut *connection.inlet, 1).await?[0].message.attempt, 2);
    Ok(())
}
