//! `rediss://` against a Redis that speaks TLS alone and asks for the client's certificate.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::Message;
use sluicegate_engine::source::Source;
use sluicegate_engine::target::{Outlet, Target};
use sluicegate_tests::port::Port;
use sluicegate_tests::process::{Process, Program};
use sluicegate_tests::{eventually, unique};
use tempfile::TempDir;

use super::{SOON, bodies, consume, receive, source, target};

/// A certificate that the tests of both brokers use.
fn certificate(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/connectors/rabbitmq/certificates").join(name)
}

struct TlsRedis {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl TlsRedis {
    async fn start() -> Result<Self> {
        let port = Port::reserve()?;
        let folder = tempfile::Builder::new().prefix("sluicegate-redis-tls-").tempdir()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--tls-port", &port.number().to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--tls-cert-file").arg(certificate("server.pem"));
        command.arg("--tls-key-file").arg(certificate("server.key.pem"));
        command.arg("--tls-ca-cert-file").arg(certificate("ca.pem"));
        command.args(["--tls-auth-clients", "yes"]).arg("--dir").arg(folder.path());
        let output = folder.path().join("output.log");
        let program = Program { name: "redis with TLS", command, output, folder: Some(folder.path().to_owned()) };
        let process = program.start()?;
        let address = port.address();
        eventually("Redis listens with TLS", SOON, async || Ok(tokio::net::TcpStream::connect(address).await?)).await;
        Ok(Self { port, _process: process, _folder: folder })
    }

    fn settings(&self, tls: Value) -> Value {
        json!({ "url": format!("rediss://127.0.0.1:{}", self.port.number()), "stream": unique("s"), "tls": tls })
    }
}

#[tokio::test]
async fn messages_pass_with_our_authority_and_our_certificate() -> Result<()> {
    let server = TlsRedis::start().await?;
    let settings = server.settings(json!({
        "ca_file": certificate("ca.pem"),
        "cert_file": certificate("client.pem"),
        "key_file": certificate("client.key.pem"),
    }));
    let outlet: Arc<dyn Outlet> = target(settings.clone()).await?.connect().await?;
    assert_eq!(outlet.publish(&[Arc::new(Message::new("tests", "t", "secret"))]).await, [Ok(())]);
    let mut connection = consume(settings).await?;
    assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["secret"]);
    Ok(())
}

#[tokio::test]
async fn an_unknown_authority_and_a_missing_certificate_are_refused() -> Result<()> {
    let server = TlsRedis::start().await?;
    let refusal = async |tls: Value| -> Result<Failure> {
        let connected = source(server.settings(tls)).await?.connect().await;
        connected.err().context("it was not refused")
    };
    let unknown = refusal(json!({})).await?;
    assert_eq!(unknown.kind, FailureKind::Permanent);
    assert!(unknown.text.contains("UnknownIssuer") && unknown.text.contains("ca_file"), "{}", unknown.text);
    let spoilt =
        refusal(json!({ "ca_file": "Cargo.toml", "cert_file": "Cargo.toml", "key_file": "Cargo.toml" })).await?;
    assert_eq!(spoilt.kind, FailureKind::Permanent);
    assert!(spoilt.text.contains("PEM"), "{}", spoilt.text);
    let without = refusal(json!({ "ca_file": certificate("ca.pem") })).await?;
    assert!(without.text.contains("127.0.0.1"), "{}", without.text);
    Ok(())
}
