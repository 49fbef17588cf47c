//! Files: JSON Lines to JSON Lines, each line a CloudEvent. There is no server to interrupt, so the gateway is killed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sluicegate_tests::gateway::Gateway;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::header_list;
use crate::sample::{HEADER_PREFIX, Sample};
use crate::system::System;

/// The attribute with headers whose names or values no attribute can have.
const HEADER_LIST: &str = "sluicegateheaders";

pub struct FileSystem {
    input: PathBuf,
    output: PathBuf,
    /// With the length of what was read of the output, in bytes.
    arrived: Mutex<(Vec<Sample>, usize)>,
    _folder: TempDir,
}

impl System for FileSystem {
    async fn shared() -> Result<Self> {
        Self::own().await
    }

    async fn own() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-conformance-").tempdir()?;
        let input = folder.path().join("in.jsonl");
        std::fs::write(&input, "")?;
        let output = folder.path().join("out.jsonl");
        Ok(Self { input, output, arrived: Mutex::default(), _folder: folder })
    }

    fn source(&self) -> String {
        // The base64 of a body of 1 MiB is longer than the 1 MiB a line may have by default.
        format!("file: {{ path: {}, format: event, follow: true, max_line: 2MiB }}", self.input.display())
    }

    fn target(&self) -> String {
        format!("file: {{ path: {}, format: event }}", self.output.display())
    }

    fn telling_headers() -> Vec<(String, Vec<u8>)> {
        let header = |name: &str, value: &[u8]| (format!("{HEADER_PREFIX}{name}"), value.to_vec());
        vec![
            header("binary", &(0..=255).collect::<Vec<u8>>()),
            header("empty", b""),
            header("repeated", b"one"),
            header("UPPER lower, and: odd", "Grüße".as_bytes()),
            header("repeated", b"two"),
        ]
    }

    async fn produce(&self, _: &str, samples: &[Sample]) -> Result<()> {
        let mut lines = String::new();
        for sample in samples {
            writeln!(lines, "{}", event(sample))?;
        }
        let mut input = std::fs::OpenOptions::new().append(true).open(&self.input)?;
        input.write_all(lines.as_bytes()).with_context(|| format!("writing {}", self.input.display()))
    }

    async fn arrived(&self) -> Result<Vec<Sample>> {
        let mut arrived = self.arrived.lock().await;
        let bytes = match std::fs::read(&self.output) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let new = &bytes[arrived.1..];
        let complete = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let samples: Vec<Sample> = std::str::from_utf8(&new[..complete])?.lines().map(sample).collect::<Result<_>>()?;
        arrived.0.extend(samples);
        arrived.1 += complete;
        Ok(arrived.0.clone())
    }

    async fn disturb(&self, gateway: &mut Gateway) -> Result<()> {
        gateway.kill()?;
        gateway.restart().await
    }
}

fn event(sample: &Sample) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": sample.id, "source": "conformance", "type": "conformance.sample",
        "datacontenttype": "application/octet-stream", "data_base64": BASE64.encode(&sample.body),
    });
    if !sample.headers.is_empty() {
        event[HEADER_LIST] = Value::from(header_list::write(&sample.headers));
    }
    if let Some(key) = &sample.key {
        event["partitionkey"] = Value::from(key.as_str());
    }
    event
}

fn sample(line: &str) -> Result<Sample> {
    let event: Value = serde_json::from_str(line).with_context(|| format!("the line {line:.200}"))?;
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    let body = match (text("data_base64"), text("data")) {
        (Some(encoded), _) => BASE64.decode(encoded)?,
        (None, Some(text)) => text.into_bytes(),
        (None, None) => Vec::new(),
    };
    let headers = header_list::read(&text(HEADER_LIST).unwrap_or_else(|| "[]".to_owned()))?;
    Ok(Sample {
        id: text("id").context("an event without id")?,
        key: text("partitionkey"),
        headers: headers.into_iter().filter(|(name, _)| name.starts_with(HEADER_PREFIX)).collect(),
        body,
    })
}
