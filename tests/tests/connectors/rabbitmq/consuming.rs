//! Workers, prefetch, acknowledgement, and what happens to messages nobody settled.

use anyhow::Result;
use lapin::BasicProperties;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use serde_json::json;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::FailureKind;
use sluicegate_engine::source::Source;
use sluicegate_tests::{eventually, unique};

use super::{
    SOON, all_settled, bodies, channel, consume, declare, failure, nothing_comes, publish, publish_bodies, ready,
    receive, settled, source,
};

#[tokio::test]
async fn a_worker_holds_no_more_than_its_prefetch() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    publish_bodies(&channel, &queue, (0..50).map(|n| n.to_string())).await?;
    let mut connection = consume(json!({ "queue": queue, "prefetch": 5, "concurrency": 3 })).await?;
    let held = receive(&mut *connection.inlet, 15).await?;
    nothing_comes(&mut *connection.inlet).await?;
    assert_eq!(ready(&channel, &queue).await?, 35);
    // Each settled makes room for one more.
    connection.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    assert_eq!(receive(&mut *connection.inlet, 15).await?.len(), 15);
    Ok(())
}

#[tokio::test]
async fn acknowledged_is_gone_and_the_rest_comes_again() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    publish_bodies(&channel, &queue, (0..10).map(|n| n.to_string())).await?;
    let mut connection = consume(json!({ "queue": queue, "prefetch": 10 })).await?;
    let mut received = receive(&mut *connection.inlet, 10).await?;
    assert_eq!(bodies(&received), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(received.iter().all(|received| received.message.attempt == 1));
    // 0 to 3 at a stroke, 7 alone; 4, 5, 6, 8 and 9 stay open.
    let mut done: Vec<_> = received.drain(..4).map(|r| settled(r, Settlement::Delivered)).collect();
    done.push(settled(received.remove(3), Settlement::Dropped));
    connection.settler.settle(&done).await?;
    drop(connection.inlet);
    connection.settler.close().await?;
    eventually("the open ones are ready again", SOON, async || {
        let ready = ready(&channel, &queue).await?;
        anyhow::ensure!(ready == 5, "{ready} ready");
        Ok(())
    })
    .await;
    let mut again = consume(json!({ "queue": queue })).await?;
    let received = receive(&mut *again.inlet, 5).await?;
    assert_eq!(bodies(&received), ["4", "5", "6", "8", "9"]);
    assert!(received.iter().all(|received| received.message.headers.text("amqp-redelivered") == Some("true")));
    Ok(())
}

#[tokio::test]
async fn requeued_messages_come_again() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    publish_bodies(&channel, &queue, ["a".to_owned(), "b".to_owned()]).await?;
    let mut connection = consume(json!({ "queue": queue })).await?;
    let mut first = receive(&mut *connection.inlet, 2).await?;
    let ids: Vec<String> = first.iter().map(|received| received.message.id.clone()).collect();
    let (b, a) = (first.remove(1), first.remove(0));
    connection.settler.settle(&[settled(a, Settlement::Requeued), settled(b, Settlement::Delivered)]).await?;
    let again = receive(&mut *connection.inlet, 1).await?;
    assert_eq!(bodies(&again), ["a"]);
    assert_eq!(again[0].message.id, ids[0], "a message without id keeps the one it was given");
    // A second time is not faster than 100 ms.
    let begun = std::time::Instant::now();
    connection.settler.settle(&all_settled(again, Settlement::Requeued)).await?;
    assert!(begun.elapsed().as_millis() >= 100);
    receive(&mut *connection.inlet, 1).await?;
    Ok(())
}

#[tokio::test]
async fn headers_and_bodies_arrive_byte_for_byte() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..1_048_576_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut headers = FieldTable::default();
    headers.insert("binary".into(), AMQPValue::LongString(every_byte.clone().into()));
    headers.insert("bytes".into(), AMQPValue::ByteArray(every_byte.clone().into()));
    headers.insert("empty".into(), AMQPValue::LongString("".into()));
    headers.insert("number".into(), AMQPValue::LongInt(-3));
    let list = vec![AMQPValue::LongString("x".into()), AMQPValue::LongString("y".into())];
    headers.insert("list".into(), AMQPValue::FieldArray(FieldArray::from(list)));
    let properties = BasicProperties::default().with_headers(headers).with_message_id("m-1".into());
    for body in [&large, &every_byte, &Vec::new()] {
        publish(&channel, "", &queue, properties.clone(), body).await?;
    }
    let mut connection = consume(json!({ "queue": queue })).await?;
    let received = receive(&mut *connection.inlet, 3).await?;
    for (received, body) in received.iter().zip([&large, &every_byte, &Vec::new()]) {
        let message = &received.message;
        assert!(message.body.bytes() == body, "{} bytes came of {}", message.body.len(), body.len());
        assert_eq!(message.headers.get("binary").map(|value| value.to_vec()), Some(every_byte.clone()));
        assert_eq!(message.headers.get("bytes").map(|value| value.to_vec()), Some(every_byte.clone()));
        assert_eq!(message.headers.text("empty"), Some(""));
        assert_eq!(message.headers.text("number"), Some("-3"));
        let list: Vec<_> =
            message.headers.iter().filter(|(name, _)| *name == "list").map(|(_, v)| v.to_vec()).collect();
        assert_eq!(list, [b"x", b"y"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_dropped_inlet_ends_the_pushing_and_settling_goes_on() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    declare(&channel, &queue).await?;
    publish_bodies(&channel, &queue, ["a".to_owned()]).await?;
    let mut connection = consume(json!({ "queue": queue, "concurrency": 2 })).await?;
    let held = receive(&mut *connection.inlet, 1).await?;
    drop(connection.inlet);
    eventually("both consumers are gone", SOON, async || {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let state = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await?;
        anyhow::ensure!(state.consumer_count() == 0, "{} consumers", state.consumer_count());
        Ok(())
    })
    .await;
    publish_bodies(&channel, &queue, ["b".to_owned()]).await?;
    connection.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    connection.settler.close().await?;
    assert_eq!(ready(&channel, &queue).await?, 1, "a is acknowledged, b was never pushed");
    Ok(())
}

#[tokio::test]
async fn a_deleted_queue_is_a_lost_connection_and_comes_back() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let mut source = source(json!({ "queue": queue, "concurrency": 3 })).await?;
    let mut connection = source.connect().await?;
    publish_bodies(&channel, &queue, ["held".to_owned()]).await?;
    let held = receive(&mut *connection.inlet, 1).await?;
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    let failure = failure(&mut *connection.inlet).await?;
    assert_eq!(failure.kind, FailureKind::Disconnected);
    assert!(failure.text.contains(&queue) && failure.text.contains("deleted"), "{failure}");
    drop((connection, held));
    let mut connection = source.connect().await?;
    publish_bodies(&channel, &queue, ["again".to_owned()]).await?;
    let received = receive(&mut *connection.inlet, 1).await?;
    assert_eq!(bodies(&received), ["again"]);
    connection.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
    Ok(())
}

#[tokio::test]
async fn ten_thousand_messages_pass_four_workers_once_each() -> Result<()> {
    let (queue, channel) = (unique("q"), channel().await?);
    let outlet = super::outlet(json!({ "queue": queue })).await?;
    for start in (0..10_000).step_by(500) {
        let batch: Vec<_> = (start..start + 500).map(|n: u32| super::message("n", n.to_string())).collect();
        for result in outlet.publish(&batch).await {
            result?;
        }
    }
    let mut connection = consume(json!({ "queue": queue, "concurrency": 4, "prefetch": 100 })).await?;
    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        let received = receive(&mut *connection.inlet, 1).await?;
        let more = tokio::time::timeout(SOON, connection.inlet.receive(99));
        let received: Vec<_> =
            if seen.len() + 1 < 10_000 { received.into_iter().chain(more.await??).collect() } else { received };
        seen.extend(bodies(&received).iter().map(|body| body.parse::<u32>()).collect::<Result<Vec<_>, _>>()?);
        connection.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
    drop(connection.inlet);
    connection.settler.close().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(())
}
