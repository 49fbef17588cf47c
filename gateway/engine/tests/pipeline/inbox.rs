//! Messages that wait in the inbox.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{Failure, FailureClass, GuestFailure, Reason};
use sluicegate_engine::inbox::{Entry, Progress, Redrive, Waypoint};
use sluicegate_engine::memory::{MemoryInbox, MemorySource, Reply};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::pipeline::{OnKeyFailure, Order};
use sluicegate_engine::step::{Destination, Verdict};
use tokio::time::Instant;

use super::support::{Bench, eventually, filter, guest, numbered, route, text, transform};

/// A bench with an inbox.
fn bench(source: MemorySource, targets: impl IntoIterator<Item = &'static str>) -> (Bench, MemoryInbox) {
    let inbox = MemoryInbox::default();
    let mut bench = Bench::new(source, targets);
    bench.state.inbox = Some(Arc::new(inbox.clone()));
    (bench, inbox)
}

fn keyed(id: &str, key: &str) -> Message {
    Message { id: id.into(), key: Some(key.to_owned().into()), ..Message::new("test", "test", id.to_owned()) }
}

fn settlements(source: &MemorySource) -> Vec<(String, Settlement)> {
    source.settled().into_iter().map(|(id, outcome)| (id, outcome.settlement)).collect()
}

fn busy() -> Failure {
    Failure::retry_after(Duration::from_secs(30), "busy")
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_leaves_the_source_and_goes_on_at_its_target() {
    let (mut bench, inbox) = bench(MemorySource::of(numbered(1)), ["out"]);
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    bench = bench.step(transform(move |m| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(vec![Message { body: "changed".into(), ..m.clone() }])
    }));
    bench.target("out").script([Reply::Fail(busy()), Reply::Fail(busy())]);
    let began = Instant::now();
    bench.run().await;
    assert_eq!(settlements(&bench.source), [("m0".to_owned(), Settlement::Parked)], "settled once, at once");
    assert_eq!(bench.target("out").bodies(), ["changed"]);
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1, "the steps are not repeated");
    assert!(began.elapsed() >= Duration::from_secs(60), "both waits of 30 s were kept: {:?}", began.elapsed());
    assert!(inbox.entries().is_empty());
    assert_eq!(inbox.parked(), 1, "the second wait replaced the entry in place");
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_over_all_waits_and_stand_in_the_dead_letter() {
    let (bench, inbox) = bench(MemorySource::of(numbered(1)), ["out"]);
    bench.target("out").then(Reply::Fail(busy()));
    bench.run().await;
    let letter = bench.dead_letters.letters().remove(0);
    let attempts: Vec<u32> = letter.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    assert_eq!((letter.class, letter.target.as_deref()), (FailureClass::TargetFailed, Some("out")));
    assert!(inbox.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_asks_to_wait_is_tried_again_at_that_step() {
    let tries = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let (bench, _) = bench(MemorySource::of(numbered(1)), ["out"]);
    let bench = bench
        .step(transform(|m| Ok(vec![Message { body: format!("{}!", text(m)).into(), ..m.clone() }])))
        .step(filter(move |m| {
            assert_eq!(text(m), "0!", "as it was at the step");
            let n = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let after = Some(Duration::from_secs(20));
            if n < 2 {
                return Err(guest(GuestFailure::Retry { reason: Reason::new("later", ""), after }));
            }
            Ok(Verdict::Keep)
        }));
    bench.run().await;
    assert_eq!(bench.target("out").bodies(), ["0!"]);
    assert_eq!(tries.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_parks_only_what_is_not_delivered() {
    let (bench, inbox) = bench(MemorySource::of(numbered(3)), ["good", "bad"]);
    bench.target("bad").script([Reply::Fail(busy()), Reply::Fail(busy()), Reply::Fail(busy())]);
    bench.run().await;
    assert_eq!(bench.target("good").published().len(), 3, "none of them twice");
    assert_eq!(bench.target("bad").published().len(), 3);
    assert!(bench.dead_letters.letters().is_empty() && inbox.entries().is_empty());
    assert!(settlements(&bench.source).iter().all(|(_, settlement)| *settlement == Settlement::Parked));
}

#[tokio::test(start_paused = true)]
async fn messages_for_a_dead_target_do_not_hold_up_the_others_however_many_they_are() {
    let (mut bench, inbox) = bench(MemorySource::of(numbered(500)), ["dead", "alive"]);
    bench.max_in_flight = 8;
    bench.target("dead").refuse_connects((0..60).map(|_| Failure::disconnected("refused")));
    let bench = bench.step(route(|m| {
        let even = text(m).parse::<u32>().expect("a number") % 2 == 0;
        Ok(vec![Destination::to(if even { "dead" } else { "alive" })])
    }));
    let began = Instant::now();
    let (_, run) = bench.start();
    eventually("all for the living are delivered", || bench.target("alive").published().len() == 250).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    eventually("the rest is parked", || inbox.entries().len() == 250).await;
    assert_eq!(bench.source.remaining(), Vec::<String>::new(), "the source holds nothing");
    run.await.expect("no panic");
    assert_eq!(bench.target("dead").published().len(), 250);
    assert_eq!(inbox.parked(), 250, "a closed lane is not claimed from: nothing was parked twice");
}

#[tokio::test(start_paused = true)]
async fn messages_for_a_hung_target_do_not_hold_up_the_others() {
    let (mut bench, inbox) = bench(MemorySource::of(numbered(400)), ["hung", "alive"]);
    bench.max_in_flight = 16;
    bench.target_in_flight = Some(8);
    bench.target("hung").then(Reply::Hang);
    let bench = bench.step(route(|m| {
        let even = text(m).parse::<u32>().expect("a number") % 2 == 0;
        Ok(vec![Destination::to(if even { "hung" } else { "alive" })])
    }));
    let (stop, run) = bench.start();
    let began = Instant::now();
    eventually("all for the living are delivered", || bench.target("alive").published().len() == 200).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    eventually("the rest is parked but for those it hangs on", || inbox.entries().len() == 192).await;
    stop.cancel();
    run.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_parks_and_its_probe_comes_from_the_inbox() {
    let (mut bench, inbox) = bench(MemorySource::of(numbered(100)), ["out"]);
    bench.max_in_flight = 16;
    bench.retry.max_attempts = 1_000;
    bench.target("out").script((0..40).map(|_| Reply::Fail(Failure::transient("down"))));
    bench.run().await;
    assert_eq!(bench.target("out").published().len(), 100);
    assert!(bench.dead_letters.letters().is_empty());
    assert!(inbox.parked() >= 50, "most waited in the inbox: {}", inbox.parked());
}

#[tokio::test(start_paused = true)]
async fn a_route_may_delay_for_days_and_a_delivery_time_is_kept() {
    let day = Duration::from_secs(24 * 3_600);
    let later = Message { deliver_at_ms: Some(now_ms() + 3 * 86_400_000), ..keyed("later", "k") };
    let source = MemorySource::of([keyed("delayed", "k"), later]);
    let (bench, inbox) = bench(source, ["out"]);
    let bench = bench.step(route(move |m| {
        let delay_ms = (m.id == "delayed").then_some(2 * 86_400_000);
        Ok(vec![Destination { delay_ms, ..Destination::to("out") }])
    }));
    let began = Instant::now();
    let (_, run) = bench.start();
    eventually("both have left the source", || bench.source.remaining().is_empty()).await;
    assert_eq!(inbox.entries().len(), 2);
    tokio::time::timeout(day * 4, run).await.expect("it ends").expect("no panic");
    let ids: Vec<String> = bench.target("out").published().into_iter().map(|m| m.id).collect();
    assert_eq!(ids, ["delayed", "later"]);
    assert!(began.elapsed() >= day * 3 - Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_expires_while_parked_becomes_a_dead_letter_when_it_expires() {
    let expiring = Message { expires_at_ms: Some(now_ms() + 10_000), ..keyed("short", "k") };
    let (bench, _) = bench(MemorySource::of([expiring]), ["out"]);
    bench.target("out").then(Reply::Fail(busy()));
    let began = Instant::now();
    // The wall clock does not pause: only the wait is looked at, the letter follows once the clock is there.
    let (stop, run) = bench.start();
    eventually("it left the source", || bench.source.remaining().is_empty()).await;
    eventually("it came again when it expired", || {
        bench.target("out").calls() + bench.dead_letters.letters().len() as u32 >= 2
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "not after the 30 s the target asked for: {:?}",
        began.elapsed()
    );
    stop.cancel();
    run.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_waits_holds_back_what_follows_it_and_nothing_else() {
    let messages = ["a1", "b1", "a2", "b2", "a3"].map(|id| keyed(id, &id[..1]));
    let (mut bench, inbox) = bench(MemorySource::of(messages), ["out"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.target("out").script([Reply::Fail(busy())]);
    bench.run().await;
    assert_eq!(bench.target("out").bodies(), ["b1", "b2", "a1", "a2", "a3"]);
    assert_eq!(bench.source.remaining(), Vec::<String>::new());
    assert!(inbox.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_target_gets_a_keys_messages_in_order_though_one_of_them_is_away() {
    let messages = (0..30).map(|n| keyed(&format!("m{n:02}"), &format!("k{}", n % 3)));
    let (mut bench, _) = bench(MemorySource::of(messages), ["here", "away"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.max_in_flight = 4;
    bench.target("away").refuse_connects((0..20).map(|_| Failure::disconnected("refused")));
    bench.run().await;
    for target in ["here", "away"] {
        for key in ["k0", "k1", "k2"] {
            let published = bench.target(target).published();
            let of_key: Vec<String> =
                published.iter().filter(|m| m.key.as_deref() == Some(key.as_bytes())).map(|m| m.id.clone()).collect();
            assert_eq!(of_key.len(), 10, "{target} {key}");
            assert!(of_key.is_sorted(), "{target} {key}: {of_key:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_parked_before_a_restart_still_hold_back_what_follows() {
    let (mut bench, inbox) = bench(MemorySource::of([keyed("a2", "a")]), ["out"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    let first = Arc::new(keyed("a1", "a"));
    inbox.push(Entry {
        original: Arc::clone(&first),
        message: first,
        progress: Progress { waypoint: Waypoint::Target("out".into()), attempt: 2, ..Progress::default() },
        not_before_ms: now_ms() + 60_000,
        ordered: true,
    });
    bench.run().await;
    assert_eq!(bench.target("out").bodies(), ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_from_the_spool_keeps_its_order_when_its_target_is_away() {
    let (mut bench, inbox) = bench(MemorySource::of([]), ["away"]);
    bench.order = Order::Key(OnKeyFailure::Park);
    bench.target("away").refuse_connects((0..6).map(|_| Failure::disconnected("refused")));
    for id in ["a1", "a2", "a3"] {
        let message = Arc::new(keyed(id, "a"));
        let progress = Progress { attempt: 1, ..Progress::default() };
        inbox.push(Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: true });
    }
    // The first leaves its lane for the target's, and the target comes back while the second is on its way.
    bench.target("away").then(Reply::Slowly(Duration::from_millis(700)));
    bench.run().await;
    assert_eq!(bench.target("away").bodies(), ["a1", "a2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_parked_waits_in_flight() {
    let (bench, inbox) = bench(MemorySource::of(numbered(1)), ["out"]);
    inbox.refuse([Failure::transient("disk full")]);
    bench.target("out").script([Reply::Fail(busy())]);
    bench.run().await;
    assert_eq!(settlements(&bench.source), [("m0".to_owned(), Settlement::Delivered)]);
    assert_eq!(inbox.parked(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_target_that_is_gone_becomes_a_dead_letter() {
    let (bench, inbox) = bench(MemorySource::of([]), ["out"]);
    let message = Arc::new(keyed("m", "k"));
    let progress = Progress { waypoint: Waypoint::Target("gone".into()), attempt: 3, ..Progress::default() };
    inbox.push(Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false });
    bench.run().await;
    let letter = bench.dead_letters.letters().remove(0);
    assert_eq!((letter.class, letter.target.as_deref()), (FailureClass::Unroutable, Some("gone")));
    assert!(letter.error.contains("does not have any more"), "{}", letter.error);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_a_step_that_is_gone_starts_over_as_received() {
    let (bench, inbox) = bench(MemorySource::of([]), ["out"]);
    let (original, message) = (Arc::new(keyed("raw", "k")), Arc::new(keyed("half done", "k")));
    let progress = Progress { waypoint: Waypoint::Step("filter gone".into()), attempt: 3, ..Progress::default() };
    inbox.push(Entry { original, message, progress, not_before_ms: 0, ordered: false });
    bench.run().await;
    assert_eq!(bench.target("out").bodies(), ["raw"]);
}

#[tokio::test(start_paused = true)]
async fn a_redriven_letter_that_fails_again_keeps_its_id_and_counts() {
    let (bench, inbox) = bench(MemorySource::of([]), ["out"]);
    bench.target("out").then(Reply::Fail(Failure::permanent("no")));
    let message = Arc::new(keyed("m", "k"));
    let redrive = Some(Redrive { letter: "letter-1".into(), count: 2 });
    let progress = Progress { redrive, attempt: 1, ..Progress::default() };
    inbox.push(Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false });
    bench.run().await;
    let letter = bench.dead_letters.letters().remove(0);
    assert_eq!((&*letter.id, letter.redrive_count), ("letter-1", 2));
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_redriven_letter_that_fail_become_letters_of_their_own() {
    let (bench, inbox) = bench(MemorySource::of([]), ["one", "two"]);
    bench.target("one").then(Reply::Fail(Failure::permanent("no")));
    bench.target("two").then(Reply::Fail(Failure::permanent("no")));
    let message = Arc::new(keyed("m", "k"));
    let redrive = Some(Redrive { letter: "letter-1".into(), count: 1 });
    let progress = Progress { redrive, attempt: 1, ..Progress::default() };
    inbox.push(Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false });
    bench.run().await;
    let ids: Vec<String> = bench.dead_letters.letters().iter().map(|letter| letter.id.clone()).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids[0] != ids[1] && !ids.contains(&"letter-1".to_owned()), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_entries_back_to_the_inbox() {
    let (mut bench, inbox) = bench(MemorySource::of([]).endless(), ["out"]);
    bench.drain_limit = Duration::from_secs(10);
    bench.target("out").then(Reply::Slowly(Duration::from_secs(3_600)));
    let message = Arc::new(keyed("m", "k"));
    let progress = Progress { attempt: 1, ..Progress::default() };
    inbox.push(Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false });
    let (stop, run) = bench.start();
    eventually("it is being published", || bench.target("out").calls() == 1).await;
    stop.cancel();
    assert_eq!(run.await.expect("no panic").abandoned, 1);
    assert_eq!(inbox.entries().len(), 1);
}
