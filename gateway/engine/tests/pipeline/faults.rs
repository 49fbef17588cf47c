//! What goes wrong: targets, connections, guests, dead letters.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate_engine::delivery::Settlement;
use sluicegate_engine::failure::{Failure, FailureClass, GuestFailure, Reason};
use sluicegate_engine::memory::{MemorySource, Reply};
use sluicegate_engine::message::{Message, now_ms};
use sluicegate_engine::retry::{Exhausted, RetryPolicy};
use sluicegate_engine::step::{Destination, Verdict};

use crate::support::{Bench, eventually, filter, guest, numbered, route, text, transform};

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_until_it_succeeds() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.target("a").script([Reply::Fail(Failure::transient("busy")), Reply::Fail(Failure::transient("busy"))]);
    bench.run().await;
    assert_eq!(bench.target("a").calls(), 3);
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Delivered);
}

#[tokio::test(start_paused = true)]
async fn past_the_last_attempt_the_dead_letter_has_every_attempt() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"])
        .step(transform(|m| Ok(vec![Message { body: "changed".into(), ..m.clone() }])));
    bench.target("a").then(Reply::Fail(Failure::transient("busy")));
    bench.run().await;
    let letter = &bench.dead_letters.letters()[0];
    assert_eq!((letter.class, letter.target.as_deref()), (FailureClass::TargetFailed, Some("a")));
    assert_eq!(letter.attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!((text(&letter.original), text(&letter.at_failure)), ("0".into(), "changed".into()));
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::DeadLettered);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_tried_once() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.target("a").then(Reply::Fail(Failure::permanent("no such exchange")));
    bench.run().await;
    assert_eq!(bench.target("a").calls(), 1);
    assert_eq!(bench.dead_letters.letters()[0].class, FailureClass::TargetRefused);
}

#[tokio::test(start_paused = true)]
async fn exhausted_messages_are_dropped_if_the_policy_says_so() {
    let mut bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.retry = RetryPolicy { max_attempts: 2, on_exhausted: Exhausted::Drop, ..RetryPolicy::default() };
    bench.target("a").then(Reply::Fail(Failure::transient("busy")));
    bench.run().await;
    assert!(bench.dead_letters.letters().is_empty());
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Dropped);
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirmation_costs_no_attempt_and_delivers_again() {
    let mut bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.retry.max_attempts = 1;
    bench.target("a").script([Reply::ConfirmLost, Reply::ConfirmLost]);
    bench.run().await;
    assert_eq!(bench.target("a").published().len(), 3, "twice unconfirmed, once confirmed");
    assert_eq!(bench.target("a").connects(), 3);
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_counts_as_lost_and_is_connected_again() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.target("a").script([Reply::Hang]);
    bench.run().await;
    assert_eq!((bench.target("a").connects(), bench.target("a").published().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_for_long_loses_nothing_and_costs_nothing() {
    let mut bench = Bench::new(MemorySource::of(numbered(20)), ["a"]);
    bench.retry.max_attempts = 1;
    bench.target("a").refuse_connects((0..50).map(|_| Failure::disconnected("connection refused")));
    bench.run().await;
    assert_eq!(bench.target("a").published().len(), 20);
    assert!(bench.dead_letters.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_dead_target_does_not_slow_the_others() {
    let bench = Bench::new(MemorySource::of(numbered(40)).endless(), ["dead", "well"])
        .step(route(|m| Ok(vec![Destination::to(if text(m).ends_with('0') { "dead" } else { "well" })])));
    bench.target("dead").then(Reply::Hang);
    let (stop, run) = bench.start();
    let began = tokio::time::Instant::now();
    eventually("the well target has all of its messages", || bench.target("well").published().len() == 36).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    stop.cancel();
    run.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_spares_a_failing_target_and_finds_it_again() {
    let mut bench = Bench::new(MemorySource::of(numbered(60)), ["a"]);
    bench.retry.max_attempts = 50;
    bench.target("a").script((0..20).map(|_| Reply::Fail(Failure::transient("busy"))));
    bench.run().await;
    assert_eq!(bench.target("a").published().len(), 60);
    assert!(bench.dead_letters.letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_repeats_only_the_target_that_failed() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["good", "bad"]);
    bench.target("bad").script([Reply::Fail(Failure::transient("busy"))]);
    bench.run().await;
    assert_eq!((bench.target("good").calls(), bench.target("bad").calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_settles_with_the_worst_of_its_ends() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["good", "bad"]);
    bench.target("bad").then(Reply::Fail(Failure::permanent("no")));
    bench.run().await;
    let (_, outcome) = &bench.source.settled()[0];
    assert_eq!(outcome.settlement, Settlement::DeadLettered);
    assert_eq!(outcome.delivered_to.len(), 1);
    assert_eq!(bench.dead_letters.letters()[0].target.as_deref(), Some("bad"));
}

#[tokio::test(start_paused = true)]
async fn long_waits_go_back_to_a_source_that_postpones_and_count_their_attempts() {
    let bench = Bench::new(MemorySource::of(numbered(1)).postponing(), ["a"]);
    let later = Failure::retry_after(Duration::from_secs(30), "busy");
    bench.target("a").script([Reply::Fail(later.clone()), Reply::Fail(later)]);
    bench.run().await;
    let settlements: Vec<_> = bench.source.settled().into_iter().map(|(_, o)| o.settlement).collect();
    let after = Duration::from_secs(30);
    assert_eq!(
        settlements,
        [
            Settlement::Postponed { after, attempt: 2 },
            Settlement::Postponed { after, attempt: 3 },
            Settlement::Delivered
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_is_never_postponed_since_it_would_start_over() {
    let bench = Bench::new(MemorySource::of(numbered(1)).postponing(), ["a", "b"]);
    bench.target("b").script([Reply::Fail(Failure::retry_after(Duration::from_secs(30), "busy"))]);
    bench.run().await;
    assert_eq!((bench.target("a").calls(), bench.target("b").calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn guest_failures_end_in_their_class_and_spare_the_other_messages() {
    let reason = || Reason::new("bad", "bad thing");
    let cases = [
        (GuestFailure::Reject(reason()), FailureClass::Rejected, 1),
        (GuestFailure::Retry { reason: reason(), after: None }, FailureClass::Retried, 5),
        (GuestFailure::Trap { text: "unreachable".into(), backtrace: vec!["guest::f".into()] }, FailureClass::Trap, 1),
        (GuestFailure::Deadline { limit: Duration::from_millis(50), backtrace: vec![] }, FailureClass::Deadline, 5),
        (GuestFailure::Memory { limit_bytes: 1, backtrace: vec![] }, FailureClass::Memory, 1),
        (GuestFailure::OutputLimit { size_bytes: 2, limit_bytes: 1 }, FailureClass::OutputLimit, 1),
        (GuestFailure::ContractViolation("x".into()), FailureClass::Contract, 1),
        (GuestFailure::Unavailable("pool".into()), FailureClass::Unavailable, 5),
    ];
    for (failure, class, attempts) in cases {
        let bench = Bench::new(MemorySource::of(numbered(3)), ["a"])
            .step(filter(move |m| if text(m) == "1" { Err(guest(failure.clone())) } else { Ok(Verdict::Keep) }));
        bench.run().await;
        let letters = bench.dead_letters.letters();
        assert_eq!((letters.len(), letters[0].class, letters[0].attempts.len()), (1, class, attempts));
        assert_eq!(letters[0].plugin_digest.as_deref(), Some("sha256:0"));
        assert_eq!(bench.target("a").published().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_step_requeues_its_message() {
    let tries = AtomicUsize::new(0);
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]).step(filter(move |_| {
        assert!(tries.fetch_add(1, Ordering::Relaxed) > 0, "the first call panics");
        Ok(Verdict::Keep)
    }));
    bench.run().await;
    let settlements: Vec<_> = bench.source.settled().into_iter().map(|(_, o)| o.settlement).collect();
    assert_eq!(settlements, [Settlement::Requeued, Settlement::Delivered]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_message_is_a_dead_letter_without_an_attempt() {
    let expired = Message { expires_at_ms: Some(now_ms() - 1), ..Message::new("test", "t", "old") };
    let bench = Bench::new(MemorySource::of([expired]), ["a"]);
    bench.run().await;
    assert_eq!(bench.dead_letters.letters()[0].class, FailureClass::Expired);
    assert_eq!(bench.target("a").calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_store_that_fails_holds_the_message_until_it_works() {
    let bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.target("a").then(Reply::Fail(Failure::permanent("no")));
    bench.dead_letters.refuse((0..5).map(|_| Failure::transient("disk full")));
    bench.run().await;
    assert_eq!(bench.dead_letters.letters().len(), 1);
    assert_eq!(bench.source.settled().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_connection_is_cut_is_connected_again_and_loses_nothing() {
    for resumes in [false, true] {
        let source = MemorySource::of(numbered(10));
        let bench = Bench::new(if resumes { source.resuming() } else { source }, ["a"]);
        bench.target("a").then(Reply::Slowly(Duration::from_secs(1)));
        bench.source.refuse_connects([Failure::permanent("wrong password"), Failure::disconnected("refused")]);
        let (_stop, run) = bench.start();
        eventually("messages are in flight", || bench.target("a").calls() > 0).await;
        bench.source.cut();
        run.await.expect("no panic");
        assert_eq!(bench.source.connects(), 2);
        let bodies: std::collections::BTreeSet<_> = bench.target("a").bodies().into_iter().collect();
        assert_eq!(bodies.len(), 10, "resumes: {resumes}");
        assert!(bench.source.remaining().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn settlements_that_fail_are_repeated_on_the_next_connection_if_it_resumes() {
    let bench = Bench::new(MemorySource::of(numbered(1)).resuming(), ["a"]);
    bench.source.refuse_settles([Failure::disconnected("broken pipe")]);
    bench.run().await;
    assert_eq!(bench.target("a").published().len(), 1, "settled late, not delivered twice");
    assert_eq!(bench.source.connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_takes_too_long_times_out_and_is_tried_again() {
    use std::sync::Arc;

    use async_trait::async_trait;
    use sluicegate_engine::failure::StepFailure;
    use sluicegate_engine::step::{Action, Filter};

    struct Stuck(AtomicUsize);
    #[async_trait]
    impl Filter for Stuck {
        async fn filter(&self, _: &Arc<Message>) -> Result<Verdict, StepFailure> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Verdict::Keep)
        }
    }
    let mut bench =
        Bench::new(MemorySource::of(numbered(1)), ["a"]).step(Action::Filter(Arc::new(Stuck(AtomicUsize::new(0)))));
    bench.handler_timeout = Some(Duration::from_secs(15));
    bench.run().await;
    assert_eq!(bench.source.settled()[0].1.settlement, Settlement::Delivered);
}

#[tokio::test(start_paused = true)]
async fn stopping_in_the_middle_of_a_settlement_does_not_settle_twice() {
    let bench = Bench::new(MemorySource::of(numbered(3)).endless(), ["a"]);
    bench.source.settle_slowly(Duration::from_secs(2));
    let (stop, run) = bench.start();
    eventually("a settlement is under way", || !bench.source.settled().is_empty()).await;
    stop.cancel();
    assert_eq!(run.await.expect("no panic").abandoned, 0);
    // The source refuses what it has settled already, which would count as a lost connection.
    assert_eq!((bench.source.settled().len(), bench.source.connects()), (3, 1));
    assert!(bench.source.remaining().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_longer_than_its_greatest_age_for_a_target_that_is_down() {
    let mut bench = Bench::new(MemorySource::of(numbered(1)), ["a"]);
    bench.retry.max_age = Some(Duration::from_secs(60));
    bench.target("a").refuse_connects((0..10_000).map(|_| Failure::disconnected("connection refused")));
    let began = tokio::time::Instant::now();
    bench.run().await;
    assert_eq!(began.elapsed().as_secs(), 60);
    assert_eq!(bench.dead_letters.letters()[0].class, FailureClass::TargetFailed);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_split_is_not_postponed_once_a_part_has_ended() {
    let bench = Bench::new(MemorySource::of(numbered(1)).postponing(), ["a"])
        .step(transform(|m| {
            Ok(vec![Message { body: "bad".into(), ..m.clone() }, Message { body: "late".into(), ..m.clone() }])
        }))
        .step(filter(|m| {
            if text(m) == "bad" { Err(guest(GuestFailure::Reject(Reason::new("bad", "")))) } else { Ok(Verdict::Keep) }
        }))
        .step({
            let tries = AtomicUsize::new(0);
            filter(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(guest(GuestFailure::Retry {
                    reason: Reason::new("later", ""),
                    after: Some(Duration::from_secs(30)),
                })),
                _ => Ok(Verdict::Keep),
            })
        });
    bench.run().await;
    assert_eq!(
        bench.dead_letters.letters().len(),
        1,
        "the bad part is dead-lettered once, since the message did not start over"
    );
    assert_eq!(bench.target("a").bodies(), ["late"]);
}

#[tokio::test(start_paused = true)]
async fn messages_that_were_read_when_settling_fails_are_not_stranded() {
    let bench = Bench::new(MemorySource::of(numbered(200)).resuming(), ["a"]);
    bench.source.refuse_settles((0..20).map(|_| Failure::disconnected("broken pipe")));
    bench.run().await;
    assert_eq!(bench.target("a").published().len(), 200);
    assert!(bench.source.remaining().is_empty());
}
