//! The suite. Each test is one promise, for any [`System`].

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use serde_json::Value;
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::Gateway;

use crate::sample::{HEADER_PREFIX, Sample, ids, numbered};
use crate::system::{ARRIVAL_LIMIT, System, await_arrived};

/// A pipeline from the system to the system. `more` holds further lines of it.
fn pipeline<S: System>(system: &S, more: &str) -> String {
    format!(
        "pipelines:
  conformance:
    source: {{ {} }}
    targets: {{ out: {{ {} }} }}
    retry: {{ max_attempts: 5, initial_delay: 100ms, max_delay: 1s, factor: 2 }}
{more}",
        system.source(),
        system.target(),
    )
}

/// Where an HTTP source of [`pipeline`] listens.
fn ingest(gateway: &Gateway) -> String {
    gateway.url("/ingest/conformance")
}

pub async fn one_in_flight_keeps_the_order<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let gateway = Gateway::start(&pipeline(&system, "    max_in_flight: 1\n")).await?;
    let samples: Vec<Sample> = (0..300).map(|number| Sample::numbered(number).with_key("all")).collect();
    system.produce(&ingest(&gateway), &samples).await?;
    let arrived = await_arrived(&system, samples.len()).await;
    assert_eq!(ids(&arrived), ids(&samples));
    Ok(())
}

pub async fn order_by_key_keeps_the_order_of_each_key<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let gateway = Gateway::start(&pipeline(&system, "    order_by: key\n    max_in_flight: 64\n")).await?;
    let samples: Vec<Sample> =
        (0..1_000).map(|number| Sample::numbered(number).with_key(format!("k{}", number % 7))).collect();
    system.produce(&ingest(&gateway), &samples).await?;
    let arrived = await_arrived(&system, samples.len()).await;
    assert_eq!(by_key(&arrived), by_key(&samples));
    Ok(())
}

fn by_key(samples: &[Sample]) -> HashMap<Option<&str>, Vec<&str>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for sample in samples {
        groups.entry(sample.key.as_deref()).or_default().push(sample.id.as_str());
    }
    groups
}

pub async fn headers_and_bodies_arrive_byte_for_byte<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let gateway = Gateway::start(&pipeline(&system, "")).await?;
    let every_byte: Vec<u8> = (0..=255).cycle().take(1_024).collect();
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        every_byte,
        b"\0".to_vec(),
        b"\n".to_vec(),
        b"line\nline\r\nline".to_vec(),
        vec![0xff, 0xfe, 0xfd],
        r#"{"text":"Grüße, 世界 🌍","number":1.10,"large":12345678901234567890123}"#.as_bytes().to_vec(),
        b"{\"b\":1,\"a\":2}".to_vec(),
    ];
    let headers = S::telling_headers();
    assert!(headers.iter().all(|(name, _)| name.starts_with(HEADER_PREFIX)));
    let samples: Vec<Sample> = bodies
        .into_iter()
        .enumerate()
        .map(|(number, body)| Sample { headers: headers.clone(), ..Sample::numbered(number).with_body(body) })
        .collect();
    system.produce(&ingest(&gateway), &samples).await?;
    let mut arrived = await_arrived(&system, samples.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    for (arrived, sample) in arrived.iter().zip(&samples) {
        assert_eq!(arrived, sample);
    }
    assert_eq!(arrived.len(), samples.len());
    Ok(())
}

pub async fn bodies_of_one_mebibyte_arrive<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let gateway = Gateway::start(&pipeline(&system, "")).await?;
    let samples: Vec<Sample> = (0..8_usize)
        .map(|number| {
            let body = format!(r#"{{"number":{number},"filler":"{}"}}"#, "x".repeat((1 << 20) - 64));
            assert!(body.len() < 1 << 20 && body.len() > (1 << 20) - 64);
            Sample::numbered(number).with_body(body)
        })
        .collect();
    system.produce(&ingest(&gateway), &samples).await?;
    let mut arrived = await_arrived(&system, samples.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&arrived), ids(&samples));
    assert!(arrived.iter().zip(&samples).all(|(arrived, sample)| arrived.body == sample.body), "a body has changed");
    Ok(())
}

pub async fn ten_thousand_messages_arrive_once_each<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let gateway = Gateway::start(&pipeline(&system, "")).await?;
    let samples = numbered(10_000);
    system.produce(&ingest(&gateway), &samples).await?;
    let mut arrived = await_arrived(&system, samples.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(arrived.len(), samples.len(), "some arrived twice although nothing failed");
    assert!(arrived.iter().zip(&samples).all(|(arrived, sample)| arrived == sample), "a message has changed");
    Ok(())
}

pub async fn nothing_is_lost_across_a_reconnect<S: System>() -> Result<()> {
    let system = S::own().await?;
    let mut gateway = Gateway::start(&pipeline(&system, "    max_in_flight: 32\n")).await?;
    let samples = numbered(3_000);
    let (before, after) = samples.split_at(2_000);
    let ingest = ingest(&gateway);
    let fault = async {
        await_arrived(&system, 100).await;
        system.disturb(&mut gateway).await
    };
    tokio::try_join!(system.produce(&ingest, before), fault)?;
    // What is put in after the fault shows that messages flow again without a restart, not only that the rest arrives.
    system.produce(&ingest, after).await?;
    let arrived = await_arrived(&system, samples.len()).await;
    assert_eq!(ids(&arrived).into_iter().collect::<BTreeSet<_>>(), ids(&samples).into_iter().collect::<BTreeSet<_>>());
    Ok(())
}

pub async fn an_unroutable_message_is_a_dead_letter<S: System>() -> Result<()> {
    let system = S::shared().await?;
    // jq routes to the names its program puts out: `out`, or none.
    let route = "    steps: [{ route: { plugin: jq, config: { program: 'if .lost then empty else \"out\" end' } } }]\n";
    let gateway = Gateway::start(&pipeline(&system, route)).await?;
    let mut samples = numbered(20);
    samples[7].body = br#"{"lost":true}"#.to_vec();
    system.produce(&ingest(&gateway), &samples).await?;
    let lost = samples.remove(7);
    let mut arrived = await_arrived(&system, samples.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&arrived), ids(&samples));
    assert_dead_letters(&gateway, &[(lost.id.as_str(), "unroutable")]).await
}

pub async fn a_poison_message_stops_nothing<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let validate = "    order_by: key
    steps: [{ validate: { schema: numbered } }, { filter: { plugin: jq, config: { program: '.number >= 0' } } }]
schemas:
  numbered: { inline: { type: object, required: [number], properties: { number: { type: integer } } } }
";
    let gateway = Gateway::start(&pipeline(&system, validate)).await?;
    let mut samples = numbered(30);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let poison: [(usize, &[u8]); 4] =
        [(3, b"not JSON"), (9, &[0xff, 0x00, 0x80]), (15, br#"{"number":"one"}"#), (21, deep.as_bytes())];
    for (number, body) in poison {
        samples[number].body = body.to_vec();
    }
    system.produce(&ingest(&gateway), &samples).await?;
    let good: Vec<&Sample> =
        samples.iter().filter(|sample| poison.iter().all(|(_, body)| sample.body != **body)).collect();
    let mut arrived = await_arrived(&system, good.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&arrived), ids(good));
    let expected: Vec<(&str, &str)> =
        poison.iter().map(|(number, _)| (samples[*number].id.as_str(), "schema")).collect();
    assert_dead_letters(&gateway, &expected).await
}

/// The dead letters are these messages (id, class), once each.
async fn assert_dead_letters(gateway: &Gateway, expected: &[(&str, &str)]) -> Result<()> {
    let found = eventually("the dead letters are there", ARRIVAL_LIMIT, async || {
        let lines = gateway.command(&["dlq", "list", "--json", "--data-dir", "data"]).await?;
        let found: Vec<Value> =
            lines.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("dlq list --json")?;
        anyhow::ensure!(found.len() >= expected.len(), "{} of {}", found.len(), expected.len());
        Ok(found)
    })
    .await;
    let mut found: Vec<(&str, &str)> = found
        .iter()
        .map(|letter| (letter["message_id"].as_str().unwrap_or(""), letter["class"].as_str().unwrap_or("")))
        .collect();
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
    Ok(())
}

pub async fn a_drained_gateway_loses_and_repeats_nothing<S: System>() -> Result<()> {
    let system = S::shared().await?;
    let mut gateway = Gateway::start(&pipeline(&system, "    max_in_flight: 64\n")).await?;
    let samples = numbered(4_000);
    let ingest = ingest(&gateway);
    let stop = async {
        await_arrived(&system, 100).await;
        let status = gateway.stop().await?;
        assert!(status.success(), "SIGTERM ended the gateway with {status}");
        gateway.restart().await
    };
    tokio::try_join!(system.produce(&ingest, &samples), stop)?;
    let mut arrived = await_arrived(&system, samples.len()).await;
    arrived.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(ids(&arrived), ids(&samples), "a clean stop settles what it delivered");
    Ok(())
}
