//! Where the broker is and how it is reached: URL, TLS, timeouts, and one connection attempt.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use schemars::JsonSchema;
use serde::Deserialize;
use sluicegate_engine::failure::Failure;

use super::refusal;
use crate::quantity::{Secret, Span};

/// Longest time a connection attempt may take, including TLS and the AMQP handshake, if not configured.
pub(super) const CONNECTION_TIMEOUT: Span = Span::secs(10);
/// Heartbeat interval, if not configured. A connection silent for twice as long counts as lost.
pub(super) const HEARTBEAT: Span = Span::secs(10);
/// Longest good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS settings of an `amqps://` connection. The webpki root certificates are trusted besides `ca_file`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of certificate authorities to trust besides the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate chain, for brokers that ask for one. Needs `key_file`.
    #[serde(default)]
    pub certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's private key (PKCS#8, PKCS#1 or SEC1), not encrypted.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// A broker's address with everything needed to connect to it. Shown without user and password.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: AMQPUri,
    tls: Option<TlsConfig>,
    base_dir: PathBuf,
    timeout: Duration,
    /// Shown by the broker's management tools.
    name: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} virtual host `{}`", self.uri.authority.host, self.uri.authority.port, self.uri.vhost)
    }
}

impl Endpoint {
    /// Resolves the settings; no I/O.
    ///
    /// # Errors
    /// Permanent, if the URL is no AMQP URL.
    pub fn new(
        url: &Secret,
        tls: Option<&TlsConfig>,
        heartbeat: Span,
        timeout: Span,
        base_dir: &Path,
        name: String,
    ) -> Result<Self, Failure> {
        let mut uri = parse_url(url).map_err(|why| Failure::permanent(format!("rabbitmq: {why}")))?;
        // Written in seconds on the wire; the URL's own parameter, if any, is the more specific wish.
        let seconds = u16::try_from(heartbeat.0.as_secs().max(1)).unwrap_or(u16::MAX);
        uri.query.heartbeat = uri.query.heartbeat.or(Some(seconds));
        let timeout = uri.query.connection_timeout.map_or(timeout.0, Duration::from_millis);
        Ok(Self { uri, tls: tls.cloned(), base_dir: base_dir.to_owned(), timeout, name })
    }

    /// The broker's host, port and virtual host, for logs.
    pub fn host_port(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// The virtual host.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// One attempt to connect, within the configured timeout.
    ///
    /// # Errors
    /// Permanent for wrong credentials, an unknown virtual host or unusable certificates; disconnected for the rest.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        let tls = self.tls().await?;
        let runtime = lapin::runtime::default_runtime()
            .map_err(|error| refusal::on_connect(&error, "starting the client", self))?;
        let properties = ConnectionProperties::default().with_connection_name(self.name.clone().into());
        let socket = Socket::default();
        let kept = socket.clone();
        // lapin itself waits without limit for a peer that accepts the connection and then says nothing, in a thread of
        // its own; the socket is kept here to end such a thread.
        let handshake = Connection::connector(
            self.uri.clone(),
            runtime,
            async move |uri: AMQPUri, runtime| {
                let AMQPAuthority { host, port, .. } = &uri.authority;
                let mut failed = std::io::Error::other("the host name has no address");
                for address in tokio::net::lookup_host((host.as_str(), *port)).await? {
                    match AsyncTcpStream::connect(&runtime, address).await {
                        Ok(stream) => {
                            if let AsyncTcpStream::Plain(tcp) = &stream {
                                kept.keep(tcp.get_ref())?;
                            }
                            return Ok(match uri.scheme {
                                AMQPScheme::AMQP => stream,
                                AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await?,
                            });
                        }
                        Err(error) => failed = error,
                    }
                }
                Err(failed.into())
            },
            properties,
        );
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(connection)) => {
                tracing::info!(
                    system = "rabbitmq",
                    server = self.host_port(),
                    vhost = self.vhost(),
                    tls = self.uri.scheme == AMQPScheme::AMQPS,
                    heartbeat_s = connection.configuration().heartbeat(),
                    "connected"
                );
                Ok(connection)
            }
            Ok(Err(error)) => Err(refusal::on_connect(&error, "connecting", self)),
            Err(_) => {
                socket.shut_down();
                Err(Failure::disconnected(format!(
                    "connecting to RabbitMQ at {self}: no answer within {:?}; check the address, the port (TLS is spoken \
                     on 5671 by default, plain AMQP on 5672) and the network, or raise `connection_timeout`",
                    self.timeout
                )))
            }
        }
    }

    /// `work` on a new connection, within the configured timeout.
    ///
    /// # Errors
    /// Disconnected when time is up.
    pub async fn within_timeout<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::disconnected(format!(
                "{doing}, RabbitMQ at {self}: no answer within {:?}; the broker is overloaded or the connection is stuck; \
                 raise `connection_timeout` if that is normal here",
                self.timeout
            ))),
        }
    }

    async fn tls(&self) -> Result<OwnedTLSConfig, Failure> {
        let mut loaded = OwnedTLSConfig::default();
        let Some(tls) = &self.tls else { return Ok(loaded) };
        if let Some(file) = &tls.ca_file {
            let pem = self.read(file, "ca_file").await?;
            let pem = String::from_utf8(pem).map_err(|_| {
                Failure::permanent(format!(
                    "reading `ca_file` {}: it is not PEM text; convert it with openssl x509",
                    file.display()
                ))
            })?;
            loaded.cert_chain = Some(pem);
        }
        if let (Some(certificate), Some(key)) = (&tls.certificate_file, &tls.key_file) {
            let pem = self.read(certificate, "certificate_file").await?;
            let key = self.read(key, "key_file").await?;
            loaded.identity = Some(OwnedIdentity::PKCS8 { pem, key });
        }
        Ok(loaded)
    }

    async fn read(&self, file: &Path, setting: &str) -> Result<Vec<u8>, Failure> {
        let path = self.base_dir.join(file);
        tokio::fs::read(&path).await.map_err(|error| {
            Failure::permanent(format!(
                "reading the TLS file `{setting}` {}: {error}; check the path (relative to the configuration file) and \
                 its permissions",
                path.display()
            ))
        })
    }
}

/// Says good-bye to the broker, within a few seconds.
///
/// # Errors
/// Disconnected, if the broker did not answer; nothing unacknowledged is lost by that.
pub(super) async fn close(connection: &Connection, endpoint: &Endpoint) -> Result<(), Failure> {
    if !connection.status().connected() {
        return Ok(());
    }
    match tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refusal::lost(&error, "closing the connection", endpoint)),
        Err(_) => Err(Failure::disconnected(format!(
            "closing the connection to RabbitMQ at {endpoint}: no answer within {CLOSE_TIMEOUT:?}"
        ))),
    }
}

/// Reads an AMQP URL: `amqp://user:password@host:5672/vhost`. Without a path, or with an empty one, the virtual host is
/// `/`: no broker is used with one of an empty name, and a trailing slash is a common slip.
///
/// # Errors
/// What is wrong, without showing the URL, which may hold a password.
pub(super) fn parse_url(url: &Secret) -> Result<AMQPUri, String> {
    let text = url.expose();
    let mut uri: AMQPUri = text.parse().map_err(|why: String| {
        // Some of the parser's errors repeat the URL.
        let why = if why.contains(text) { "it has no host" } else { &why };
        format!("the url is not an AMQP URL such as amqp://user:password@host:5672/vhost: {why}")
    })?;
    if uri.vhost.is_empty() {
        "/".clone_into(&mut uri.vhost);
    }
    if uri.vhost.len() > lapin::types::MAX_SHORT_STRING_LENGTH {
        return Err("the url's virtual host is longer than 255 bytes".to_owned());
    }
    // The parser knows no IPv6 addresses and would silently fall back to localhost.
    let authority = text.split_once("://").map_or("", |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
        address.clone_into(&mut uri.authority.host);
    }
    Ok(uri)
}

/// A second handle on the socket of a connection attempt.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Socket {
    #[cfg(unix)]
    fn keep(&self, tcp: &tokio::net::TcpStream) -> std::io::Result<()> {
        let second = std::os::fd::AsFd::as_fd(tcp).try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(second.into());
        Ok(())
    }

    #[cfg(windows)]
    fn keep(&self, tcp: &tokio::net::TcpStream) -> std::io::Result<()> {
        let second = std::os::windows::io::AsSocket::as_socket(tcp).try_clone_to_owned()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(second.into());
        Ok(())
    }

    fn shut_down(&self) {
        if let Some(tcp) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(error) = tcp.shutdown(std::net::Shutdown::Both)
        {
            tracing::debug!(%error, "the socket of a timed out connection attempt was closed already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> AMQPUri {
        parse_url(&Secret::new(url)).expect("an AMQP URL")
    }

    #[test]
    fn urls_are_read_with_their_defaults() {
        assert_eq!(parsed("amqp://localhost").vhost, "/");
        assert_eq!(parsed("amqp://localhost/").vhost, "/");
        assert_eq!(parsed("amqp://localhost/%2f").vhost, "/");
        assert_eq!(parsed("amqp://localhost/orders").vhost, "orders");
        assert_eq!(parsed("amqps://u:p@mq.example").authority.port, 5671);
    }

    #[test]
    fn an_ipv6_address_is_kept() {
        let uri = parsed("amqp://user:p%40ss@[::1]:5673/v");
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("::1", 5673));
        assert_eq!(uri.authority.userinfo.password, "p@ss");
    }

    #[test]
    fn a_bad_url_is_refused_without_being_shown() {
        for url in ["http://u:hunter2@host", "hunter2", "", "amqp:hunter2", "amqp://u:hunter2@host:99999"] {
            let why = parse_url(&Secret::new(url)).expect_err(url);
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn an_endpoint_never_shows_its_credentials() {
        let endpoint = Endpoint::new(
            &Secret::new("amqp://user:hunter2@mq.example/v"),
            None,
            HEARTBEAT,
            CONNECTION_TIMEOUT,
            Path::new("."),
            "test".to_owned(),
        )
        .expect("an endpoint");
        assert_eq!(endpoint.to_string(), "mq.example:5672 virtual host `v`");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_costs_one_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let endpoint = Endpoint::new(
            &Secret::new(format!("amqp://127.0.0.1:{port}")),
            None,
            HEARTBEAT,
            Span::millis(200),
            Path::new("."),
            "test".to_owned(),
        )
        .expect("an endpoint");
        let (failure, accepted) = tokio::join!(endpoint.connect(), listener.accept());
        let failure = failure.expect_err("nobody answers");
        assert_eq!(failure.kind, sluicegate_engine::failure::FailureKind::Disconnected);
        assert!(failure.text.contains("200ms"), "{failure}");
        // The client hung up, so its thread has ended: after the protocol header, the end of the stream.
        let mut received = Vec::new();
        let (mut peer, _) = accepted.expect("a connection");
        tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut received).await.expect("an end");
        assert!(received.starts_with(b"AMQP"), "{received:?}");
    }
}
