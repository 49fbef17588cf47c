//! A spool in memory that keeps its word: what it takes it has, what it refuses it has not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use serde_json::{Value, json};
use sluicegate_connectors::http::{
    Admission, Admitted, Fingerprint, Idempotency, Ingress, Recalled, Refusal, Spool, StoredAnswer,
};
use sluicegate_engine::delivery::Outcome;
use sluicegate_engine::message::Message;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::client::DEADLINE;
use crate::pipeline::{Held, source};

/// What a test may hold up until it lets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Calls wait before anything has happened.
    Before,
    /// Calls wait after all has happened: the store is late with its answer.
    After,
}

pub struct MemorySpool {
    state: Mutex<State>,
    gate: watch::Sender<Gate>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    answers: HashMap<(Arc<str>, Arc<str>), Idempotency>,
    refusals: VecDeque<Refusal>,
    calls: usize,
}

/// A message that was taken.
pub struct Entry {
    pub pipeline: Arc<str>,
    pub message: Message,
    pub ordered: bool,
    outcome: Option<oneshot::Sender<Outcome>>,
}

impl MemorySpool {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), gate: watch::Sender::new(Gate::Open) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A pipeline with this spool, and all that was posted at its path stays in there.
    pub async fn listen(self: &Arc<Self>, ingress: &Ingress, more: Value) -> Held {
        let mut config = json!({ "path": "/in", "respond": "accepted" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spool: Arc<dyn Spool> = self.clone();
        Held::connect(source(ingress, Some(spool), config)).await
    }

    /// Refuses the next calls of anything, in turn.
    pub fn refuse(&self, refusals: impl IntoIterator<Item = Refusal>) {
        self.state().refusals.extend(refusals);
    }

    pub fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    /// The bodies of what was taken, in order.
    pub fn bodies(&self) -> Vec<String> {
        let text = |entry: &Entry| String::from_utf8(entry.message.body.bytes().to_vec()).unwrap();
        self.state().entries.iter().map(text).collect()
    }

    pub fn with_entry<T>(&self, index: usize, see: impl FnOnce(&Entry) -> T) -> T {
        see(&self.state().entries[index])
    }

    /// What is recorded of a key of the pipeline `orders`.
    pub fn recorded(&self, key: &str) -> Option<Idempotency> {
        self.state().answers.get(&(Arc::from("orders"), Arc::from(key))).cloned()
    }

    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Waits until that many calls were made.
    pub async fn called(&self, count: usize) {
        until(|| self.calls() >= count).await;
    }

    /// Carries a message: tells who waits for it how it ended.
    pub fn settle(&self, index: usize, outcome: impl FnOnce(&Message) -> Outcome) {
        let mut state = self.state();
        let entry = &mut state.entries[index];
        let outcome = outcome(&entry.message);
        entry.outcome.take().expect("somebody waits").send(outcome).expect("somebody still waits");
    }

    /// Lets nobody learn any more how messages end.
    pub fn forget_who_waits(&self) {
        self.state().entries.iter_mut().for_each(|entry| drop(entry.outcome.take()));
    }

    /// Waits for the gate, before something is done and after it.
    async fn pass(&self, closed: Gate) {
        self.gate.subscribe().wait_for(|gate| *gate != closed).await.unwrap();
    }

    async fn call<T>(&self, work: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.state().calls += 1;
        self.pass(Gate::Before).await;
        let result = {
            let mut state = self.state();
            match state.refusals.pop_front() {
                Some(refusal) => Err(refusal),
                None => work(&mut state),
            }
        };
        self.pass(Gate::After).await;
        result
    }
}

impl State {
    fn known(
        &self,
        pipeline: &Arc<str>,
        key: &Arc<str>,
        fingerprint: &Fingerprint,
    ) -> Result<Option<StoredAnswer>, Refusal> {
        match self.answers.get(&(Arc::clone(pipeline), Arc::clone(key))) {
            None => Ok(None),
            Some(known) if known.fingerprint == *fingerprint => Ok(Some(known.answer.clone())),
            Some(_) => Err(Refusal::KeyReused),
        }
    }

    fn record(&mut self, pipeline: &Arc<str>, idempotency: Idempotency) {
        self.answers.insert((Arc::clone(pipeline), Arc::clone(&idempotency.key)), idempotency);
    }

    fn admit(&mut self, admission: Admission) -> Result<Admitted, Refusal> {
        let Admission { pipeline, messages, ordered, idempotency, wait, backlog } = admission;
        if let Some(Idempotency { key, fingerprint, .. }) = &idempotency
            && let Some(answer) = self.known(&pipeline, key, fingerprint)?
        {
            return Ok(Admitted::Repeated(answer));
        }
        let bodies = self.entries.iter().map(|entry| &entry.message).chain(&messages).map(|message| message.body.len());
        let (count, bytes) = (bodies.clone().count(), bodies.sum::<usize>());
        if count as u64 > backlog.max_messages || bytes as u64 > backlog.max_bytes {
            return Err(Refusal::BacklogFull { retry_after: std::time::Duration::from_millis(6_500) });
        }
        if let Some(idempotency) = idempotency {
            self.record(&pipeline, idempotency);
        }
        let mut outcomes = Vec::new();
        for message in messages {
            let mut outcome = None;
            if wait {
                let (sender, receiver) = oneshot::channel();
                outcome = Some(sender);
                outcomes.push(receiver);
            }
            self.entries.push(Entry { pipeline: Arc::clone(&pipeline), message, ordered, outcome });
        }
        Ok(Admitted::Taken { outcomes })
    }
}

#[async_trait]
impl Spool for MemorySpool {
    async fn admit(&self, admission: Admission) -> Result<Admitted, Refusal> {
        self.call(|state| state.admit(admission)).await
    }

    async fn conclude(&self, pipeline: &Arc<str>, conclusion: Idempotency) -> Result<(), Refusal> {
        self.call(|state| {
            state.known(pipeline, &conclusion.key, &conclusion.fingerprint)?;
            state.record(pipeline, conclusion);
            Ok(())
        })
        .await
    }

    async fn recall(
        &self,
        pipeline: &Arc<str>,
        key: &Arc<str>,
        fingerprint: &Fingerprint,
    ) -> Result<Recalled, Refusal> {
        self.call(|state| Ok(state.known(pipeline, key, fingerprint)?.map_or(Recalled::Unknown, Recalled::Answered)))
            .await
    }
}

/// The disk is full, for seven seconds.
pub fn disk_full() -> Refusal {
    Refusal::Unavailable { text: "the disk is full".to_owned(), retry_after: std::time::Duration::from_secs(7) }
}

/// Polls until something is so, for at most [`DEADLINE`].
pub async fn until(so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "it did not come about in time");
        tokio::task::yield_now().await;
    }
}
