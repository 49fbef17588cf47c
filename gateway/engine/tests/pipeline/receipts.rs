//! Which receipts are kept where only a sample is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sluicegate_engine::failure::Failure;
use sluicegate_engine::inbox::{Entry, Progress, Waypoint};
use sluicegate_engine::memory::{MemoryInbox, MemorySource, Reply};
use sluicegate_engine::message::Message;
use sluicegate_engine::receipt::{Happening, Receipt, Receipts};

use super::support::{Bench, numbered};

/// None is in the sample.
#[derive(Default)]
struct Troubled(Mutex<Vec<Receipt>>);

impl Receipts for Troubled {
    fn samples(&self, _: &Message) -> bool {
        false
    }

    fn record(&self, receipt: Receipt) {
        self.0.lock().expect("no panic").push(receipt);
    }
}

fn bench(source: MemorySource) -> (Bench, MemoryInbox, Arc<Troubled>) {
    let (inbox, receipts) = (MemoryInbox::default(), Arc::new(Troubled::default()));
    let mut bench = Bench::new(source, ["out"]);
    bench.state.inbox = Some(Arc::new(inbox.clone()));
    bench.state.receipts = Some(receipts.clone());
    (bench, inbox, receipts)
}

/// As the spool puts a message in.
fn accepted(message: Message) -> Entry {
    let message = Arc::new(message);
    let progress = Progress { attempt: 1, ..Progress::default() };
    Entry { original: Arc::clone(&message), message, progress, not_before_ms: 0, ordered: false }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_only_accepted_is_sampled_like_any_other() {
    let (bench, inbox, receipts) = bench(MemorySource::of([]));
    numbered(20).for_each(|message| inbox.push(accepted(message)));
    bench.run().await;
    assert_eq!(bench.target("out").bodies().len(), 20);
    assert!(receipts.0.lock().expect("no panic").is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_stretch_of_a_message_that_waited_is_kept() {
    let (bench, _, receipts) = bench(MemorySource::of(numbered(1)));
    bench.target("out").script([Reply::Fail(Failure::retry_after(Duration::from_secs(30), "busy"))]);
    bench.run().await;
    let receipts = receipts.0.lock().expect("no panic");
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    let out = Waypoint::Target("out".into());
    assert_eq!(receipts[1].events[0].what, Happening::Resumed { waypoint: out, attempt: 2 });
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_its_time_says_how_it_ended() {
    let (bench, _, receipts) = bench(MemorySource::of(
        numbered(1).map(|m| Message { deliver_at_ms: Some(sluicegate_engine::message::now_ms() + 60_000), ..m }),
    ));
    bench.run().await;
    let receipts = receipts.0.lock().expect("no panic");
    assert_eq!(receipts.len(), 2, "it was parked, and delivered: {receipts:?}");
}
