//! Entries that were delivered and not settled: who gets them, and when.

use anyhow::Result;
use redis::cmd;
use serde_json::json;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::source::Source;
use sluicegate_tests::unique;

use super::{CLAIM_AFTER, add, all_settled, bodies, client, consume, nothing_comes, pending, receive, source};

#[tokio::test]
async fn entries_of_a_dead_gateway_are_claimed_as_their_next_attempt() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1", "2"]).await?;
    let mut dead = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    assert_eq!(receive(&mut *dead.inlet, 2).await?[0].message.attempt, 1);
    drop(dead);
    let mut alive = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    let received = receive(&mut *alive.inlet, 2).await?;
    assert_eq!(bodies(&received), ["1", "2"]);
    assert!(received.iter().all(|received| received.message.attempt == 2));
    alive.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_a_living_gateway_has_in_flight_is_left_alone() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1"]).await?;
    let mut slow = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    let held = receive(&mut *slow.inlet, 1).await?;
    // Even while it drains and reads no more.
    drop(slow.inlet);
    let other = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    nothing_comes(other.inlet).await?;
    slow.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}

#[tokio::test]
async fn requeued_entries_come_again_without_waiting_to_be_stale() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1", "2"]).await?;
    let mut connection = consume(json!({ "stream": stream, "claim_after": "1h" })).await?;
    let received = receive(&mut *connection.inlet, 2).await?;
    connection.settler.settle(&all_settled(received, Settlement::Requeued)).await?;
    let again = receive(&mut *connection.inlet, 2).await?;
    assert_eq!((bodies(&again), again[0].message.attempt), (vec!["1".to_owned(), "2".to_owned()], 2));
    // Given back as the gateway stops: another one gets them at once.
    connection.settler.settle(&all_settled(again, Settlement::Requeued)).await?;
    drop(connection.inlet);
    connection.settler.close().await?;
    let mut other = consume(json!({ "stream": stream, "claim_after": "1h" })).await?;
    let received = receive(&mut *other.inlet, 2).await?;
    assert_eq!(received[0].message.attempt, 3);
    Ok(())
}

#[tokio::test]
async fn a_fixed_consumer_gets_its_own_back_at_once() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1", "2", "3"]).await?;
    let settings = json!({ "stream": stream, "consumer": "gateway-1", "claim_after": "1h", "batch": 2 });
    let mut before = consume(settings.clone()).await?;
    assert_eq!(receive(&mut *before.inlet, 3).await?.len(), 3);
    drop(before);
    add(&mut client, &stream, &["4"]).await?;
    let mut after = consume(settings).await?;
    let received = receive(&mut *after.inlet, 4).await?;
    assert_eq!(bodies(&received), ["1", "2", "3", "4"]);
    let attempts: Vec<u32> = received.iter().map(|received| received.message.attempt).collect();
    assert_eq!(attempts, [2, 2, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn a_new_connection_settles_what_the_old_one_read_and_does_not_read_it_again() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1"]).await?;
    let mut source = source(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    let mut first = source.connect().await?;
    let held = receive(&mut *first.inlet, 1).await?;
    drop(first);
    let mut second = source.connect().await?;
    assert!(second.resumes);
    nothing_comes(second.inlet).await?;
    second.settler.settle(&all_settled(held, Settlement::Delivered)).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_got_lost_is_made_up_for_by_the_next_connection() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    let mut source = source(json!({ "stream": stream, "consumer": "c", "claim_after": "1h" })).await?;
    drop(source.connect().await?);
    add(&mut client, &stream, &["1"]).await?;
    // As if the gateway had been sent the entry and never got it.
    cmd("XREADGROUP").arg(&["GROUP", "test", "c", "STREAMS", &stream, ">"]).exec_async(&mut client).await?;
    let mut connection = source.connect().await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["1"]);
    Ok(())
}

#[tokio::test]
async fn pending_entries_that_were_deleted_are_forgotten() -> Result<()> {
    let (stream, mut client) = (unique("s"), client().await?);
    add(&mut client, &stream, &["1", "2"]).await?;
    let mut dead = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    let ids: Vec<String> = receive(&mut *dead.inlet, 2).await?.into_iter().map(|r| r.message.id).collect();
    drop(dead);
    cmd("XDEL").arg(&stream).arg(&ids[0]).exec_async(&mut client).await?;
    let mut alive = consume(json!({ "stream": stream, "claim_after": CLAIM_AFTER })).await?;
    let received = receive(&mut *alive.inlet, 1).await?;
    assert_eq!(bodies(&received), ["2"]);
    alive.settler.settle(&all_settled(received, Settlement::Delivered)).await?;
    assert_eq!(pending(&mut client, &stream).await?, 0);
    Ok(())
}
