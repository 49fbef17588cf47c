//! The algebra of settlement: whatever happens, no path loses a delivery.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sluicegate_engine::delivery::{Outcome, Settlement};
use sluicegate_engine::failure::{Failure, GuestFailure, Reason};
use sluicegate_engine::memory::{MemoryInbox, MemorySource, Reply};
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::{OnKeyFailure, Order};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::step::{Destination, Verdict};

use crate::support::{Bench, filter, guest, route, text, transform};

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => Just(Reply::Confirm),
        1 => (1_u64..5_000).prop_map(|ms| Reply::Slowly(Duration::from_millis(ms))),
        1 => Just(Reply::Fail(Failure::transient("busy"))),
        1 => Just(Reply::Fail(Failure::permanent("refused"))),
        1 => (1_u64..100).prop_map(|s| Reply::Fail(Failure::retry_after(Duration::from_secs(s), "later"))),
        1 => Just(Reply::ConfirmLost),
        1 => Just(Reply::Hang),
    ]
}

/// What the filter does with a message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Keep,
    Drop,
    Reject,
    RetryForEver,
    Split,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![3 => Just(Fate::Keep), 1 => Just(Fate::Drop), 1 => Just(Fate::Reject), 1 => Just(Fate::RetryForEver), 1 => Just(Fate::Split)]
}

#[derive(Debug, Clone)]
struct Scenario {
    fates: Vec<Fate>,
    left: Vec<Reply>,
    right: Vec<Reply>,
    connect_failures: usize,
    settle_failures: usize,
    dead_letter_failures: usize,
    cut: bool,
    postpones: bool,
    resumes: bool,
    /// Whether there is an inbox, and how often it refuses.
    inbox: Option<usize>,
    order: Order,
    max_in_flight: usize,
    stop_after_ms: Option<u64>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let order =
        prop_oneof![Just(Order::None), Just(Order::Key(OnKeyFailure::Skip)), Just(Order::Key(OnKeyFailure::Park))];
    (
        prop::collection::vec(fate(), 1..30),
        prop::collection::vec(reply(), 0..30),
        prop::collection::vec(reply(), 0..30),
        (0_usize..4, 0_usize..3, 0_usize..3),
        (any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(0_usize..4)),
        order,
        1_usize..10,
        prop::option::of(0_u64..60_000),
    )
        .prop_map(
            |(
                fates,
                left,
                right,
                (connect_failures, settle_failures, dead_letter_failures),
                (cut, postpones, resumes, inbox),
                order,
                max_in_flight,
                stop_after_ms,
            )| Scenario {
                fates,
                left,
                right,
                connect_failures,
                settle_failures,
                dead_letter_failures,
                cut,
                postpones,
                resumes,
                inbox,
                order,
                max_in_flight,
                stop_after_ms,
            },
        )
}

async fn play(mut scenario: Scenario) {
    // What is parked counts its age by the wall clock, which does not pause: with it a parked key would never end.
    if scenario.inbox.is_some() && scenario.order == Order::Key(OnKeyFailure::Park) {
        scenario.stop_after_ms.get_or_insert(3_600_000);
    }
    let Scenario { fates, left, right, order, .. } = scenario.clone();
    let count = fates.len();
    let scenario_fates = fates.clone();
    let mut source = MemorySource::of((0..count).map(|n| Message {
        id: format!("m{n}"),
        key: Some(format!("k{}", n % 3).into()),
        ..Message::new("test", "test", n.to_string())
    }));
    if scenario.postpones {
        source = source.postponing();
    }
    if scenario.resumes {
        source = source.resuming();
    }
    source.refuse_connects((0..scenario.connect_failures).map(|_| Failure::disconnected("refused")));
    source.refuse_settles((0..scenario.settle_failures).map(|_| Failure::disconnected("broken")));
    let of = move |m: &Message| fates[text(m).parse::<usize>().expect("a number")];
    let of_split = of.clone();
    let mut bench = Bench::new(source, ["left", "right"])
        .step(filter(move |m| match of(m) {
            Fate::Keep | Fate::Split => Ok(Verdict::Keep),
            Fate::Drop => Ok(Verdict::Drop(Reason::new("drop", ""))),
            Fate::Reject => Err(guest(GuestFailure::Reject(Reason::new("reject", "")))),
            Fate::RetryForEver => Err(guest(GuestFailure::Retry { reason: Reason::new("retry", ""), after: None })),
        }))
        .step(transform(move |m| {
            let copies = if matches!(of_split(m), Fate::Split) { 3 } else { 1 };
            Ok((0..copies).map(|_| m.clone()).collect())
        }))
        .step(route(|m| {
            let n: usize = text(m).parse().expect("a number");
            Ok(match n % 3 {
                0 => vec![Destination::to("left")],
                1 => vec![Destination::to("right")],
                _ => vec![Destination::to("left"), Destination::to("right")],
            })
        }));
    let inbox = MemoryInbox::default();
    if let Some(refusals) = scenario.inbox {
        inbox.refuse((0..refusals).map(|_| Failure::transient("disk full")));
        bench.state.inbox = Some(Arc::new(inbox.clone()));
    }
    bench.order = order;
    bench.max_in_flight = scenario.max_in_flight;
    bench.retry = RetryPolicy { max_attempts: 3, max_age: Some(Duration::from_secs(600)), ..RetryPolicy::default() };
    bench.target("left").in_batches_of(4);
    bench.target("left").script(left);
    bench.target("right").script(right);
    bench.dead_letters.refuse((0..scenario.dead_letter_failures).map(|_| Failure::transient("disk full")));

    let (stop, run) = bench.start();
    if scenario.cut {
        tokio::time::sleep(Duration::from_millis(700)).await;
        bench.source.cut();
    }
    if let Some(ms) = scenario.stop_after_ms {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        stop.cancel();
    }
    tokio::time::timeout(Duration::from_secs(36_000), run).await.expect("the pipeline ends").expect("no panic");

    // Every message is settled for good or still with its source or in the inbox; every success has its evidence.
    let settled = bench.source.settled();
    let remaining = bench.source.remaining();
    let letters = bench.dead_letters.letters();
    let parked: Vec<String> = inbox.entries().iter().map(|entry| entry.original.id.clone()).collect();
    for (n, fate) in scenario_fates.iter().enumerate() {
        let id = format!("m{n}");
        let last = settled.iter().rev().find(|(settled_id, _)| *settled_id == id).map(|(_, outcome)| outcome);
        let ended = last.filter(|outcome| match outcome.settlement {
            Settlement::Delivered | Settlement::Dropped | Settlement::Parked | Settlement::DeadLettered => true,
            Settlement::Postponed { .. } | Settlement::Requeued => false,
        });
        assert!(ended.is_some() || remaining.contains(&id), "{id} is lost: last settled as {last:?}");
        if scenario.stop_after_ms.is_none() {
            assert!(ended.is_some(), "{id} never ended though nobody stopped the pipeline");
            assert!(parked.is_empty(), "the inbox still has {parked:?}");
        }
        let Some(outcome) = ended else { continue };
        check_evidence(&bench, &id, outcome, &letters);
        if outcome.settlement == Settlement::Parked {
            // What became of it later: it is in, or at a target, or a dead letter, or was dropped by a step.
            let arrived = ["left", "right"].iter().any(|t| bench.target(t).published().iter().any(|m| m.id == id));
            let explained = letters.iter().any(|letter| letter.original.id == id);
            assert!(
                parked.contains(&id) || arrived || explained || matches!(fate, Fate::Drop),
                "{id} is lost after it was parked"
            );
        }
    }
}

fn check_evidence(
    bench: &Bench,
    id: &str,
    outcome: &Outcome,
    letters: &[std::sync::Arc<sluicegate_engine::dead_letter::DeadLetter>],
) {
    for target in &outcome.delivered_to {
        assert!(
            bench.target(target).published().iter().any(|m| m.id == *id),
            "{id} said to be delivered to {target} is not there"
        );
    }
    for letter in &outcome.dead_letters {
        assert!(letters.iter().any(|kept| kept.id == letter.id), "{id}'s dead letter was not kept");
    }
    match outcome.settlement {
        Settlement::Delivered => assert!(!outcome.delivered_to.is_empty() && outcome.dead_letters.is_empty()),
        Settlement::Dropped => assert!(!outcome.dropped.is_empty() && outcome.dead_letters.is_empty()),
        Settlement::DeadLettered => assert!(!outcome.dead_letters.is_empty()),
        Settlement::Parked => {}
        Settlement::Postponed { .. } | Settlement::Requeued => {
            unreachable!("filtered by the caller")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_path_loses_a_delivery(scenario in scenario()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(play(scenario));
    }

    #[test]
    fn the_worst_settlement_wins_in_any_order(mut all in prop::collection::vec(0_u8..6, 1..6)) {
        let of = |n: u8| match n {
            0 => Settlement::Delivered,
            1 => Settlement::Dropped,
            2 => Settlement::Parked,
            3 => Settlement::DeadLettered,
            4 => Settlement::Postponed { after: Duration::from_secs(1), attempt: 2 },
            _ => Settlement::Requeued,
        };
        let mut merged = Outcome::default();
        for n in &all {
            merged.merge(Outcome { settlement: of(*n), ..Outcome::default() });
        }
        all.sort_unstable();
        prop_assert_eq!(merged.settlement, of(all[all.len() - 1]));
    }
}
