//! Redrive jobs: what they send, what becomes of letters, and what a gateway that dies leaves behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sluicegate_engine::dead_letter::{DeadLetter, DeadLetters};
use sluicegate_engine::delivery::{Outcome, Received, Settled, Settlement};
use sluicegate_engine::failure::Reason;
use sluicegate_engine::inbox::{Entry, Inbox, Progress, Redrive, Waypoint};
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::Connection;
use sluicegate_store::Store;
use sluicegate_store::dead_letter::{Changed, Edit, Filter};
use sluicegate_store::inbox::StoreInbox;
use sluicegate_store::redrive::{
    Advance, Controlled, Created, Destination, Destinations, From, Item, ItemState, JobState, NewJob, Selection,
};

use crate::both::{both, both_places};
use crate::dead_letters::sample;

const LIMIT: Duration = Duration::from_secs(20);

fn all() -> Selection {
    Selection::Filter(Box::default())
}

fn job(selection: Selection) -> NewJob {
    NewJob { selection, from: From::Start, rate_per_second: 1_000, patch: None, max_redrives: 3, by: "test".to_owned() }
}

fn destinations() -> Destinations {
    HashMap::from([("orders".into(), Destination { ordered: false })])
}

async fn create(store: &Store, new: NewJob) -> String {
    match store.create_redrive(new).await.unwrap() {
        Created::Job { id, .. } => id,
        refused => panic!("{refused:?}"),
    }
}

async fn record(store: &Store, count: u64) -> Vec<String> {
    let mut ids = Vec::new();
    for index in 0..count {
        let letter = DeadLetter { failed_at_ms: 1_000 + index, ..sample::letter() };
        store.record(&Arc::new(letter.clone())).await.unwrap();
        ids.push(letter.id);
    }
    ids
}

/// Sends all there is, as far as it goes.
async fn advance(store: &Arc<Store>) -> Advance {
    let mut last = Advance::Lost;
    for job in store.claim_redrives().await.unwrap() {
        loop {
            last = store.advance_redrive(&job, &destinations(), 1_000).await.unwrap();
            if !matches!(last, Advance::Sent(count) if count > 0) {
                break;
            }
        }
    }
    last
}

async fn items(store: &Store, job: &str) -> Vec<Item> {
    store.reader().redrive_items(job, None, 1_000, None).await.unwrap().items
}

async fn states(store: &Store, job: &str) -> Vec<ItemState> {
    items(store, job).await.into_iter().map(|item| item.state).collect()
}

/// The pipeline's end of its inbox.
struct Pipeline(Connection);

impl Pipeline {
    async fn open(store: &Arc<Store>) -> Self {
        let inbox = StoreInbox::new(Arc::clone(store), &"orders".into());
        Self(inbox.source(Lanes::default()).connect().await.unwrap())
    }

    async fn receive(&mut self) -> Vec<Received> {
        tokio::time::timeout(LIMIT, self.0.inlet.receive(100)).await.expect("something is there").unwrap()
    }

    async fn settle(&mut self, received: Vec<Received>, outcome: impl Fn(&Message) -> Outcome) {
        let settled = received.into_iter().map(|received| {
            let outcome = outcome(&received.message);
            Settled::new(received.token, Arc::new(received.message), outcome)
        });
        self.0.settler.settle(&settled.collect::<Vec<_>>()).await.unwrap();
    }
}

fn delivered() -> Outcome {
    Outcome { delivered_to: vec!["eu".into()], ..Outcome::default() }
}

#[tokio::test]
async fn a_letter_goes_only_when_its_redelivery_is_confirmed() {
    both(async |store| {
        let ids = record(store, 3).await;
        let id = create(store, job(all())).await;
        assert_eq!(advance(store).await, Advance::Waits);
        assert_eq!(states(store, &id).await, [ItemState::Sent; 3]);
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 3, "nothing is confirmed yet");

        let mut pipeline = Pipeline::open(store).await;
        let mut received = pipeline.receive().await;
        let redrive = |received: &Received| received.resumption.as_ref().and_then(|r| r.progress.redrive.clone());
        let letters: Vec<_> =
            received.iter().filter_map(redrive).map(|redrive| (redrive.letter.to_string(), redrive.count)).collect();
        assert_eq!(letters, ids.iter().map(|id| (id.clone(), 1)).collect::<Vec<_>>(), "the oldest first");
        let third = received.split_off(2);
        let second = received.split_off(1);
        pipeline.settle(received, |_| delivered()).await;
        let reasons = vec![Reason::new("unwanted", "no")];
        let dropped = Outcome { settlement: Settlement::Dropped, dropped: reasons, ..Outcome::default() };
        pipeline.settle(second, |_| dropped.clone()).await;
        // As the engine does: first the record, then the settlement.
        let letter = store.reader().show(&ids[2]).await.unwrap();
        let again = Arc::new(DeadLetter { redrive_count: 1, error: "again".to_owned(), ..letter });
        store.record(&again).await.unwrap();
        let dead = Outcome { settlement: Settlement::DeadLettered, dead_letters: vec![again], ..Outcome::default() };
        pipeline.settle(third, |_| dead.clone()).await;

        assert_eq!(advance(store).await, Advance::Done);
        let items = items(store, &id).await;
        let told: Vec<_> = items.iter().map(|item| (item.state, item.outcome.as_deref().unwrap_or_default())).collect();
        assert_eq!(told[0], (ItemState::Delivered, "delivered to eu"));
        assert_eq!(told[1], (ItemState::Filtered, "dropped: unwanted: no"));
        assert!(told[2].0 == ItemState::DeadLettered && told[2].1.contains("again"), "{told:?}");
        let left = store.reader().list(&Filter::default(), 10, None).await.unwrap().letters;
        assert_eq!(left.iter().map(|letter| (&letter.id, letter.redrive_count)).collect::<Vec<_>>(), [(&ids[2], 1)]);
        let job = store.reader().redrive(&id).await.unwrap();
        assert_eq!((job.state, job.counts.ended(), job.counts.total()), (JobState::Done, 3, 3));
        assert!(job.ended_at_ms.is_some() && !job.is_owned);
    })
    .await;
}

#[tokio::test]
async fn a_letter_on_its_way_is_left_alone() {
    both(async |store| {
        let ids = record(store, 1).await;
        create(store, job(Selection::Ids(ids.clone()))).await;
        advance(store).await;
        let letter = &ids[0];
        assert!(store.reader().find(letter).await.unwrap().is_being_redriven);
        let edit = Some(Edit { body: Some(Bytes::new()), headers: None });
        assert_eq!(store.edit_letter(letter, edit, "me").await.unwrap(), Changed::BeingRedriven);
        assert_eq!(store.delete_letter(letter).await.unwrap(), Changed::BeingRedriven);
        assert_eq!(store.purge_letters(&Filter::default()).await.unwrap(), 0);
        assert_eq!(store.trim_letters(Some(0), Some(0)).await.unwrap(), 0);
        let refused = store.create_redrive(job(Selection::Ids(ids.clone()))).await.unwrap();
        assert_eq!(refused, Created::BeingRedriven(letter.clone()));
        let second = create(store, job(all())).await;
        assert_eq!(states(store, &second).await, [ItemState::Skipped]);
    })
    .await;
}

#[tokio::test]
async fn letters_that_were_redriven_too_often_are_skipped() {
    both(async |store| {
        for redrive_count in [0, 2, 3, 4] {
            let letter = DeadLetter { failed_at_ms: u64::from(redrive_count), redrive_count, ..sample::letter() };
            store.record(&Arc::new(letter)).await.unwrap();
        }
        let id = create(store, job(all())).await;
        advance(store).await;
        let (sent, skipped) = (ItemState::Sent, ItemState::Skipped);
        assert_eq!(states(store, &id).await, [sent, sent, skipped, skipped]);
        let outcome = items(store, &id).await[2].outcome.clone();
        assert_eq!(outcome.as_deref(), Some("redriven 3 times already"));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    both(async |store| {
        let elsewhere = DeadLetter { pipeline: "gone".into(), failed_at_ms: 1, ..sample::letter() };
        let text = Arc::new(Message::new("s", "k", "not JSON"));
        let text = DeadLetter { original: Arc::clone(&text), at_failure: text, failed_at_ms: 2, ..sample::letter() };
        let deleted = DeadLetter { failed_at_ms: 3, ..sample::letter() };
        for letter in [&elsewhere, &text, &deleted] {
            store.record(&Arc::new(letter.clone())).await.unwrap();
        }
        let id = create(store, NewJob { patch: Some(json!({ "a": 1 })), ..job(all()) }).await;
        assert_eq!(store.delete_letter(&deleted.id).await.unwrap(), Changed::Done);
        assert_eq!(advance(store).await, Advance::Done);
        let items = items(store, &id).await;
        let told: Vec<_> = items.iter().map(|item| (item.state, item.outcome.as_deref().unwrap_or_default())).collect();
        assert_eq!(told[0], (ItemState::Failed, "the gateway's configuration has no pipeline `gone`"));
        assert!(told[1].0 == ItemState::Failed && told[1].1.contains("not JSON"), "{told:?}");
        assert_eq!(told[2], (ItemState::Skipped, "deleted meanwhile"));
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 2, "they stay");
        assert_eq!(
            store.create_redrive(job(Selection::Ids(vec!["x".into()]))).await.unwrap(),
            Created::NotFound("x".into())
        );
        let nothing = Filter { pipeline: Some("none".to_owned()), ..Filter::default() };
        let nothing = job(Selection::Filter(Box::new(nothing)));
        assert_eq!(store.create_redrive(nothing).await.unwrap(), Created::NothingMatches);
    })
    .await;
}

#[tokio::test]
async fn messages_go_on_where_they_failed_edited_and_patched() {
    both(async |store| {
        let original = Arc::new(Message::new("s", "k", &b"{\"id\":1}"[..]));
        let at_failure =
            Arc::new(Message { body: b"{\"id\":1,\"seen\":true}".to_vec().into(), ..Message::clone(&original) });
        let step = DeadLetter {
            failed_at_ms: 1,
            step: Some("route region".into()),
            target: None,
            original: Arc::clone(&original),
            at_failure,
            ..sample::letter()
        };
        let target = DeadLetter { failed_at_ms: 2, ..sample::letter() };
        for letter in [&step, &target] {
            store.record(&Arc::new(letter.clone())).await.unwrap();
        }
        let edit =
            Edit { body: Some(Bytes::from_static(b"{\"id\":2}")), headers: Some([("x-a", "1")].into_iter().collect()) };
        assert_eq!(store.edit_letter(&target.id, Some(edit), "me").await.unwrap(), Changed::Done);
        let patch = Some(json!({ "fixed": true, "seen": null }));
        create(store, NewJob { from: From::FailedStep, patch, ..job(all()) }).await;
        advance(store).await;
        let mut pipeline = Pipeline::open(store).await;
        // Targets' lanes are told by a pipeline; without one only those who wait for no target come.
        let received = pipeline.receive().await;
        let [received] = &received[..] else { panic!("one, not {received:?}") };
        let resumption = received.resumption.as_ref().unwrap();
        assert_eq!(resumption.progress.waypoint, Waypoint::Step("route region".into()));
        assert_eq!(&received.message.body.bytes()[..], b"{\"id\":1,\"fixed\":true}");
        let kept = store.reader().find(&step.id).await.unwrap();
        assert_eq!(kept.letter.original.body.bytes(), original.body.bytes(), "the record stays");
        let kept = store.reader().find(&target.id).await.unwrap();
        let entry =
            sluicegate_store::redrive::entry(&kept, From::FailedStep, None, Destination { ordered: true }).unwrap();
        assert_eq!(entry.progress.waypoint, Waypoint::Target("eu".into()));
        assert_eq!(
            (&entry.message.body.bytes()[..], entry.message.headers.text("x-a")),
            (&b"{\"id\":2}"[..], Some("1"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_is_paused_resumed_and_cancelled() {
    both(async |store| {
        record(store, 70).await;
        let id = create(store, job(all())).await;
        let [active] = &store.claim_redrives().await.unwrap()[..] else { panic!("one job") };
        assert_eq!(store.advance_redrive(active, &destinations(), 10).await.unwrap(), Advance::Sent(10));
        assert_eq!(store.pause_redrive(&id).await.unwrap(), Controlled::Done);
        assert_eq!(store.pause_redrive(&id).await.unwrap(), Controlled::Done);
        assert_eq!(store.advance_redrive(active, &destinations(), 10).await.unwrap(), Advance::Lost);
        assert!(store.claim_redrives().await.unwrap().is_empty());
        assert_eq!(store.resume_redrive(&id).await.unwrap(), Controlled::Done);
        let [active] = &store.claim_redrives().await.unwrap()[..] else { panic!("one job") };
        assert_eq!(store.advance_redrive(active, &destinations(), 10).await.unwrap(), Advance::Sent(10));
        assert_eq!(store.cancel_redrive(&id).await.unwrap(), Controlled::Done);
        assert_eq!(store.resume_redrive(&id).await.unwrap(), Controlled::Ended(JobState::Cancelled));
        assert_eq!(store.cancel_redrive("none").await.unwrap(), Controlled::NotFound);
        let counts = store.reader().redrive(&id).await.unwrap().counts;
        assert_eq!((counts.of(ItemState::Sent), counts.of(ItemState::Skipped)), (20, 50));

        let mut pipeline = Pipeline::open(store).await;
        let received = pipeline.receive().await;
        assert_eq!(received.len(), 20, "what is sent goes on");
        pipeline.settle(received, |_| delivered()).await;
        let counts = store.reader().redrive(&id).await.unwrap().counts;
        assert_eq!(counts.of(ItemState::Delivered), 20);
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 50);
        assert_eq!(store.forget_redrives(3_600_000).await.unwrap(), 0);
        assert_eq!(store.forget_redrives(0).await.unwrap(), 1);
        assert!(store.reader().redrives(10, None).await.unwrap().jobs.is_empty());
    })
    .await;
}

#[tokio::test]
async fn parts_that_are_settled_at_the_same_time_end_their_letter_once() {
    both(async |store| {
        let ids = record(store, 1).await;
        let id = create(store, job(all())).await;
        advance(store).await;
        let mut pipeline = Pipeline::open(store).await;
        let received = pipeline.receive().await;
        let message = Arc::new(received[0].message.clone());
        // It is fanned out, and its parts wait.
        let inbox = StoreInbox::new(Arc::clone(store), &"orders".into());
        for _ in 0..8 {
            let redrive = Some(Redrive { letter: ids[0].as_str().into(), count: 1 });
            let progress = Progress { attempt: 1, redrive, ..Progress::default() };
            let (original, message) = (Arc::clone(&message), Arc::clone(&message));
            inbox.park(Entry { original, message, progress, not_before_ms: 0, ordered: false }).await.unwrap();
        }
        let parked = Outcome { settlement: Settlement::Parked, ..Outcome::default() };
        pipeline.settle(received, |_| parked.clone()).await;
        assert_eq!(states(store, &id).await, [ItemState::Sent]);
        let parts = pipeline.receive().await;
        assert_eq!(parts.len(), 8);
        let settler = Arc::new(tokio::sync::Mutex::new(pipeline));
        let mut tasks = tokio::task::JoinSet::new();
        for (index, part) in parts.into_iter().enumerate() {
            let settler = Arc::clone(&settler);
            let outcome = if index == 0 {
                delivered()
            } else {
                Outcome { settlement: Settlement::Dropped, ..Outcome::default() }
            };
            tasks.spawn(async move { settler.lock().await.settle(vec![part], |_| outcome.clone()).await });
        }
        tasks.join_all().await;
        assert_eq!(states(store, &id).await, [ItemState::Delivered], "a part of it was");
        assert_eq!(store.reader().count(&Filter::default()).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn another_gateway_goes_on_where_one_has_stopped() {
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        record(&store, 100).await;
        let id = create(&store, job(all())).await;
        let [active] = &store.claim_redrives().await.unwrap()[..] else { panic!("one job") };
        assert_eq!(store.advance_redrive(active, &destinations(), 40).await.unwrap(), Advance::Sent(40));
        let mut pipeline = Pipeline::open(&store).await;
        let received = pipeline.receive().await;
        let half = received.into_iter().take(20).collect();
        pipeline.settle(half, |_| delivered()).await;
        drop(pipeline);
        store.close().await;
        drop(store);

        let store = Arc::new(fresh.open().await);
        assert_eq!(advance(&store).await, Advance::Waits);
        let counts = store.reader().redrive(&id).await.unwrap().counts;
        assert_eq!((counts.of(ItemState::Delivered), counts.of(ItemState::Sent)), (20, 80));
        let mut pipeline = Pipeline::open(&store).await;
        while store.reader().count(&Filter::default()).await.unwrap() > 0 {
            let received = pipeline.receive().await;
            pipeline.settle(received, |_| delivered()).await;
        }
        assert_eq!(advance(&store).await, Advance::Done);
        assert_eq!(store.reader().redrive(&id).await.unwrap().counts.of(ItemState::Delivered), 100);
        store.close().await;
    })
    .await;
}
