//! HTTP: ingestion to a webhook, both in CloudEvents binary mode.

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use sluicegate_tests::eventually;
use sluicegate_tests::gateway::{Gateway, http_client};
use sluicegate_tests::webhook::{Received, Webhook};
use tokio::sync::Mutex;

use crate::header_list;
use crate::sample::{HEADER_PREFIX, Sample};
use crate::system::{ARRIVAL_LIMIT, System};

/// Clients that post at the same time; the messages of one key are posted by one of them.
const CLIENTS: usize = 32;

/// The attribute with headers whose names or values no attribute can have.
const HEADER_LIST: &str = "ce-sluicegateheaders";

pub struct HttpSystem {
    webhook: Mutex<Webhook>,
    url: String,
    client: reqwest::Client,
}

impl HttpSystem {
    /// Posts until it is taken: 200, or 422 when it became a dead letter. What is answered otherwise is for the sender to
    /// send again.
    async fn post(&self, ingest: &str, sample: &Sample) -> Result<()> {
        eventually(&format!("{} is taken", sample.id), ARRIVAL_LIMIT, async || {
            let mut request = self
                .client
                .post(ingest)
                .header("ce-specversion", "1.0")
                .header("ce-id", &sample.id)
                .header("ce-source", "conformance")
                .header("ce-type", "conformance.sample");
            if let Some(key) = &sample.key {
                request = request.header("ce-partitionkey", key);
            }
            if !sample.headers.is_empty() {
                request = request.header(HEADER_LIST, percent_encode(&header_list::write(&sample.headers)));
            }
            let answer = request.body(sample.body.clone()).send().await?;
            let status = answer.status().as_u16();
            ensure!([200, 422].contains(&status), "{status}: {}", answer.text().await?);
            Ok(())
        })
        .await;
        Ok(())
    }
}

impl System for HttpSystem {
    async fn shared() -> Result<Self> {
        Self::own().await
    }

    async fn own() -> Result<Self> {
        let webhook = Webhook::start().await?;
        Ok(Self { url: webhook.url(), webhook: Mutex::new(webhook), client: http_client()? })
    }

    fn source(&self) -> String {
        "http: { path: /ingest/conformance }".to_owned()
    }

    fn target(&self) -> String {
        format!("http: {{ url: '{}' }}", self.url)
    }

    fn telling_headers() -> Vec<(String, Vec<u8>)> {
        let header = |name: &str, value: &[u8]| (format!("{HEADER_PREFIX}{name}"), value.to_vec());
        vec![
            header("binary", &(0..=255).collect::<Vec<u8>>()),
            header("empty", b""),
            header("repeated", b"one"),
            header("UPPER lower, and: odd", "Grüße, 100 %".as_bytes()),
            header("repeated", b"two"),
        ]
    }

    async fn produce(&self, ingest: &str, samples: &[Sample]) -> Result<()> {
        // Each client sends one message after the other.
        let mut lanes: Vec<Vec<&Sample>> = vec![Vec::new(); CLIENTS];
        for (number, sample) in samples.iter().enumerate() {
            let lane = sample.key.as_ref().map_or(number, |key| key.bytes().map(usize::from).sum());
            lanes[lane % CLIENTS].push(sample);
        }
        stream::iter(lanes)
            .map(Ok)
            .try_for_each_concurrent(None, async |lane| {
                for sample in lane {
                    self.post(ingest, sample).await?;
                }
                Ok(())
            })
            .await
    }

    async fn arrived(&self) -> Result<Vec<Sample>> {
        let received = self.webhook.lock().await.received();
        received.iter().filter(|request| request.status.is_success()).map(sample).collect()
    }

    async fn disturb(&self, gateway: &mut Gateway) -> Result<()> {
        let mut webhook = self.webhook.lock().await;
        webhook.kill().await;
        eventually("the gateway notices", ARRIVAL_LIMIT, async || {
            let errors = gateway.metric("mq_message_processing_errors_total", &[]).await?;
            ensure!(errors > 0.0, "no errors counted");
            Ok(())
        })
        .await;
        webhook.restart().await
    }
}

fn sample(request: &Received) -> Result<Sample> {
    let text = |name: &str| {
        let value = request.headers.get(name);
        value.map(|value| percent_decode(value.as_bytes())).transpose()
    };
    let headers = header_list::read(&text(HEADER_LIST)?.unwrap_or_else(|| "[]".to_owned()))?;
    Ok(Sample {
        id: text("ce-id")?.context("a request without ce-id")?,
        key: text("ce-partitionkey")?,
        headers: headers.into_iter().filter(|(name, _)| name.starts_with(HEADER_PREFIX)).collect(),
        body: request.body.to_vec(),
    })
}

/// As the CloudEvents HTTP binding writes attributes (section 3.1.3.2).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | 0..=0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

fn percent_decode(mut value: &[u8]) -> Result<String> {
    let mut decoded = Vec::with_capacity(value.len());
    while let Some((&byte, rest)) = value.split_first() {
        value = rest;
        if byte == b'%' {
            let (digits, rest) = value.split_at_checked(2).context("a cut percent encoding")?;
            decoded.push(u8::from_str_radix(std::str::from_utf8(digits)?, 16)?);
            value = rest;
        } else {
            decoded.push(byte);
        }
    }
    Ok(String::from_utf8(decoded)?)
}
