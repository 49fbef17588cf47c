//! The state of a connection, as health checks and metrics see it, and the one way connections are made.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::failure::{Failure, FailureKind};
use crate::source::{Connection, Source};
use crate::target::{Outlet, Target};

/// Longest a single connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const FIRST_RECONNECT_DELAY: Duration = Duration::from_millis(100);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(5);

/// Which end of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The source.
    Source,
    /// A target.
    Target,
}

/// What a link is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Not connected; why, once a connect has failed.
    Connecting(Option<String>),
    /// Connected.
    Connected,
    /// Ended on purpose.
    Stopped,
}

/// A view of one connection of a pipeline.
#[derive(Debug, Clone)]
pub struct Link {
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// `source`, or the target's name.
    pub name: Arc<str>,
    /// The system, such as `rabbitmq`.
    pub system: &'static str,
    /// Which end it is.
    pub end: End,
    /// Its state, to look at or to wait on.
    pub state: watch::Receiver<LinkState>,
    /// Since when it has not been connected; meaningless while it is.
    down_since: Arc<Mutex<Instant>>,
}

impl Link {
    /// Whether it is connected now.
    pub fn connected(&self) -> bool {
        *self.state.borrow() == LinkState::Connected
    }

    /// For how long it has not been connected; `None` while it is, or once it has ended on purpose.
    pub fn down_for(&self) -> Option<Duration> {
        let connecting = matches!(*self.state.borrow(), LinkState::Connecting(_));
        connecting.then(|| self.down_since.lock().unwrap_or_else(PoisonError::into_inner).elapsed())
    }
}

/// What both ends of a pipeline have in common: they connect.
#[async_trait]
pub(crate) trait Connect: Send {
    type Connection: Send;

    async fn open(&mut self) -> Result<Self::Connection, Failure>;
}

#[async_trait]
impl Connect for Box<dyn Source + '_> {
    type Connection = Connection;

    async fn open(&mut self) -> Result<Connection, Failure> {
        self.connect().await
    }
}

#[async_trait]
impl Connect for Box<dyn Target + '_> {
    type Connection = Arc<dyn Outlet>;

    async fn open(&mut self) -> Result<Arc<dyn Outlet>, Failure> {
        self.connect().await
    }
}

/// The writing half of a [`Link`], kept by its driver.
pub(crate) struct LinkOwner {
    link: Link,
    state: watch::Sender<LinkState>,
    gauge: metrics::Gauge,
}

impl LinkOwner {
    pub fn new(pipeline: &Arc<str>, name: &Arc<str>, system: &'static str, end: End) -> Self {
        let (state, seen) = watch::channel(LinkState::Connecting(None));
        let gauge = metrics::gauge!("mq_connection_status",
            "pipeline" => pipeline.to_string(), "link" => name.to_string(), "system" => system);
        // Shows the link; counted up and down, since a predecessor under the same name may still drain.
        gauge.increment(0.0);
        let link = Link {
            pipeline: Arc::clone(pipeline),
            name: Arc::clone(name),
            system,
            end,
            state: seen,
            down_since: Arc::new(Mutex::new(Instant::now())),
        };
        Self { link, state, gauge }
    }

    pub fn link(&self) -> Link {
        self.link.clone()
    }

    pub fn set(&self, state: LinkState) {
        let connects = state == LinkState::Connected;
        let was_connected = self.state.send_replace(state) == LinkState::Connected;
        match (was_connected, connects) {
            (false, true) => self.gauge.increment(1.0),
            (true, false) => {
                self.gauge.decrement(1.0);
                *self.link.down_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Connects, waiting longer after each failure (up to 5 s) until it succeeds; `None` once stopped.
    ///
    /// `first_delay` is waited before the first try: after a connection that broke at once, so that a peer which accepts
    /// and then hangs up is not hammered.
    pub async fn connect<E: Connect>(
        &self,
        end: &mut E,
        stop: &CancellationToken,
        first_delay: Duration,
    ) -> Option<E::Connection> {
        let Link { pipeline, name, system, .. } = &self.link;
        let mut ceiling = FIRST_RECONNECT_DELAY;
        let mut delay = first_delay;
        for attempt in 1_u64.. {
            let tried = tokio::select! {
                () = stop.cancelled() => return None,
                tried = async { sleep(delay).await; timeout(CONNECT_TIMEOUT, end.open()).await } => tried,
            };
            let failure = match tried {
                Ok(Ok(connection)) => {
                    info!(pipeline = %pipeline, link = %name, system, attempt, "connected");
                    self.set(LinkState::Connected);
                    return Some(connection);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::disconnected(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
            };
            delay = ceiling.mul_f64(0.5 + fastrand::f64() / 2.0);
            ceiling = (ceiling * 2).min(MAX_RECONNECT_DELAY);
            let delay_ms = delay.as_millis() as u64;
            if failure.kind == FailureKind::Permanent {
                error!(pipeline = %pipeline, link = %name, system, attempt, delay_ms, error = %failure,
                    "cannot connect, and trying again will not help until this is changed; trying again all the same");
            } else {
                warn!(pipeline = %pipeline, link = %name, system, attempt, delay_ms, error = %failure, "cannot connect; trying again");
            }
            self.set(LinkState::Connecting(Some(failure.text)));
        }
        None
    }
}

impl Drop for LinkOwner {
    fn drop(&mut self) {
        self.set(if std::thread::panicking() {
            LinkState::Connecting(Some("its driver panicked, which is a defect; restart the gateway".to_owned()))
        } else {
            LinkState::Stopped
        });
    }
}
