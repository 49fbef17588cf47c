//! Whatever consumers do, and whenever the gateway ends: every message reaches every group, and those of one key in
//! their order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Publishes so many, with this key.
    Publish(usize, Option<u8>),
    /// Group 0 or 1 claims so many.
    Claim(usize, usize),
    /// Settles the oldest claims of a group.
    Done(usize, usize),
    /// Gives back the newest claim of a group.
    Release(usize),
    /// The consumer leaves, another joins.
    Rejoin(usize),
    /// The gateway ends without a word and starts again.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_usize, prop::option::of(0..3_u8)).prop_map(|(count, key)| Step::Publish(count, key)),
        6 => (0..2_usize, 1..5_usize).prop_map(|(group, max)| Step::Claim(group, max)),
        4 => (0..2_usize, 1..4_usize).prop_map(|(group, count)| Step::Done(group, count)),
        2 => (0..2_usize).prop_map(Step::Release),
        1 => (0..2_usize).prop_map(Step::Rejoin),
        1 => Just(Step::Crash),
    ]
}

const GROUPS: [&str; 2] = ["g0", "g1"];

/// What has been seen of one group.
#[derive(Default)]
struct Seen {
    held: Vec<Claimed>,
    settled: BTreeSet<u64>,
}

impl Seen {
    /// Takes in what was claimed. Of a key nothing comes while an older one of it is unsettled.
    fn claimed(&mut self, claimed: Vec<Claimed>, keys: &BTreeMap<u64, Option<u8>>, is_ordered: bool) {
        for one in claimed {
            assert!(!self.settled.contains(&one.offset), "{} comes again after it was settled", one.offset);
            if let Some(key) = keys[&one.offset].filter(|_| is_ordered) {
                let older = keys.range(..one.offset).filter(|(_, other)| **other == Some(key));
                for (offset, _) in older {
                    assert!(self.settled.contains(offset), "{} comes before {offset} is settled", one.offset);
                }
            }
            self.held.push(one);
        }
    }
}

async fn run(kind: Kind, steps: Vec<Step>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut queues = open(&folder).await;
    queues.create("q", &Settings { kind, ..Settings::default() }).await.expect("a queue");
    let mut consumers = join(&queues).await;
    let mut seen = [Seen::default(), Seen::default()];
    let mut keys = BTreeMap::new();
    let end = [Step::Crash].into_iter();
    for step in steps.into_iter().chain(end) {
        match step {
            Step::Publish(count, key) => {
                let name = key.map(|key| key.to_string());
                let batch = (0..count).map(|n| numbered(name.as_deref(), keys.len() + n)).collect();
                for published in publish(&queues, "q", batch).await {
                    keys.insert(published.offset.expect("at once"), key);
                }
            }
            Step::Claim(group, max) => {
                let claimed = claim_now(&consumers[group], max).await;
                seen[group].claimed(claimed, &keys, kind == Kind::Ordered);
            }
            Step::Done(group, count) => {
                let count = count.min(seen[group].held.len());
                let done: Vec<Claimed> = seen[group].held.drain(..count).collect();
                settle(&consumers[group], &done).await;
                seen[group].settled.extend(done.iter().map(|one| one.offset));
            }
            Step::Release(group) => {
                if let Some(one) = seen[group].held.pop() {
                    let release = [Settle::release(one.token, Duration::ZERO)];
                    consumers[group].settle(&release).await.expect("given back");
                }
            }
            Step::Rejoin(group) => {
                consumers[group].leave().await.expect("left");
                seen[group].held.clear();
                consumers[group] = queues.join("q", GROUPS[group], Start::Earliest).await.expect("a consumer");
            }
            Step::Crash => {
                // As if killed: nobody leaves, the file alone goes on.
                for consumer in &consumers {
                    consumer.forget();
                }
                queues.store.close_without_leaving().await;
                queues = open(&folder).await;
                consumers = join(&queues).await;
                seen.iter_mut().for_each(|seen| seen.held.clear());
            }
        }
    }
    for (consumer, seen) in consumers.iter().zip(&mut seen) {
        while seen.settled.len() < keys.len() {
            let claimed = claim_now(consumer, 7).await;
            assert!(!claimed.is_empty(), "{} of {} messages never came", keys.len() - seen.settled.len(), keys.len());
            seen.claimed(claimed, &keys, kind == Kind::Ordered);
            let held = std::mem::take(&mut seen.held);
            settle(consumer, &held).await;
            seen.settled.extend(held.iter().map(|one| one.offset));
        }
    }
}

async fn join(queues: &Queues) -> Vec<Consumer> {
    let mut consumers = Vec::new();
    for group in GROUPS {
        consumers.push(queues.join("q", group, Start::Earliest).await.expect("a consumer"));
    }
    consumers
}

async fn settle(consumer: &Consumer, done: &[Claimed]) {
    let batch: Vec<Settle> = done.iter().map(|one| Settle::done(one.token)).collect();
    consumer.settle(&batch).await.expect("settled");
}

async fn claim_now(consumer: &Consumer, max: usize) -> Vec<Claimed> {
    consumer.claim_now(max).await.expect("claimed")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_message_reaches_every_group_in_the_order_of_its_key(
        is_ordered in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let kind = if is_ordered { Kind::Ordered } else { Kind::Normal };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(run(kind, steps));
    }
}
