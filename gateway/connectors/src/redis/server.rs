//! One Redis server: how to reach it, and what its errors ask of the engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisError, TlsCertificates,
};
use sluicegate_engine::failure::Failure;

use super::config::Tls;
use crate::quantity::Secret;

/// How to reach a server, and how it is called in logs and failures.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// What is wrong with the settings, if they cannot be used at all.
    info: Result<ConnectionInfo, String>,
    tls: Option<Tls>,
    /// Relative paths of certificates start here.
    base_dir: PathBuf,
    /// Deadline of connecting and of every command.
    pub(super) timeout: Duration,
    /// Host, port and database, never user or password.
    pub(super) place: String,
}

/// Reads a URL. The error never repeats the URL, which may hold a password.
pub(super) fn parse_url(url: &Secret) -> Result<ConnectionInfo, String> {
    if url.expose().ends_with("#insecure") {
        return Err(
            "`url` ends with #insecure, which would skip the check of certificates and is not supported; name \
                    the authority in `tls.ca_file`"
                .to_owned(),
        );
    }
    let info = url.expose().into_connection_info().map_err(|error| {
        // The detail may quote a part of the URL, so only the kind of mistake is told.
        format!("`url` cannot be used: {}", mistake(&error))
    })?;
    Ok(info)
}

fn mistake(error: &RedisError) -> String {
    error.to_string().split(" - ").next().unwrap_or("it is not a URL of Redis").to_owned()
}

/// Whether the connection is encrypted.
pub(super) fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

impl Server {
    /// From the settings that sources and targets share.
    pub(super) fn new(
        url: &Secret,
        username: Option<&Secret>,
        password: Option<&Secret>,
        tls: Option<&Tls>,
        timeout: Duration,
        base_dir: &Path,
    ) -> Self {
        let info = parse_url(url).map(|info| {
            let mut settings = info.redis_settings().clone();
            if let Some(username) = username {
                settings = settings.set_username(username.expose());
            }
            if let Some(password) = password {
                settings = settings.set_password(password.expose());
            }
            let tcp = TcpSettings::default().set_nodelay(true);
            info.set_redis_settings(settings).set_tcp_settings(tcp)
        });
        let place = match &info {
            Ok(info) => format!("Redis at {}, database {}", info.addr(), info.redis_settings().db()),
            Err(_) => "Redis".to_owned(),
        };
        Self { info, tls: tls.cloned(), base_dir: base_dir.to_owned(), timeout, place }
    }

    /// A new connection whose commands fail after [`timeout`](Self::timeout) and `longest_wait`, the time for which a
    /// command blocks on the server. A connection that is half open is noticed by that.
    pub(super) async fn connect(&self, longest_wait: Duration) -> Result<MultiplexedConnection, Failure> {
        let client = self.client().await?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout + longest_wait));
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| self.connect_failure(&error))
    }

    async fn client(&self) -> Result<Client, Failure> {
        let info = self.info.clone().map_err(Failure::permanent)?;
        if !is_tls(&info) {
            return Client::open(info).map_err(|error| self.failure("preparing the connection", &error));
        }
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Fails only if another connector was faster, which is as good.
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        let certificates = self.certificates().await?;
        Client::build_with_tls(info, certificates).map_err(|error| {
            Failure::permanent(format!(
                "preparing TLS ({}): {error}; the files of `tls` must hold certificates and a key as PEM",
                self.place
            ))
        })
    }

    fn connect_failure(&self, error: &RedisError) -> Failure {
        let text = error.to_string();
        if error.is_io_error() && text.contains("certificate") {
            return Failure::permanent(format!(
                "connecting ({}): {text}; `tls.ca_file` names the authority to trust, `tls.cert_file` and `tls.key_file` \
                 this client's certificate",
                self.place
            ));
        }
        self.failure("connecting", error)
    }

    async fn certificates(&self) -> Result<TlsCertificates, Failure> {
        let Some(tls) = &self.tls else { return Ok(TlsCertificates { client_tls: None, root_cert: None }) };
        let root_cert = match &tls.ca_file {
            Some(path) => Some(self.read(path).await?),
            None => None,
        };
        let client_tls = match (&tls.cert_file, &tls.key_file) {
            (Some(cert), Some(key)) => {
                Some(ClientTlsConfig { client_cert: self.read(cert).await?, client_key: self.read(key).await? })
            }
            _ => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }

    async fn read(&self, path: &Path) -> Result<Vec<u8>, Failure> {
        let path = self.base_dir.join(path);
        tokio::fs::read(&path).await.map_err(|error| {
            Failure::permanent(format!(
                "reading {} for the TLS connection to {}: {error}; check `tls` and the file's permissions",
                path.display(),
                self.place
            ))
        })
    }

    /// The failure an error asks for. `doing` is what was being done, to what.
    pub(super) fn failure(&self, doing: &str, error: &RedisError) -> Failure {
        let text = |what: &str, advice: &str| format!("{doing} ({}): {what}; {advice}", self.place);
        if error.kind() == ErrorKind::AuthenticationFailed {
            let advice = "check `username` and `password`, or the user's rights on the server";
            return Failure::permanent(text("Redis refused the user or password", advice));
        }
        match error.code() {
            Some(code) => {
                let what = format!("{code} {}", error.detail().unwrap_or_default());
                sort_answer(code, |advice| text(&what, advice))
            }
            None => match error.kind() {
                ErrorKind::InvalidClientConfig | ErrorKind::Client => {
                    Failure::permanent(text(&error.to_string(), "check the connector's settings"))
                }
                // An I/O error, a deadline or an answer that makes no sense: only a new connection can help.
                _ if error.is_timeout() => Failure::disconnected(text(
                    &format!("no answer within {:?}", self.timeout),
                    "the server hangs or the connection is half open; it is opened anew",
                )),
                _ => {
                    Failure::disconnected(text(&error.to_string(), "the connection is opened anew; is the server up?"))
                }
            },
        }
    }
}

/// Sorts an error answer of the server by its code.
fn sort_answer(code: &str, text: impl Fn(&str) -> String) -> Failure {
    match code {
        "NOAUTH" | "WRONGPASS" => Failure::permanent(text("check `username` and `password`")),
        "NOPERM" => Failure::permanent(text("give the user the right to this command and key (ACL SETUSER)")),
        "WRONGTYPE" => {
            Failure::permanent(text("the key holds something else than a stream: use another name, or delete the key"))
        }
        "MOVED" | "ASK" | "CROSSSLOT" => {
            Failure::permanent(text("Redis Cluster redirects are not followed: name the node that holds the key"))
        }
        "NOGROUP" | "UNBLOCKED" => {
            Failure::disconnected(text("the stream or group was deleted while in use; it is created again"))
        }
        "OOM" => Failure::transient(text("Redis is out of memory: raise maxmemory or trim streams")),
        "LOADING" => Failure::transient(text("Redis is still loading its data")),
        "READONLY" => Failure::transient(text("the server is a replica: name the primary, or wait for the failover")),
        "MISCONF" => Failure::transient(text("Redis cannot write to its disk and refuses changes: look at its log")),
        // CLUSTERDOWN, MASTERDOWN, TRYAGAIN, BUSY, NOREPLICAS and whatever is not known: nothing is lost by trying again.
        _ => Failure::transient(text("trying again may help; if not, look at the server's log")),
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::failure::FailureKind;

    use super::*;

    fn server(url: &str) -> Server {
        Server::new(&Secret::new(url), None, None, None, Duration::from_secs(1), Path::new("/"))
    }

    fn kind_of(code: &str) -> FailureKind {
        sort_answer(code, str::to_owned).kind
    }

    #[test]
    fn answers_are_sorted_by_what_they_ask_for() {
        for code in ["OOM", "LOADING", "READONLY", "CLUSTERDOWN", "MISCONF", "BUSY", "ERR"] {
            assert_eq!(kind_of(code), FailureKind::Transient { retry_after: None }, "{code}");
        }
        for code in ["NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE", "MOVED"] {
            assert_eq!(kind_of(code), FailureKind::Permanent, "{code}");
        }
        assert_eq!(kind_of("NOGROUP"), FailureKind::Disconnected);
        let reset = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(server("redis://h").failure("reading", &reset).kind, FailureKind::Disconnected);
        let timeout = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(server("redis://h").failure("reading", &timeout).kind, FailureKind::Disconnected);
    }

    #[test]
    fn a_place_names_host_and_database_but_no_user_or_password() {
        let place = server("redis://user:hunter2@example.com:7000/3").place;
        assert_eq!(place, "Redis at example.com:7000, database 3");
    }

    #[tokio::test]
    async fn settings_that_cannot_be_used_fail_for_good() {
        let failure = server("redis://:hunter2@host/x").connect(Duration::ZERO).await.expect_err("a failure");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(!failure.text.contains("hunter2"), "{}", failure.text);
        let mut server = server("rediss://localhost:1");
        server.tls = Some(Tls { ca_file: Some("no-such.pem".into()), cert_file: None, key_file: None });
        let failure = server.connect(Duration::ZERO).await.expect_err("a failure");
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(failure.text.contains("/no-such.pem"), "{}", failure.text);
    }
}
