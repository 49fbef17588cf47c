//! The order of each key through kill -9, parked messages and two gateways: what comes twice may come late, but no message
//! comes for the first time after one that was accepted after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::servers;
use sluicegate_tests::webhook::Webhook;
use tokio::task::JoinSet;

use crate::clients::{ARRIVAL_LIMIT, body};
use crate::posting::{await_all, number, numbers};

const KEYS: usize = 12;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

fn ordered(store: Option<&str>, hook: &str) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    format!(
        "{store}pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted, key: {{ header: x-key }} }} }}
    targets: {{ hook: {{ http: {{ url: '{hook}' }} }} }}
    order_by: key
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 64
"
    )
}

/// A client for each key: it posts its next number once the one before was answered, or can be answered no more.
struct Posting {
    accepted: Arc<Mutex<BTreeSet<usize>>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Posting {
    fn start(urls: &[String]) -> Result<Self> {
        let (accepted, stop) = (Arc::<Mutex<BTreeSet<usize>>>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        let client = http_client()?;
        for key in 0..KEYS {
            let (client, urls) = (client.clone(), urls.to_vec());
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            clients.spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let number = round * KEYS + key;
                    let request = client.post(&urls[round % urls.len()]).header("x-key", key.to_string());
                    match request.body(body(number)).timeout(ANSWER_LIMIT).send().await {
                        Ok(answer) if answer.status() == 202 => {
                            accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
                        }
                        Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            });
        }
        Ok(Self { accepted, stop, clients })
    }

    fn numbers(&self) -> BTreeSet<usize> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn await_more(&self, more: usize) {
        let wanted = self.numbers().len() + more;
        eventually("more messages are accepted", ARRIVAL_LIMIT, async || {
            let accepted = self.numbers().len();
            ensure!(accepted >= wanted, "{accepted} of {wanted}");
            Ok(())
        })
        .await;
    }

    async fn stop(mut self) -> BTreeSet<usize> {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        self.numbers()
    }
}

/// A webhook that fails some messages the first time: most for a moment, some for longer than anything is held in memory.
async fn a_moody_webhook() -> Result<Webhook> {
    let hook = Webhook::start().await?;
    hook.answer_by(|body, before| match (number(body).ok()? % 61, before) {
        (7 | 29, 0) => Some((503, None)),
        (43, 0) => Some((503, Some(2))),
        _ => None,
    });
    Ok(hook)
}

/// First deliveries of what was accepted, by key, only ever go up. What a client was told nothing about has no place.
fn ensure_order(hook: &Webhook, accepted: &BTreeSet<usize>) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut last = BTreeMap::<usize, usize>::new();
    for number in numbers(hook)? {
        if !accepted.contains(&number) || !seen.insert(number) {
            continue;
        }
        let last = last.entry(number % KEYS).or_insert(number);
        ensure!(*last <= number, "of key {}, {number} came for the first time after {last}", number % KEYS);
        *last = number;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_key_survives_kill_9_in_the_embedded_store() -> Result<()> {
    let hook = a_moody_webhook().await?;
    let mut gateway = Gateway::start(&ordered(None, &hook.url())).await?;
    let posting = Posting::start(&[gateway.url("/ingest/orders")])?;
    for _ in 0..5 {
        posting.await_more(150).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    posting.await_more(150).await;
    let accepted = posting.stop().await;
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    ensure_order(&hook, &accepted)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_key_survives_the_death_of_one_of_two_gateways() -> Result<()> {
    let (hook, database) = (a_moody_webhook().await?, servers::postgres().await?.new_database().await?);
    let config = ordered(Some(&database), &hook.url());
    let (first, second) = tokio::try_join!(Gateway::start(&config), Gateway::start(&config))?;
    let mut gateways = [first, second];
    let urls: Vec<String> = gateways.iter().map(|gateway| gateway.url("/ingest/orders")).collect();
    let posting = Posting::start(&urls)?;
    for victim in [0, 1] {
        posting.await_more(200).await;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        gateways[victim].kill()?;
        posting.await_more(50).await;
        gateways[victim].restart().await?;
    }
    posting.await_more(100).await;
    let accepted = posting.stop().await;
    await_all(&hook, &accepted, ARRIVAL_LIMIT).await;
    ensure_order(&hook, &accepted)
}
