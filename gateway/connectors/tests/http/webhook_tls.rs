//! Webhooks by https: the receiver's certificate decides.
//!
//! `tls/` holds an authority made for these tests (`ca.pem`) and a certificate of `localhost` signed by it, valid until
//! 2126; `tls/make` shows how they were made.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::json;
use sluicegate_connectors::http::{HttpTarget, Ingress, TargetConfig};
use sluicegate_engine::failure::{Failure, FailureKind};
use sluicegate_engine::message::Message;
use sluicegate_engine::target::Target;
use tokio::task::JoinHandle;

use crate::pipeline::context;

fn tls(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/tls").join(file)
}

/// Answers one request by TLS; says whether the client agreed to the certificate.
fn receiver() -> (u16, JoinHandle<bool>) {
    let certificate = CertificateDer::from_pem_file(tls("localhost.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls("localhost-key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answered = tokio::task::spawn_blocking(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        let mut request = [0; 8_192];
        match stream.read(&mut request) {
            Ok(1..) => stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").is_ok(),
            Ok(0) | Err(_) => false,
        }
    });
    (port, answered)
}

async fn send(port: u16, tls: serde_json::Value) -> Result<(), Failure> {
    let config = json!({ "url": format!("https://localhost:{port}/hook"), "tls": tls });
    let config: TargetConfig = serde_json::from_value(config).unwrap();
    let outlet = HttpTarget::new(&config, &context(&Ingress::default())).connect().await?;
    outlet.publish(&[Arc::new(Message::new("s", "k", "body"))]).await.remove(0)
}

#[tokio::test]
async fn a_receiver_of_a_trusted_authority_gets_the_message() {
    let (port, answered) = receiver();
    // Relative to the folder of the configuration, which is the crate's here.
    send(port, json!({ "ca_file": "tests/http/tls/ca.pem" })).await.unwrap();
    assert!(answered.await.unwrap());
}

#[tokio::test]
async fn a_receiver_of_another_authority_gets_nothing() {
    let (port, answered) = receiver();
    let failure = send(port, json!({})).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Transient { .. }), "{failure}");
    assert!(failure.text.contains("certificate"), "{failure}");
    assert!(!answered.await.unwrap());
}
