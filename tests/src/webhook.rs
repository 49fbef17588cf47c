//! An HTTP server that keeps what is sent to it: the other side of the webhook target. Its answers are scripted, and it
//! can be killed and started again on the same port.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::port::Port;

/// A request that was there to its end.
#[derive(Debug, Clone)]
pub struct Received {
    /// With its query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// What it was answered, or is to be.
    pub status: StatusCode,
    /// Whether the answer was given: not while answers are held, and never to a client that went away meanwhile.
    pub answered: bool,
    /// When its body was complete.
    pub at: SystemTime,
}

impl Received {
    /// Whether the sender was told that it was taken.
    pub fn is_delivered(&self) -> bool {
        self.answered && self.status.is_success()
    }
}

/// An answer: its status, and seconds of `Retry-After`.
pub type Scripted = (u16, Option<u32>);

/// What becomes of a request by its body and by how often that body has come before.
type Rule = Arc<dyn Fn(&[u8], usize) -> Option<Scripted> + Send + Sync>;

struct Script {
    received: Vec<Received>,
    next: VecDeque<Scripted>,
    /// Asked after `next`, with how often each body has come.
    rule: Option<(Rule, HashMap<Bytes, usize>)>,
    otherwise: u16,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("received", &self.received.len()).finish_non_exhaustive()
    }
}

impl Script {
    fn answer(&mut self, body: &Bytes) -> Scripted {
        if let Some(next) = self.next.pop_front() {
            return next;
        }
        let by_rule = self.rule.as_mut().and_then(|(rule, seen)| {
            let before = seen.entry(body.clone()).or_default();
            *before += 1;
            rule(body, *before - 1)
        });
        by_rule.unwrap_or((self.otherwise, None))
    }
}

/// The server. Requests are kept across [`kill`](Self::kill) and [`restart`](Self::restart).
#[derive(Debug)]
pub struct Webhook {
    port: Port,
    script: Arc<Mutex<Script>>,
    /// False while answers are held back.
    open: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Starts one that answers 204.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let script = Script { received: Vec::new(), next: VecDeque::new(), rule: None, otherwise: 204 };
        let (open, _) = watch::channel(true);
        let mut webhook = Self { port: Port::reserve()?, script: Arc::new(Mutex::new(script)), open, serving: None };
        webhook.restart().await?;
        Ok(webhook)
    }

    /// `http://127.0.0.1:PORT/hook`.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.port.address())
    }

    /// From now on every request is answered `status`.
    pub fn answer(&self, status: u16) {
        self.lock().otherwise = status;
    }

    /// The next requests are answered so, before the usual answer.
    pub fn answer_next(&self, statuses: impl IntoIterator<Item = u16>) {
        self.lock().next.extend(statuses.into_iter().map(|status| (status, None)));
    }

    /// The next request is answered so, and asked to come again after that many seconds.
    pub fn answer_next_with_retry_after(&self, status: u16, seconds: u32) {
        self.lock().next.push_back((status, Some(seconds)));
    }

    /// From now on a request is answered by its body and by how often that body has come before; as usual where `rule`
    /// says nothing.
    pub fn answer_by(&self, rule: impl Fn(&[u8], usize) -> Option<Scripted> + Send + Sync + 'static) {
        self.lock().rule = Some((Arc::new(rule), HashMap::new()));
    }

    /// Holds all answers back, until [`release`](Self::release). Requests are received meanwhile.
    pub fn hold(&self) {
        self.open.send_replace(false);
    }

    /// Gives the answers held back.
    pub fn release(&self) {
        self.open.send_replace(true);
    }

    /// Every request so far, in the order in which their bodies were complete.
    pub fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// How many requests were answered with a success.
    pub fn accepted_count(&self) -> usize {
        self.lock().received.iter().filter(|request| request.is_delivered()).count()
    }

    /// Closes the port and resets every connection.
    pub async fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Aborted on purpose; only its end matters, since with it the port is free.
            drop(serving.await);
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When it already listens.
    pub async fn restart(&mut self) -> Result<()> {
        let address = self.port.address();
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.script), self.open.subscribe())));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
        }
    }
}

/// Owns its connections: when it is aborted they are closed.
async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (script, open) = (Arc::clone(&script), open.clone());
                let service = service_fn(move |request| keep(request, Arc::clone(&script), open.clone()));
                connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            // Ended connections are forgotten; how they ended is the client's affair.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn keep(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
    mut open: watch::Receiver<bool>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let (place, status, retry_after) = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, body) = (head.uri.to_string(), body.to_bytes());
        let (status, retry_after) = script.answer(&body);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (headers, at) = (head.headers, SystemTime::now());
        script.received.push(Received { path, headers, body, status, answered: false, at });
        (script.received.len() - 1, status, retry_after)
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    // An error means the webhook is gone, and with it this connection.
    if open.wait_for(|open| *open).await.is_ok() {
        *response.status_mut() = status;
        if let Some(received) = script.lock().unwrap_or_else(PoisonError::into_inner).received.get_mut(place) {
            received.answered = true;
        }
    }
    Ok(response)
}
