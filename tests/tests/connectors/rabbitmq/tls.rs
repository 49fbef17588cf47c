//! TLS, ended by a proxy in front of the shared broker. The certificates beside this file are for this test alone: an
//! authority nobody else trusts, a server's for `localhost` and 127.0.0.1, and a client's; all valid until 2126.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use sluicegate_connectors::rabbitmq::{RabbitmqSource, RabbitmqTarget};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;
use sluicegate_tests::{servers, unique};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{bodies, context, message, receive};

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connectors/rabbitmq/certificates");

fn certificate(name: &str) -> Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_file(Path::new(CERTIFICATES).join(name))?)
}

/// A proxy that speaks TLS with its clients. It ends with the set.
async fn proxy(tasks: &mut JoinSet<()>, asks_for_certificate: bool) -> Result<u16> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if asks_for_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")?)?;
        builder
            .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(Path::new(CERTIFICATES).join("server.key.pem"))?;
    let config = builder.with_single_cert(vec![certificate("server.pem")?], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let broker = servers::rabbitmq().await?.host_and_port().to_owned();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, broker) = (acceptor.clone(), broker.clone());
            // Errors of a connection are what its client sees.
            connections.spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(broker).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}

fn settings(port: u16, queue: &str, tls: Value) -> Value {
    json!({ "url": format!("amqps://guest:guest@127.0.0.1:{port}/%2f"), "queue": queue, "tls": tls })
}

async fn refused(port: u16, tls: Value) -> Result<Failure> {
    let config = serde_json::from_value(settings(port, &unique("q"), tls))?;
    RabbitmqTarget::new(&config, &context()).connect().await.err().context("connected")
}

#[tokio::test]
async fn messages_pass_by_tls_both_ways() -> Result<()> {
    let mut tasks = JoinSet::new();
    let client = json!({
        "ca_file": format!("{CERTIFICATES}/ca.pem"), "certificate_file": format!("{CERTIFICATES}/client.pem"),
        "key_file": format!("{CERTIFICATES}/client.key.pem"),
    });
    for (asks_for_certificate, tls) in [(false, json!({ "ca_file": format!("{CERTIFICATES}/ca.pem") })), (true, client)]
    {
        let port = proxy(&mut tasks, asks_for_certificate).await?;
        let queue = unique("q");
        let config = serde_json::from_value(settings(port, &queue, tls.clone()))?;
        let outlet = RabbitmqTarget::new(&config, &context()).connect().await?;
        outlet.publish(&[message("k", "by TLS")]).await.remove(0)?;
        let config = serde_json::from_value(settings(port, &queue, tls))?;
        let mut connection = RabbitmqSource::new(&config, &context()).connect().await?;
        assert_eq!(bodies(&receive(&mut *connection.inlet, 1).await?), ["by TLS"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() -> Result<()> {
    let mut tasks = JoinSet::new();
    let port = proxy(&mut tasks, false).await?;
    let failure = refused(port, json!({})).await?;
    assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
    assert!(failure.text.contains("ca_file") && failure.text.contains("certificate"), "{failure}");
    Ok(())
}

#[tokio::test]
async fn a_missing_client_certificate_is_noticed() -> Result<()> {
    let mut tasks = JoinSet::new();
    let port = proxy(&mut tasks, true).await?;
    let failure = refused(port, json!({ "ca_file": format!("{CERTIFICATES}/ca.pem") })).await?;
    assert!(matches!(failure.kind, FailureKind::Disconnected | FailureKind::Permanent), "{failure}");
    Ok(())
}

#[tokio::test]
async fn files_that_are_missing_or_no_pem_are_named() -> Result<()> {
    for (tls, part) in [
        (json!({ "ca_file": "nowhere/ca.pem" }), "nowhere/ca.pem"),
        (json!({ "certificate_file": format!("{CERTIFICATES}/client.pem"), "key_file": "nowhere.key" }), "nowhere.key"),
    ] {
        let failure = refused(1, tls).await?;
        assert_eq!(failure.kind, FailureKind::Permanent, "{failure}");
        assert!(failure.text.contains(part) && failure.text.contains("_file"), "{failure}");
    }
    Ok(())
}
