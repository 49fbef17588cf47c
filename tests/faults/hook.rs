//! The webhook of all lanes: `/LANE/TARGET`. It tells the oracle before it answers, and can be told to be slow, to hang
//! or to refuse.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sluicegate_tests::port::Port;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::oracle::Oracle;
use crate::payload::SEAL;

/// How an endpoint answers.
#[derive(Debug)]
pub struct Manners {
    /// Milliseconds before the answer, from which it also arrives.
    pub delay_ms: AtomicU64,
    /// 204 when it takes messages.
    pub status: AtomicU16,
}

#[derive(Debug)]
struct Endpoint {
    oracle: Arc<Oracle>,
    target: usize,
    manners: Arc<Manners>,
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct Hook {
    port: Port,
    endpoints: Arc<Mutex<Vec<Arc<Endpoint>>>>,
    serving: JoinHandle<()>,
}

impl Hook {
    pub async fn start() -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind(port.address()).await.context("the webhook's port")?;
        let endpoints = Arc::default();
        let serving = tokio::spawn(serve(listener, Arc::clone(&endpoints)));
        Ok(Self { port, endpoints, serving })
    }

    /// A new endpoint for one target of a lane: its URL and its manners.
    pub fn open(&self, oracle: Arc<Oracle>, target: usize) -> (String, Arc<Manners>) {
        let manners = Arc::new(Manners { delay_ms: AtomicU64::new(0), status: AtomicU16::new(204) });
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.push(Arc::new(Endpoint { oracle, target, manners: Arc::clone(&manners) }));
        (format!("http://{}/{}", self.port.address(), endpoints.len() - 1), manners)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, endpoints: Arc<Mutex<Vec<Arc<Endpoint>>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                let endpoints = Arc::clone(&endpoints);
                let service = service_fn(move |request| take(request, Arc::clone(&endpoints)));
                connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_) = connections.join_next() => {} // how a connection ended is the client's affair
        }
    }
}

async fn take(
    request: Request<Incoming>,
    endpoints: Arc<Mutex<Vec<Arc<Endpoint>>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let index = head.uri.path().trim_start_matches('/').parse::<usize>().ok();
    let endpoint =
        index.and_then(|index| endpoints.lock().unwrap_or_else(PoisonError::into_inner).get(index).map(Arc::clone));
    let answer = async {
        let (Some(endpoint), Ok(body)) = (endpoint, body.collect().await) else { return 404 };
        let delay_ms = endpoint.manners.delay_ms.load(Ordering::Relaxed);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let status = endpoint.manners.status.load(Ordering::Relaxed);
        if status < 300 {
            // Missing, it is empty: that is no seal.
            let seal = head.headers.get(format!("ce-{SEAL}")).map_or(&b""[..], |seal| seal.as_bytes());
            // A file's line has none, and nobody can add it.
            let seal = (endpoint.oracle.terms().sealed).then_some(seal);
            endpoint.oracle.arrive(endpoint.target, &body.to_bytes(), seal, false);
        }
        status
    }
    .await;
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(answer).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(response)
}
