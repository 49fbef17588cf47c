//! A gateway that is killed with messages of queues in its hands: another one gets all of them.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_engine::message::Message;
use sluicegate_store::queue::{Consumer, Kind, Publication, Queues, Settings, Settle, Start};
use sluicegate_store::{Location, Store, testing};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::both::Fresh;

const DATABASE: &str = "SLUICEGATE_TEST_KILLED_DATABASE";
const HAS: &str = "has ";
const LIMIT: Duration = Duration::from_secs(60);
/// Each looks at the others every few seconds.
const SWEEP: Duration = Duration::from_secs(8);

/// The child: claims what it can get, says what, and keeps it until it is killed.
#[tokio::test]
#[ignore = "started by the test below"]
async fn child_claims_until_killed() {
    let url = std::env::var(DATABASE).expect("started by the test below");
    let queues = Queues::new(Arc::new(Store::open(&Location::shared(url)).await.unwrap()));
    for queue in ["normal", "ordered"] {
        let consumer = queues.join(queue, "g", Start::Earliest).await.unwrap();
        let claimed = consumer.claim(30, u64::MAX).await.unwrap();
        // A part of it is settled.
        consumer.settle(&claimed[..5].iter().map(|one| Settle::done(one.token)).collect::<Vec<_>>()).await.unwrap();
        for one in &claimed[5..] {
            println!("\n{HAS}{queue} {}", one.message.id);
        }
        std::mem::forget(consumer);
    }
    println!("\n{HAS}all");
    std::future::pending::<()>().await;
}

fn message(number: usize) -> Publication {
    // Each has a key of its own, so that many of them are out at a time in the ordered queue, too.
    let key = Some(format!("k{number}").into());
    Publication::new(Message { id: format!("m{number:02}"), key, ..Message::new("/test", "test", "{}") })
}

async fn all_of(consumer: &Consumer, count: usize) -> Vec<(String, u32)> {
    let mut got = Vec::new();
    while got.len() < count {
        let claimed = tokio::time::timeout(LIMIT, consumer.claim(100, u64::MAX)).await.expect("it comes").unwrap();
        got.extend(claimed.into_iter().map(|one| (one.message.id, one.message.attempt)));
    }
    got.sort();
    got
}

#[tokio::test]
async fn what_a_killed_gateway_held_another_one_gets_after_the_term() {
    let fresh = Fresh::postgres().await;
    let Location::Shared { .. } = &fresh.location else { unreachable!("PostgreSQL") };
    let store = Arc::new(fresh.open().await);
    let queues = Queues::new(Arc::clone(&store));
    for (name, kind) in [("normal", Kind::Normal), ("ordered", Kind::Ordered)] {
        queues.create(name, &Settings { kind, ..Settings::default() }).await.unwrap();
        for published in queues.publish(name, (0..50).map(message).collect()).await.unwrap() {
            published.unwrap();
        }
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sigkill::child_claims_until_killed", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DATABASE, fresh.url.as_deref().unwrap())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut held = Vec::new();
    loop {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().expect("the child lives");
        match line.strip_prefix(HAS) {
            Some("all") => break,
            Some(one) => held.push(one.to_owned()),
            None => {}
        }
    }
    assert_eq!(held.len(), 50);
    // While it lives, others get the rest.
    let normal = queues.join("normal", "g", Start::Earliest).await.unwrap();
    let ordered = queues.join("ordered", "g", Start::Earliest).await.unwrap();
    for consumer in [&normal, &ordered] {
        let rest: Vec<_> = (30..50).map(|number| (format!("m{number:02}"), 1)).collect();
        assert_eq!(all_of(consumer, 20).await, rest);
    }
    let killed = Instant::now();
    child.kill().await.unwrap();
    for consumer in [&normal, &ordered] {
        let left: Vec<_> = (5..30).map(|number| (format!("m{number:02}"), 2)).collect();
        assert_eq!(all_of(consumer, 25).await, left, "all that it held, and nothing of what it had settled");
        let after = killed.elapsed();
        assert!(after < testing::TERM + SWEEP, "after {after:?}");
    }
    assert_eq!(testing::gateways(&store).await, Ok(vec![testing::owner(&store)]));
    for name in ["normal", "ordered"] {
        let group = queues.group(name, "g").await.unwrap();
        assert_eq!((group.lag, group.pending, group.lost, group.consumers), (0, 45, 0, 1));
    }
    store.close().await;
}
