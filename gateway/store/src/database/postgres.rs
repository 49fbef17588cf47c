//! PostgreSQL: connections, statements and values.

mod failures;

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};

use self::failures::{failed, unanswered};
use super::tls;
use super::value::{Row, Value};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::place::{DatabaseUrl, Place};
use crate::signals::Signals;
use crate::vault::Vault;

/// The channel on which gateways tell each other which topics have news.
pub(crate) const CHANNEL: &str = "sluicegate";

/// How long connecting may take, for each address of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that does not answer a single statement for so long is taken for gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What was sent and not received for so long ends the connection; so does silence after which nobody answers.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Prepared statements a connection keeps.
const CACHED_STATEMENTS: usize = 256;

/// How to connect.
#[derive(Clone)]
pub(crate) struct Postgres {
    pub place: Place,
    pub vault: Arc<Vault>,
    pub clock: Clock,
    config: Box<Config>,
    tls: Option<tls::Connector>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Reads the URL, and the file of root certificates it names. Does not connect. Blocks.
    pub fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let (url, wanted) = tls::split_off(url.expose())?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            // The parser's words name options, never their values.
            StoreError::Url { cause: error.source().map_or_else(|| error.to_string(), ToString::to_string) }
        })?;
        if config.get_hosts().is_empty() {
            return Err(StoreError::Url { cause: "it names no host".to_owned() });
        }
        let tls = match wanted {
            tls::Wanted::Plain => {
                config.ssl_mode(SslMode::Disable);
                None
            }
            tls::Wanted::Verified { root_file } => {
                config.ssl_mode(SslMode::Require);
                Some(tls::connector(root_file.as_deref())?)
            }
        };
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(SILENCE_TIMEOUT).keepalives_idle(SILENCE_TIMEOUT);
        config.keepalives_interval(Duration::from_secs(3)).keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("sluicegate");
        }
        let place = Place::Server(name(&config).into());
        let vault = Arc::new(Vault::new(place.clone(), None));
        Ok(Self { place, vault, clock: Clock::default(), config: Box::new(config), tls })
    }

    /// Connects. What other sessions announce goes to `listener`.
    pub async fn connect(&self, listener: Option<Arc<Signals>>) -> Result<PostgresConnection, StoreError> {
        let doing = "connect";
        let connecting = async {
            match &self.tls {
                None => {
                    let (client, driver) = self.config.connect(NoTls).await?;
                    Ok((client, tokio::spawn(drive(driver, listener))))
                }
                Some(tls) => {
                    let (client, driver) = self.config.connect(tls.clone()).await?;
                    Ok((client, tokio::spawn(drive(driver, listener))))
                }
            }
        };
        let (client, driver) = match tokio::time::timeout(ANSWER_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| failed(&self.place, doing, &error))?,
            Err(_) => return Err(unanswered(&self.place, doing)),
        };
        let mut connection = PostgresConnection {
            client,
            driver,
            statements: HashMap::new(),
            place: self.place.clone(),
            vault: Arc::clone(&self.vault),
            clock: self.clock.clone(),
            doing,
        };
        // A commit that is answered is on the disk, whatever the server's default. Stricter settings stay.
        connection
            .batch(
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'",
            )
            .await?;
        Ok(connection)
    }
}

/// Without user and password.
fn name(config: &Config) -> String {
    use tokio_postgres::config::Host;

    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let ports = config.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
            Host::Tcp(name) => format!("{name}:{port}"),
            #[cfg(unix)]
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    });
    let hosts: Vec<String> = hosts.collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or("postgres");
    format!("postgres://{}/{database}", hosts.join(","))
}

/// Carries the connection's bytes until it ends, and notices to `listener`.
async fn drive<S, T>(mut driver: tokio_postgres::Connection<S, T>, listener: Option<Arc<Signals>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| driver.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(signals) = listener.as_ref().filter(|_| notification.channel() == CHANNEL) {
                    signals.bump(&unescape(notification.payload()));
                }
            }
            Ok(AsyncMessage::Notice(notice)) => tracing::debug!(notice = notice.message(), "PostgreSQL says"),
            // A message of a kind this program does not know is none it has asked for.
            Ok(_) => {}
            // Whoever waits for an answer on this connection is told.
            Err(error) => {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
                break;
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct PostgresConnection {
    client: Client,
    driver: JoinHandle<()>,
    statements: HashMap<String, Statement>,
    place: Place,
    vault: Arc<Vault>,
    clock: Clock,
    pub doing: &'static str,
}

impl PostgresConnection {
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub async fn execute(&mut self, sql: &str, arguments: &[Value]) -> Result<u64, StoreError> {
        let statement = self.statement(sql).await?;
        self.answer(self.client.execute_raw(&statement, arguments)).await
    }

    pub async fn query(&mut self, sql: &str, arguments: &[Value]) -> Result<Vec<Row>, StoreError> {
        let statement = self.statement(sql).await?;
        let arguments: Vec<&(dyn ToSql + Sync)> = arguments.iter().map(|value| value as _).collect();
        let found = self.answer(self.client.query(&statement, &arguments)).await?;
        let own = |row: tokio_postgres::Row| {
            let values = (0..row.len()).map(|column| row.try_get::<_, Value>(column)).collect::<Result<_, _>>();
            match values {
                Ok(values) => {
                    Ok(Row { values, place: self.place.clone(), doing: self.doing, vault: Arc::clone(&self.vault) })
                }
                Err(error) => Err(failed(&self.place, self.doing, &error)),
            }
        };
        found.into_iter().map(own).collect()
    }

    pub async fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.answer(self.client.batch_execute(sql)).await
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits until the connection has ended, whoever ends it.
    pub async fn ended(&mut self) {
        if let Err(error) = (&mut self.driver).await {
            tracing::error!(%error, "a connection to PostgreSQL failed");
        }
    }

    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        // Without a client the driver says goodbye and ends.
        drop(client);
        if tokio::time::timeout(CLOSE_TIMEOUT, &mut driver).await.is_err() {
            driver.abort();
        }
    }

    async fn statement(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.answer(self.client.prepare(sql)).await?;
        if self.statements.len() >= CACHED_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    async fn answer<T>(&self, asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(answered) => answered.map_err(|error| failed(&self.place, self.doing, &error)),
            Err(_) => Err(unanswered(&self.place, self.doing)),
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (self, ty) {
            (Self::Null, _) => Ok(IsNull::Yes),
            (Self::Integer(number), &Type::INT8) => number.to_sql(ty, out),
            (Self::Integer(number), &Type::INT4) => i32::try_from(*number)?.to_sql(ty, out),
            (Self::Integer(number), &Type::INT2) => i16::try_from(*number)?.to_sql(ty, out),
            (Self::Text(text), ty) if <&str as ToSql>::accepts(ty) => escape(text).as_ref().to_sql(ty, out),
            (Self::Bytes(bytes), &Type::BYTEA) => bytes.as_ref().to_sql(ty, out),
            (Self::Integer(_) | Self::Text(_) | Self::Bytes(_), ty) => {
                Err(format!("a value does not fit the statement's type {ty}; add a CAST").into())
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        match *ty {
            Type::INT8 => i64::from_sql(ty, raw).map(Self::Integer),
            Type::INT4 => i32::from_sql(ty, raw).map(|number| Self::Integer(number.into())),
            Type::INT2 => i16::from_sql(ty, raw).map(|number| Self::Integer(number.into())),
            Type::BOOL => bool::from_sql(ty, raw).map(Self::from),
            Type::BYTEA => Ok(Self::Bytes(Bytes::copy_from_slice(raw))),
            _ if <&str as FromSql<'_>>::accepts(ty) => {
                <&str>::from_sql(ty, raw).map(|text| Self::Text(unescape(text).into_owned()))
            }
            Type::VOID => Ok(Self::Null),
            _ => Err(format!("a column has the type {ty}; add a CAST").into()),
        }
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// PostgreSQL's text has no NUL, and headers, ids and errors come from outside. So NUL is written as DLE 0, and DLE, a
/// control character as rare, twice. Equal texts stay equal.
const DLE: char = '\u{10}';

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', DLE]) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(DLE, "\u{10}\u{10}").replace('\0', "\u{10}0"))
}

fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(DLE) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            DLE => match characters.next() {
                Some('0') => '\0',
                // Twice; or text cut in the middle by `substr`.
                Some(_) | None => DLE,
            },
            other => other,
        });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_can_be_kept(text in "[\\x00\\x10\\x300a-cä]{0,12}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains('\0'));
            prop_assert_eq!(unescape(&escaped), text.as_str());
        }
    }

    #[test]
    fn the_place_tells_no_secret() {
        let place = |url: &str| Postgres::new(&DatabaseUrl::new(url)).map(|postgres| postgres.place.to_string());
        assert_eq!(place("postgres://u:secret@db.local/gate").as_deref(), Ok("postgres://db.local:5432/gate"));
        assert_eq!(place("postgres://u:secret@a:1,b:2/gate").as_deref(), Ok("postgres://a:1,b:2/gate"));
        for wrong in ["postgres://u:secret@h/db?secret=1", "postgres://u:secret@h:port/db", "u:secret@h", ""] {
            let error = place(wrong).expect_err("not a URL");
            assert!(matches!(error, StoreError::Url { .. }), "{error:?}");
            assert!(!error.to_string().contains("u:secret"), "{error}");
        }
        let shown = format!("{:?}", DatabaseUrl::new("postgres://u:secret@h/db"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
