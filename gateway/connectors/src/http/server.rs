//! The gateway's HTTP/1.1 server: connections with time limits, of a limited number, ended gracefully.
//!
//! TLS and HTTP/2 are for the proxy before it. One connection carries one request at a time, so whatever a slow client
//! does, it holds that connection and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::problem::{ProblemCode, ProblemDetails};
use super::stall::StallGuard;

/// Connections above the limit that are told so (503) at the same time; any above these are closed without a word.
const MAX_REFUSALS: usize = 64;

/// How long to wait after the system has refused to accept a connection, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one server takes and for how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections open at the same time; one more is answered 503 and closed.
    pub max_connections: usize,
    /// Time for all headers of a request. The wait for the next request on a kept connection counts as well, so it is
    /// the longest time a connection stays idle. A connection that is late is closed without an answer.
    pub header_read: Duration,
    /// Time for a whole body, from the end of its headers; a body that is late fails with [`BodyReadTimeout`].
    pub body_read: Duration,
    /// Time in which a client must take at least something of an answer.
    pub write_stall: Duration,
    /// Headers of a request; more are answered 431.
    pub max_headers: usize,
    /// Request line and headers together; more are answered 431. At least 8,192.
    pub max_header_buffer_bytes: usize,
    /// Time that requests in progress get to finish at shutdown.
    pub shutdown_grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            header_read: Duration::from_secs(10),
            body_read: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            max_headers: 128,
            max_header_buffer_bytes: 64 << 10,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Where a request's connection comes from, among the request's extensions. A proxy in between is what is seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);

/// A body that was not complete in time, as the cause of the body's error.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was not complete {limit:?} after its headers")]
pub struct BodyReadTimeout {
    /// The time it was given.
    pub limit: Duration,
}

/// Serves `app` until `shutdown` is done, then lets requests in progress finish within `limits.shutdown_grace`.
///
/// Cancel safe: dropped, it closes its connections at once.
///
/// # Errors
/// None today: failures to accept are logged and tried again.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let server = Server {
        places: Arc::new(Semaphore::new(limits.max_connections)),
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        refusing: Router::new().fallback(refuse_connection),
        app,
        limits,
    };
    let (stop, stopping) = watch::channel(false);
    // The owner of every connection: reaped as they end, awaited at shutdown, aborted when dropped.
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some((app, place)) = server.admit() {
                        let peer = PeerAddress(peer.ip().to_canonical());
                        connections.spawn(connection(stream, peer, app, server.limits.clone(), stopping.clone(), place));
                    }
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(server.limits.shutdown_grace, finish).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "HTTP requests were still in progress {:?} after the shutdown began; their connections are closed",
            server.limits.shutdown_grace
        );
        connections.shutdown().await;
    }
    Ok(())
}

struct Server {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    refusing: Router,
    app: Router,
    limits: ServerLimits,
}

impl Server {
    /// What a new connection is served with; `None` if it is to be closed.
    fn admit(&self) -> Option<(Router, OwnedSemaphorePermit)> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some((self.app.clone(), place));
        }
        metrics::counter!("sluicegate_http_connections_refused_total").increment(1);
        let place = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some((self.refusing.clone(), place))
    }
}

async fn refuse_connection() -> Response {
    ProblemDetails::new(ProblemCode::Overloaded, "the gateway has as many connections as it may; try again in a moment")
        .with_retry_after(1)
        .closing()
        .into_response()
}

async fn pause_after(error: &io::Error) {
    let by_the_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !by_the_client {
        tracing::warn!(%error, "accepting an HTTP connection failed; trying again in {ACCEPT_PAUSE:?} (is the limit of open files reached?)");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "serving an HTTP connection panicked; this is a bug of the gateway, only that connection was lost");
    }
}

async fn connection(
    stream: TcpStream,
    peer: PeerAddress,
    app: Router,
    limits: ServerLimits,
    mut stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed; answers may be delayed a little");
    }
    let app = TowerToHyperService::new(app);
    let body_read = limits.body_read;
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(|body| Body::new(TimedBody::new(body, body_read)));
        request.extensions_mut().insert(peer);
        let answer = app.call(request);
        async move { Ok::<_, Infallible>(answer.await.into_response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_header_buffer_bytes.max(8_192))
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.write_stall)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // An error means that the server is gone, which is a reason to stop as well.
        () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// A request's body that fails with [`BodyReadTimeout`] when it is late.
struct TimedBody {
    body: Incoming,
    limit: Duration,
    due: Instant,
    /// Made when the body first has to be waited for: most bodies come with their headers.
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, due: Instant::now() + limit, timer: None }
    }
}

impl hyper::body::Body for TimedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
        }
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyReadTimeout { limit: self.limit }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
