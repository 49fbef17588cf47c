//! TLS to PostgreSQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::StoreError;

pub(super) type Connector = MakeRustlsConnect;

/// What the URL asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No TLS.
    Plain,
    /// TLS with the certificate and its name checked.
    Verified {
        /// Trust only these.
        root_file: Option<PathBuf>,
    },
}

/// Takes `sslmode` and `sslrootcert` from the URL: the driver does not know all of their values.
pub(super) fn split_off(url: &str) -> Result<(String, Wanted), StoreError> {
    let refused = |cause: &str| StoreError::Url { cause: cause.to_owned() };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(refused("it does not begin with postgres://"));
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut is_wanted, mut root_file) = (false, None);
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", "disable" | "allow" | "prefer")) => is_wanted = false,
            Some(("sslmode", "require" | "verify-ca" | "verify-full")) => is_wanted = true,
            Some(("sslmode", _)) => {
                return Err(refused("its sslmode is none of disable, prefer, require, verify-ca, verify-full"));
            }
            Some(("sslrootcert", file)) => {
                root_file = Some(PathBuf::from(decoded(file).ok_or_else(|| refused("its sslrootcert is not a path"))?));
            }
            Some(_) | None => rest.push(pair),
        }
    }
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    match (is_wanted, root_file) {
        (true, root_file) => Ok((url, Wanted::Verified { root_file })),
        (false, None) => Ok((url, Wanted::Plain)),
        (false, Some(_)) => Err(refused("it names an sslrootcert without sslmode=verify-full")),
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Checks servers against the roots of `root_file`, or those the web trusts. Blocks.
pub(super) fn connector(root_file: Option<&Path>) -> Result<Connector, StoreError> {
    let refused = |cause: String| StoreError::Url { cause };
    let mut roots = RootCertStore::empty();
    match root_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let shown = file.display();
            let unusable = |error: &dyn std::fmt::Display| refused(format!("its sslrootcert {shown}: {error}"));
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"no certificate in it"));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(format!("TLS cannot be had: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_used_where_it_is_asked_for() {
        let plain = |url: &str| Ok((url.to_owned(), Wanted::Plain));
        assert_eq!(split_off("postgres://h/d"), plain("postgres://h/d"));
        assert_eq!(
            split_off("postgres://h/d?sslmode=prefer&connect_timeout=3"),
            plain("postgres://h/d?connect_timeout=3")
        );
        assert_eq!(
            split_off("postgres://h/d?sslmode=require"),
            Ok(("postgres://h/d".to_owned(), Wanted::Verified { root_file: None }))
        );
        assert_eq!(
            split_off("postgresql://h/d?sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-full"),
            Ok(("postgresql://h/d".to_owned(), Wanted::Verified { root_file: Some("/etc/ca.pem".into()) }))
        );
        for wrong in ["postgres://h/d?sslmode=maybe", "postgres://h/d?sslrootcert=/ca.pem", "host=h"] {
            assert!(matches!(split_off(wrong), Err(StoreError::Url { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_root_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let refused = connector(Some(file.path())).err().expect("refused");
        assert!(refused.to_string().contains("no certificate in it"), "{refused}");
        let missing = connector(Some(Path::new("/no/such/file"))).err().expect("refused");
        assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    }
}
