//! Kill -9 at random moments while messages meet every fate there is: what was accepted is delivered, dead-lettered,
//! filtered or still queued, and each exactly where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::Webhook;
use sluicegate_tests::{eventually, servers};

use crate::clients::{ARRIVAL_LIMIT, in_inbox};
use crate::posting::{Posting, number, numbers};

/// Environment variable with the seed of an earlier run, to repeat its fates and moments.
const SEED: &str = "SLUICEGATE_TEST_SEED";
const ROUNDS: usize = 4;
/// Messages accepted between two kills.
const PER_ROUND: usize = 150;
/// How far ahead delayed messages are due.
const DELAY_MS: u64 = 1_500;

/// What is to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// Its target takes it at once.
    Delivered,
    /// Its target asks for a later try, for which it is parked.
    Parked,
    /// It brings a time of its own.
    Delayed,
    /// A filter drops it.
    Filtered,
    /// Its target refuses it for good.
    Refused,
    /// No target is chosen.
    Unroutable,
    /// Its target is dead until the end.
    Queued,
}

impl Fate {
    /// The fate of message `number`, the same for the same seed.
    fn of(seed: u64, number: usize) -> Self {
        match fastrand::Rng::with_seed(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).u8(0..20) {
            0..10 => Self::Delivered,
            10..12 => Self::Parked,
            12..14 => Self::Delayed,
            14..16 => Self::Filtered,
            16 => Self::Refused,
            17 => Self::Unroutable,
            _ => Self::Queued,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Parked => "parked",
            Self::Delayed => "delayed",
            Self::Filtered => "filtered",
            Self::Refused => "refused",
            Self::Unroutable => "unroutable",
            Self::Queued => "queued",
        }
    }

    /// Where its messages end.
    fn end(self) -> End {
        match self {
            Self::Delivered | Self::Parked | Self::Delayed => End::Delivered,
            Self::Filtered => End::Filtered,
            Self::Refused | Self::Unroutable => End::DeadLettered,
            Self::Queued => End::Queued,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Delivered,
    Filtered,
    DeadLettered,
    Queued,
}

fn config(store: Option<&str>, hook: &Webhook, late: &Webhook) -> String {
    let store = store.map(|url| format!("store: '{url}'\n")).unwrap_or_default();
    let route = r#"if .fate == "queued" then "late" elif .fate == "unroutable" then empty else "hook" end"#;
    format!(
        "{store}pipelines:
  orders:
    source: {{ http: {{ path: /ingest/orders, respond: accepted }} }}
    steps:
      - filter: {{ plugin: jq, config: {{ program: '.fate != \"filtered\"' }} }}
      - route: {{ plugin: jq, config: {{ program: '{route}' }} }}
    targets:
      hook: {{ http: {{ url: '{}' }} }}
      late: {{ http: {{ url: '{}' }} }}
    retry: {{ initial_delay: 50ms, max_delay: 500ms, max_attempts: 1000 }}
    max_in_flight: 64
",
        hook.url(),
        late.url()
    )
}

fn compose(seed: u64) -> impl Fn(RequestBuilder, usize) -> RequestBuilder {
    move |request, number| {
        let fate = Fate::of(seed, number);
        let request = request.body(json!({ "number": number, "fate": fate.name() }).to_string());
        if fate != Fate::Delayed {
            return request;
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let due = jiff::Timestamp::from_millisecond((now_ms + DELAY_MS) as i64).unwrap_or_default();
        let attributes = [("ce-specversion", "1.0"), ("ce-source", "/test"), ("ce-type", "t")];
        let request = attributes.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        request.header("ce-id", format!("d-{number}")).header("ce-deliverytime", due.to_string())
    }
}

fn fate_in(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    value["fate"].as_str().map(str::to_owned)
}

/// Numbers of all dead letters.
async fn dead_letters(gateway: &Gateway) -> Result<BTreeSet<usize>> {
    let answer = http_client()?.get(gateway.url("/api/v1/dead-letters/export")).send().await?.error_for_status()?;
    let text = answer.text().await?;
    let number = |line: &str| {
        let letter: Value = serde_json::from_str(line)?;
        let number = letter["original"]["body"]["json"]["number"].as_u64().with_context(|| format!("in {line}"))?;
        Ok(usize::try_from(number)?)
    };
    text.lines().map(number).collect()
}

/// What has become of the messages so far.
struct Found {
    delivered: BTreeSet<usize>,
    dead: BTreeSet<usize>,
    late: BTreeSet<usize>,
}

impl Found {
    async fn look(gateway: &Gateway, hook: &Webhook, late: &Webhook) -> Result<Self> {
        let late = late.received().iter().map(|request| number(&request.body)).collect::<Result<_>>()?;
        let delivered = numbers(hook)?.into_iter().collect();
        Ok(Self { delivered, dead: dead_letters(gateway).await?, late })
    }

    /// Everything that ends elsewhere than in the dead target's queue is there.
    fn ensure_ended(&self, seed: u64, accepted: &BTreeSet<usize>) -> Result<()> {
        let mut missing = BTreeMap::<Fate, usize>::new();
        for &number in accepted {
            let fate = Fate::of(seed, number);
            let is_there = match fate.end() {
                End::Delivered => self.delivered.contains(&number),
                End::DeadLettered => self.dead.contains(&number),
                End::Filtered | End::Queued => true,
            };
            if !is_there {
                *missing.entry(fate).or_default() += 1;
            }
        }
        ensure!(missing.is_empty(), "of {} accepted are missing: {missing:?}", accepted.len());
        Ok(())
    }

    /// Nothing is where it does not belong, whether it was accepted or its client was told nothing.
    fn ensure_in_place(&self, seed: u64) -> Result<()> {
        let places = [(&self.delivered, End::Delivered), (&self.dead, End::DeadLettered), (&self.late, End::Queued)];
        for (place, end) in places {
            let stray = place.iter().find(|number| Fate::of(seed, **number).end() != end);
            ensure!(stray.is_none(), "{:?} is {end:?}, its fate is {:?}", stray, stray.map(|n| Fate::of(seed, *n)));
        }
        Ok(())
    }
}

async fn survives(store: Option<String>) -> Result<()> {
    let seed = std::env::var(SEED).ok().map_or_else(|| Ok(fastrand::u64(..)), |seed| seed.parse())?;
    println!("{SEED}={seed}");
    let mut moments = fastrand::Rng::with_seed(seed);
    let (hook, mut late) = (Webhook::start().await?, Webhook::start().await?);
    hook.answer_by(|body, before| match (fate_in(body)?.as_str(), before) {
        ("refused", _) => Some((400, None)),
        // Longer than a second, so that nothing holds it meanwhile but the store.
        ("parked", 0) => Some((503, Some(2))),
        _ => None,
    });
    late.kill().await;
    let mut gateway = Gateway::start(&config(store.as_deref(), &hook, &late)).await?;
    let posting = Posting::start_with(vec![gateway.url("/ingest/orders")], 16, Arc::new(compose(seed)))?;
    for _ in 0..ROUNDS {
        posting.await_more(PER_ROUND).await;
        tokio::time::sleep(Duration::from_millis(moments.u64(0..400))).await;
        gateway.kill()?;
        gateway.restart().await?;
    }
    posting.await_more(PER_ROUND).await;
    let accepted = posting.stop().await;
    eventually("everything accepted has met its fate", ARRIVAL_LIMIT, async || {
        Found::look(&gateway, &hook, &late).await?.ensure_ended(seed, &accepted)
    })
    .await;
    let queued: BTreeSet<usize> =
        accepted.iter().copied().filter(|number| Fate::of(seed, *number) == Fate::Queued).collect();
    // Clients that were told nothing may have put in more.
    let waiting = in_inbox(&gateway, store.as_deref()).await?;
    ensure!(waiting >= queued.len() as u64, "{waiting} wait, {} must", queued.len());
    Found::look(&gateway, &hook, &late).await?.ensure_in_place(seed)?;

    late.restart().await?;
    eventually("what was queued is delivered, and the inbox is empty", ARRIVAL_LIMIT, async || {
        let found: BTreeSet<usize> = numbers(&late)?.into_iter().collect();
        let missing = queued.difference(&found).count();
        ensure!(missing == 0, "{missing} of {} are missing", queued.len());
        let waiting = in_inbox(&gateway, store.as_deref()).await?;
        ensure!(waiting == 0, "{waiting} still wait");
        Ok(())
    })
    .await;
    // With the inbox empty, what was filtered is settled; and it is nowhere else.
    let found = Found::look(&gateway, &hook, &late).await?;
    found.ensure_ended(seed, &accepted)?;
    found.ensure_in_place(seed)?;
    let fates: BTreeSet<Fate> = accepted.iter().map(|number| Fate::of(seed, *number)).collect();
    ensure!(fates.len() == 7, "the fates that were tried: {fates:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_message_meets_its_fate_through_kill_9_in_the_embedded_store() -> Result<()> {
    survives(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_message_meets_its_fate_through_kill_9_in_postgresql() -> Result<()> {
    survives(Some(servers::postgres().await?.new_database().await?)).await
}
