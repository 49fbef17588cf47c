//! Messages that get through: steps, fan-out, order, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{Failure, FailureClass, GuestFailure, Reason};
use sluicegate_engine::memory::{MemorySource, Reply};
use sluicegate_engine::message::Message;
use sluicegate_engine::pipeline::{OnKeyFailure, Order};
use sluicegate_engine::retry::RetryPolicy;
use sluicegate_engine::step::{Action, Destination, Unroutable, Verdict};

use crate::support::{Bench, RouteBy, eventually, filter, guest, numbered, route, text, transform};

#[tokio::test(start_paused = true)]
async fn a_message_goes_through_filter_transform_and_route() {
    let bench = Bench::new(MemorySource::of(numbered(4)), ["even", "odd"])
        .step(filter(|m| {
            Ok(if text(m) == "3" { Verdict::Drop(Reason::new("three", "no threes")) } else { Verdict::Keep })
        }))
        .step(transform(|m| Ok(vec![Message { body: format!("<{}>", text(m)).into(), ..m.clone() }])))
        .step(route(|m| {
            let even = text(m).trim_matches(['<', '>']).parse::<u32>().expect("a number") % 2 == 0;
            Ok(vec![Destination::to(if even { "even" } else { "odd" })])
        }));
    bench.run().await;
    assert_eq!(bench.target("even").bodies(), ["<0>", "<2>"]);
    assert_eq!(bench.target("odd").bodies(), ["<1>"]);
    let settled = bench.source.settled();
    let (_, three) = settled.iter().find(|(id, _)| id == "m3").expect("m3 is settled");
    assert_eq!(three.settlement, Settlement::Dropped);
    assert_eq!(three.dropped[0].code, "three");
    assert!(bench.source.remaining().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_router_every_target_gets_every_message_and_a_split_goes_all_ways() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a", "b"]).step(transform(|m| {
        Ok(vec![Message { body: "x".into(), ..m.clone() }, Message { body: "y".into(), ..m.clone() }])
    }));
    bench.run().await;
    for target in ["a", "b"] {
        let mut bodies = bench.target(target).bodies();
        bodies.sort();
        assert_eq!(bodies, ["x", "y"]);
    }
    let (_, outcome) = &bench.source.settled()[0];
    assert_eq!((outcome.settlement, outcome.delivered_to.len()), (Settlement::Delivered, 4));
}

#[tokio::test(start_paused = true)]
async fn a_transform_that_makes_nothing_drops_the_message() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]).step(transform(|_| Ok(Vec::new())));
    bench.run().await;
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Dropped);
    assert!(bench.target("a").published().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_router_leaves_unroutable_follows_the_policy() {
    for (policy, settlement, published) in [
        (Unroutable::DeadLetter, Settlement::DeadLettered, 0),
        (Unroutable::Drop, Settlement::Dropped, 0),
        (Unroutable::Target("rest".into()), Settlement::Delivered, 1),
    ] {
        let nowhere = Action::Route(Arc::new(RouteBy(|_: &Message| Ok(Vec::new()))), policy);
        let bench = Bench::new(MemorySource::of(numbered(1)), ["rest"]).step(nowhere);
        bench.run().await;
        assert_eq!(bench.source.settled()[0].1.settlement, settlement);
        assert_eq!(bench.target("rest").published().len(), published);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_exist_breaks_the_contract_with_the_routers_identity() {
    let bench =
        Bench::new(MemorySource::of(numbered(1)), ["a", "b"]).step(route(|_| Ok(vec![Destination::to("no\u{1b}pe")])));
    bench.run().await;
    let letter = &bench.dead_letters.letters()[0];
    assert_eq!(letter.class, FailureClass::Contract);
    assert_eq!(letter.plugin.as_deref(), Some("by-closure"));
    assert!(letter.error.contains("no\u{fffd}pe") && letter.error.contains("a, b"), "{}", letter.error);
}

#[tokio::test(start_paused = true)]
async fn a_destination_can_replace_the_key_and_ask_for_a_delay() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"])
        .step(route(|_| Ok(vec![Destination { target: "a".into(), key: Some("k".into()), delay_ms: Some(90_000) }])));
    let began = tokio::time::Instant::now();
    bench.run().await;
    assert!(began.elapsed() >= Duration::from_secs(90));
    assert_eq!(bench.target("a").published()[0].key, Some(Bytes::from("k")));
}

fn keyed(key: &'static str, body: &'static str) -> Message {
    Message { key: Some(Bytes::from(key)), ..Message::new("test", "test.keyed", body) }
}

fn bodies_of(bench: &Bench, key: &str) -> Vec<String> {
    let published = bench.target("a").published();
    published.iter().filter(|m| m.key.as_deref() == Some(key.as_bytes())).map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn order_by_key_keeps_each_keys_order_though_its_first_message_is_slow() {
    let messages = [keyed("x", "1"), keyed("x", "2"), keyed("y", "1"), keyed("x", "3"), keyed("y", "2")];
    let mut bench = Bench::new(MemorySource::of(messages), ["a"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.target("a").script([Reply::Slowly(Duration::from_secs(9)), Reply::Fail(Failure::transient("busy"))]);
    bench.run().await;
    assert_eq!(bodies_of(&bench, "x"), ["1", "2", "3"]);
    assert_eq!(bodies_of(&bench, "y"), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_is_parked_or_skipped_and_other_keys_go_on() {
    for (policy, letters, order) in [(OnKeyFailure::Park, 0, vec!["1", "2"]), (OnKeyFailure::Skip, 1, vec!["2"])] {
        let mut bench = Bench::new(MemorySource::of([keyed("x", "1"), keyed("x", "2"), keyed("y", "1")]), ["a"])
            .step(route(|_| Ok(vec![Destination::to("a")])));
        bench.order = Order::Key(policy);
        bench.retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let tries = AtomicUsize::new(0);
        let failing = filter(move |m| {
            let first_of_x = m.key.as_deref() == Some(b"x") && text(m) == "1";
            if first_of_x && tries.fetch_add(1, Ordering::Relaxed) < 5 {
                return Err(guest(GuestFailure::Retry { reason: Reason::new("later", "not yet"), after: None }));
            }
            Ok(Verdict::Keep)
        });
        bench
            .steps
            .insert(0, sluicegate_engine::step::Step { name: "failing".into(), plugin_digest: None, action: failing });
        bench.run().await;
        assert_eq!(bench.dead_letters.letters().len(), letters, "{policy:?}");
        assert_eq!(bodies_of(&bench, "x"), order, "{policy:?}");
        assert_eq!(bodies_of(&bench, "y"), ["1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_never_parks_its_key() {
    let mut bench = Bench::new(MemorySource::of([keyed("x", "1"), keyed("x", "2")]), ["a"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.target("a").script([Reply::Fail(Failure::permanent("refused"))]);
    bench.run().await;
    assert_eq!(bodies_of(&bench, "x"), ["2"]);
    assert_eq!(bench.dead_letters.letters()[0].class, FailureClass::TargetRefused);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_is_in_flight() {
    let mut bench = Bench::new(MemorySource::of(numbered(100)).endless(), ["a"]);
    bench.max_in_flight = 7;
    bench.target("a").then(Reply::Hang);
    bench.drain_limit = Duration::from_secs(1);
    let (stop, run) = bench.start();
    eventually("the limit is reached", || bench.target("a").calls() == 7).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.target("a").calls(), 7);
    stop.cancel();
    assert_eq!(run.await.expect("no panic").abandoned, 7);
}

#[tokio::test(start_paused = true)]
async fn draining_lets_the_slow_ones_finish_and_gives_the_rest_back() {
    let mut bench = Bench::new(MemorySource::of(numbered(3)).endless(), ["a"]);
    bench.drain_limit = Duration::from_secs(10);
    bench.target("a").script([2, 4].map(|s| Reply::Slowly(Duration::from_secs(s)))).then(Reply::Hang);
    let (stop, run) = bench.start();
    eventually("all are under way", || bench.target("a").calls() == 3).await;
    stop.cancel();
    bench.source.push(Message::new("test", "late", "never read"));
    assert_eq!(run.await.expect("no panic").abandoned, 1);
    assert_eq!(bench.target("a").published().len(), 2);
    let settlements: Vec<_> = bench.source.settled().iter().map(|(_, o)| o.settlement).collect();
    assert_eq!(settlements, [Settlement::Delivered, Settlement::Delivered, Settlement::Requeued]);
    assert_eq!(bench.source.remaining().len(), 2, "the one given back, and the late one that was never read");
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_a_wait_for_the_next_attempt_at_once() {
    let bench = Bench::new(MemorySource::of(numbered(1)).endless(), ["a"]);
    let wait = Failure::retry_after(Duration::from_secs(60), "come back in a minute");
    bench.target("a").then(Reply::Fail(wait));
    let (stop, run) = bench.start();
    eventually("the first attempt failed", || bench.target("a").calls() == 1).await;
    let began = tokio::time::Instant::now();
    stop.cancel();
    assert_eq!(run.await.expect("no panic").abandoned, 0);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Requeued);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_let_a_key_overtake_its_message_that_is_given_back() {
    let mut bench = Bench::new(MemorySource::of([keyed("x", "1"), keyed("x", "2"), keyed("x", "3")]).endless(), ["a"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.target("a").script([Reply::Fail(Failure::retry_after(Duration::from_secs(60), "busy"))]);
    let (stop, run) = bench.start();
    eventually("the first attempt failed", || bench.target("a").calls() == 1).await;
    stop.cancel();
    run.await.expect("no panic");
    assert!(bench.target("a").published().is_empty(), "2 and 3 must not overtake 1");
    assert_eq!(bench.source.remaining().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_router_cannot_ask_for_a_delay_without_end() {
    let delay_ms = Some(u64::MAX);
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"])
        .step(route(move |_| Ok(vec![Destination { target: "a".into(), key: None, delay_ms }])));
    bench.run().await;
    assert_eq!(bench.dead_letters.letters()[0].class, FailureClass::Contract);
}
