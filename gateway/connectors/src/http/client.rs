//! The HTTP client of webhooks: TLS by rustls with ring, no redirects, no proxy from the environment, and no address out of
//! [reach](super::reach).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sluicegate_engine::failure::Failure;

use super::reach::{Guarded, Lookup, Reach, SystemLookup};

/// How long an unused connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// Largest file of trusted certificates.
const MAX_CA_FILE_BYTES: u64 = 1 << 20;

/// How a client connects.
pub(super) struct Settings<'c> {
    /// The certificates to trust, instead of the public authorities.
    pub ca_file: Option<&'c Path>,
    /// For making a connection.
    pub connect_timeout: Duration,
    /// Most unused connections that are kept.
    pub max_idle: usize,
    /// Which addresses it may connect to.
    pub reach: Reach,
    /// How hosts are looked up.
    pub lookup: Arc<dyn Lookup>,
}

impl Settings<'_> {
    /// Anywhere, trusting the public authorities.
    pub fn new(connect_timeout: Duration, max_idle: usize) -> Self {
        Self { ca_file: None, connect_timeout, max_idle, reach: Reach::Anywhere, lookup: Arc::new(SystemLookup) }
    }
}

/// A client. A URL whose host is an address is to be [judged](Reach::check) by who uses it.
///
/// # Errors
/// When `ca_file` cannot be read or has no certificates.
pub(super) async fn build(settings: Settings<'_>) -> Result<Client, Failure> {
    let Settings { ca_file, connect_timeout, max_idle, reach, lookup } = settings;
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => trust(&mut roots, file).await?,
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::permanent(format!("preparing TLS for webhooks: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let resolver = Guarded { reach: Arc::new(reach), lookup };
    Client::builder()
        .dns_resolver(Arc::new(resolver))
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(max_idle)
        .user_agent(concat!("sluicegate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Failure::permanent(format!("preparing the HTTP client for webhooks: {}", causes(&error))))
}

async fn trust(roots: &mut RootCertStore, file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        Failure::permanent(format!("reading the certificates to trust from {shown}: {error}; check `tls: ca_file`"))
    };
    let length = tokio::fs::metadata(file).await.map_err(unreadable)?.len();
    if length > MAX_CA_FILE_BYTES {
        return Err(Failure::permanent(format!(
            "reading the certificates to trust from {shown}: it has {length} bytes, more than {MAX_CA_FILE_BYTES}"
        )));
    }
    let pem = tokio::fs::read(file).await.map_err(unreadable)?;
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::permanent(format!("reading the certificates to trust from {shown}: {error}; it has to be a PEM file"))
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"there is no certificate in it")) } else { Ok(()) }
}

/// An error and what caused it, in one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let said = one.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = one.source();
    }
    text
}
