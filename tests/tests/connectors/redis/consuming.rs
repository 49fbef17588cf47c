//! Groups, acknowledgement, layouts, and many or large messages.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use redis::cmd;
use serde_json::json;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::message::Message;
use sluicegate_tests::{servers, unique};

use super::{SOON, add, all_settled, bodies, client, consume, outlet, pending, receive};

#[tokio::test]
async fn a_group_is_created_with_its_stream_and_begins_where_it_is_told() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut earliest = consume(json!({ "stream": stream })).await?;
    add(&mut client, &stream, &["1", "2"]).await?;
    assert_eq!(bodies(&receive(&mut *earliest.inlet, 2).await?), ["1", "2"]);
    let settings = json!({ "stream": stream, "group": "late", "start": "latest" });
    let mut latest = consume(settings.clone()).await?;
    add(&mut client, &stream, &["3"]).await?;
    assert_eq!(bodies(&receive(&mut *latest.inlet, 1).await?), ["3"]);
    // A group that exists goes on where it was.
    add(&mut client, &stream, &["4"]).await?;
    let mut again = consume(settings).await?;
    assert_eq!(bodies(&receive(&mut *again.inlet, 1).await?), ["4"]);
    Ok(())
}

#[tokio::test]
async fn what_is_settled_is_not_pending_and_the_consumer_leaves() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1", "2", "3"]).await?;
    let mut connection = consume(json!({ "stream": stream })).await?;
    let mut received = receive(&mut *connection.inlet, 3).await?;
    assert_eq!(pending(&mut client, &stream).await?, 3);
    let third = received.split_off(2);
    let second = received.split_off(1);
    let mut batch = all_settled(received, Settlement::Delivered);
    batch.extend(all_settled(second, Settlement::Dropped));
    batch.extend(all_settled(third, Settlement::DeadLettered));
    connection.settler.settle(&batch).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    drop(connection.inlet);
    connection.settler.close().await?;
    let consumers: Vec<redis::Value> =
        cmd("XINFO").arg("CONSUMERS").arg(&stream).arg("test").query_async(&mut client).await?;
    assert!(consumers.is_empty(), "{consumers:?}");
    Ok(())
}

/// A stop cuts a read off; for the server it goes on until the connection is gone, and may be given an entry at any time.
#[tokio::test]
async fn what_a_cut_off_read_is_given_while_its_consumer_leaves_comes_again() -> Result<()> {
    const ROUNDS: usize = 150;
    let (stream, mut client) = (unique("s"), client().await?);
    let mut found = Vec::new();
    for round in 0..ROUNDS {
        let mut connection = consume(json!({ "stream": stream, "block": "10s" })).await?;
        // Until nothing comes any more, and a read is left standing.
        while let Ok(received) = tokio::time::timeout(Duration::from_millis(20), connection.inlet.receive(16)).await {
            let received = received?;
            found.extend(bodies(&received));
            connection.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
        }
        let adding = async {
            // A little later in each round: before, between and after the commands of closing.
            for _ in 0..round % 30 {
                tokio::task::yield_now().await;
            }
            add(&mut client, &stream, &[&round.to_string()]).await
        };
        let (added, closed) = tokio::join!(adding, connection.settler.close());
        added?;
        closed?;
    }
    let mut last = consume(json!({ "stream": stream, "claim_after": "300ms" })).await?;
    let left = ROUNDS - found.len();
    found.extend(bodies(&receive(&mut *last.inlet, left).await?));
    found.sort_by_key(|body| body.parse().unwrap_or(ROUNDS));
    assert_eq!(found, (0..ROUNDS).map(|round| round.to_string()).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn two_sources_of_a_process_share_the_entries() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut one = consume(json!({ "stream": stream, "batch": 1 })).await?;
    let mut two = consume(json!({ "stream": stream, "batch": 1 })).await?;
    add(&mut client, &stream, &["1", "2"]).await?;
    let mut all = bodies(&receive(&mut *one.inlet, 1).await?);
    all.extend(bodies(&receive(&mut *two.inlet, 1).await?));
    assert_eq!(all, ["1", "2"]);
    Ok(())
}

#[tokio::test]
async fn odd_entries_are_messages_like_others() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut odd = cmd("XADD");
    odd.arg(&stream).arg("1-1").arg(b"\xff\xfe").arg(b"\x00").arg("").arg("");
    odd.exec_async(&mut client).await?;
    add(&mut client, &stream, &["next"]).await?;
    let mut connection = consume(json!({ "stream": stream })).await?;
    let received = receive(&mut *connection.inlet, 2).await?;
    assert_eq!((&*received[0].message.id, received[0].message.time_ms), ("1-1", 1));
    assert!(received[0].message.body.json().is_ok());
    connection.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}

#[tokio::test]
async fn messages_come_through_byte_for_byte() -> Result<()> {
    let stream = unique("s");
    let mut large = Message::new("tests", "large", vec![0xA5_u8; 1 << 20]);
    large.key = Some(vec![0, 255].into());
    large.subject = Some("Größe\n".to_owned());
    large.expires_at_ms = Some(4_102_444_800_000);
    let mut binary = Message::new("tests", "binary", (0..=255).collect::<Vec<u8>>());
    for value in [&b"one"[..], b"\x00\xff", b""] {
        binary.headers.append("X-Repeat", value.to_vec());
    }
    let sent = [Arc::new(large), Arc::new(binary)];
    let results = outlet(json!({ "stream": stream })).await?.publish(&sent).await;
    assert_eq!(results, [Ok(()), Ok(())]);
    let mut connection = consume(json!({ "stream": stream })).await?;
    let received = receive(&mut *connection.inlet, 2).await?;
    for (sent, received) in sent.iter().zip(received) {
        assert_eq!(received.message, **sent);
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_messages_come_through_in_order() -> Result<()> {
    const COUNT: usize = 10_000;
    let (stream, mut client) = (unique("s"), client().await?);
    let outlet = outlet(json!({ "stream": stream })).await?;
    let mut connection = consume(json!({ "stream": stream })).await?;
    let messages: Vec<_> = (0..COUNT).map(|n| Arc::new(Message::new("tests", "t", n.to_string()))).collect();
    let publishing = async {
        for batch in messages.chunks(250) {
            assert!(outlet.publish(batch).await.iter().all(Result::is_ok));
        }
    };
    let consuming = async {
        let mut next = 0;
        while next < COUNT {
            let received = tokio::time::timeout(SOON, connection.inlet.receive(256)).await??;
            for received in &received {
                assert_eq!(received.message.id, messages[next].id);
                next += 1;
            }
            connection.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
        }
        anyhow::Ok(())
    };
    let ((), consumed) = tokio::join!(publishing, consuming);
    consumed?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}

#[tokio::test]
async fn the_database_number_is_used() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let url = format!("{}/5", servers::redis().await?.url());
    let outlet = outlet(json!({ "url": url, "stream": stream })).await?;
    assert_eq!(outlet.publish(&[Arc::new(Message::new("tests", "t", "there"))]).await, [Ok(())]);
    let exists: u64 = cmd("EXISTS").arg(&stream).query_async(&mut client).await?;
    assert_eq!(exists, 0, "it is in database 0");
    let mut connection = consume(json!({ "url": url, "stream": stream })).await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["there"]);
    Ok(())
}
