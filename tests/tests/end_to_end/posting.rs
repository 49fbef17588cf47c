//! Clients that post numbered messages and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::Value;
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::http_client;
use sluicegate_tests::webhook::{Received, Webhook};
use tokio::task::JoinSet;

use crate::clients::{ARRIVAL_LIMIT, body};

/// How long a client waits for its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Puts message `number` into a request.
pub type Compose = Arc<dyn Fn(RequestBuilder, usize) -> RequestBuilder + Send + Sync>;

/// What clients were told.
#[derive(Debug, Default)]
struct Told {
    accepted: BTreeSet<usize>,
    /// Answers that were no acceptance: status and whether they had `Retry-After`, with their count.
    refused: BTreeMap<(u16, bool), usize>,
}

/// Clients that post numbers, each once, and remember which were answered 202 or 201.
pub struct Posting {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Posting {
    /// `count` clients that post `{"number":N}` to these in turns. A number whose request fails is not posted again:
    /// nobody knows what became of it.
    pub fn start(urls: Vec<String>, count: usize) -> Result<Self> {
        Self::start_with(urls, count, Arc::new(|request, number| request.body(body(number))))
    }

    /// As [`start`](Self::start), with requests of the caller's.
    pub fn start_with(urls: Vec<String>, count: usize, compose: Compose) -> Result<Self> {
        let (told, stop) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicBool>::default());
        let next = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        let client = http_client()?;
        for _ in 0..count {
            let (urls, client, next) = (urls.clone(), client.clone(), Arc::clone(&next));
            let (told, stop, compose) = (Arc::clone(&told), Arc::clone(&stop), Arc::clone(&compose));
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let request = compose(client.post(&urls[number % urls.len()]), number);
                    match request.timeout(ANSWER_LIMIT).send().await {
                        Ok(answer) if matches!(answer.status().as_u16(), 201 | 202) => {
                            lock(&told).accepted.insert(number);
                        }
                        Ok(answer) => {
                            let refusal = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
                            *lock(&told).refused.entry(refusal).or_default() += 1;
                            pause().await;
                        }
                        // The gateway is gone for the moment.
                        Err(_) => pause().await,
                    }
                }
            });
        }
        Ok(Self { told, stop, clients })
    }

    /// How many were accepted so far.
    pub fn accepted(&self) -> usize {
        lock(&self.told).accepted.len()
    }

    /// Which were accepted so far.
    pub fn numbers(&self) -> BTreeSet<usize> {
        lock(&self.told).accepted.clone()
    }

    /// How many answers were no acceptance, by status and by whether they had `Retry-After`.
    pub fn refused(&self) -> BTreeMap<(u16, bool), usize> {
        lock(&self.told).refused.clone()
    }

    /// Waits until that many more were accepted.
    pub async fn await_more(&self, more: usize) {
        let wanted = self.accepted() + more;
        eventually("more messages are accepted", ARRIVAL_LIMIT, async || {
            let accepted = self.accepted();
            ensure!(accepted >= wanted, "{accepted} of {wanted}; refused: {:?}", self.refused());
            Ok(())
        })
        .await;
    }

    /// Lets every client have its answer, and returns which were accepted.
    pub async fn stop(mut self) -> BTreeSet<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.numbers()
    }
}

/// So that a client that is refused does not spin.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number in a body.
pub fn number(body: &[u8]) -> Result<usize> {
    let value: Value = serde_json::from_slice(body).with_context(|| String::from_utf8_lossy(body).into_owned())?;
    Ok(usize::try_from(value["number"].as_u64().context("no number")?)?)
}

/// The numbers that a webhook has answered with a success, repeats included.
pub fn numbers(hook: &Webhook) -> Result<Vec<usize>> {
    let received = hook.received().into_iter().filter(Received::is_delivered);
    received.map(|request| number(&request.body)).collect()
}

/// Waits until each of `accepted` was delivered.
pub async fn await_all(hook: &Webhook, accepted: &BTreeSet<usize>, limit: Duration) {
    eventually("everything accepted is delivered", limit, async || {
        let delivered: BTreeSet<usize> = numbers(hook)?.into_iter().collect();
        let missing: Vec<&usize> = accepted.difference(&delivered).collect();
        ensure!(missing.is_empty(), "{} of {} are missing, from {:?}", missing.len(), accepted.len(), missing.first());
        Ok(())
    })
    .await;
}
