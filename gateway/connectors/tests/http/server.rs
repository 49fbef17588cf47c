//! A server on a port of its own, and what it does with connections.

use std::net::SocketAddr;
use std::time::Duration;

use sluicegate_connectors::http::{Ingress, ServerLimits, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, DEADLINE, post};
use crate::pipeline::{Held, Pipeline};

/// A running server; dropped, it is gone at once.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start(ingress: &Ingress, limits: ServerLimits) -> Self {
        Self::serve(ingress.router(), limits).await
    }

    pub async fn serve(app: axum::Router, limits: ServerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                stopped.await.unwrap();
            };
            serve(listener, app, limits, shutdown).await.unwrap();
        });
        Self { address, stop: Some(stop), task }
    }

    /// Begins the shutdown; the server's task ends when it is done.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(&mut self) {
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("the server ends in time").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let ingress = Ingress::default();
    let _pipeline = Pipeline::delivering(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut client = Client::connect(server.address).await;
    client.send(&[post("/in", &[], b"one"), post("/in", &[], b"two")].concat()).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 200);
    client.send(&post("/elsewhere", &[], b"unread")).await;
    assert_eq!(client.response().await.status, 404);
    client.send(&post("/in", &[], b"three")).await;
    assert_eq!(client.response().await.status, 200, "a refusal leaves the connection usable");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_closed() {
    let ingress = Ingress::default();
    let _pipeline = Pipeline::delivering(&ingress, "/in").await;
    let limits = ServerLimits { max_connections: 1, ..ServerLimits::default() };
    let server = Server::start(&ingress, limits).await;
    let mut first = Client::connect(server.address).await;
    first.send(&post("/in", &[], b"x")).await;
    assert_eq!(first.response().await.status, 200);

    let mut second = Client::connect(server.address).await;
    second.send(&post("/in", &[], b"x")).await;
    let refused = second.response().await;
    assert_eq!((refused.status, refused.code()), (503, "MQ_OVERLOADED"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    second.assert_closed().await;

    drop(first);
    // The place is free as soon as the server has seen the first one go.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let mut third = Client::connect(server.address).await;
        third.send(&post("/in", &[], b"x")).await;
        match third.response().await.status {
            200 => break,
            status => assert!(status == 503 && tokio::time::Instant::now() < deadline, "{status}"),
        }
    }
}

#[tokio::test]
async fn a_silent_connection_and_one_that_trickles_headers_are_closed() {
    let limits = ServerLimits { header_read: Duration::from_millis(100), ..ServerLimits::default() };
    let server = Server::start(&Ingress::default(), limits).await;
    let mut silent = Client::connect(server.address).await;
    silent.assert_closed().await;
    let mut slow = Client::connect(server.address).await;
    slow.send(b"POST /in HTTP/1.1\r\nhost: x\r\nx-a: ").await;
    slow.assert_closed().await;
    let mut idle = Client::connect(server.address).await;
    idle.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(idle.response().await.status, 404);
    idle.assert_closed().await;
}

#[tokio::test]
async fn slow_clients_hold_their_connection_and_nothing_else() {
    let ingress = Ingress::default();
    let _pipeline = Pipeline::delivering(&ingress, "/in").await;
    let server = Server::start(&ingress, ServerLimits::default()).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(server.address).await;
        client.send(b"POST /in HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc").await;
        slow.push(client);
    }
    let mut fast = Client::connect(server.address).await;
    for _ in 0..20 {
        fast.send(&post("/in", &[], b"x")).await;
        assert_eq!(fast.response().await.status, 200);
    }
}

#[tokio::test]
async fn shutdown_finishes_requests_in_progress_and_closes_idle_connections() {
    let ingress = Ingress::default();
    let mut held = Held::new(&ingress, "/in").await;
    let mut server = Server::start(&ingress, ServerLimits::default()).await;
    let mut idle = Client::connect(server.address).await;
    idle.send(b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(idle.response().await.status, 404);
    let mut busy = Client::connect(server.address).await;
    busy.send(&post("/in", &[], b"x")).await;
    let received = held.receive().await;
    server.stop();
    idle.assert_closed().await;
    held.deliver(received).await;
    assert_eq!(busy.response().await.status, 200);
    server.ended().await;
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let ingress = Ingress::default();
    let mut held = Held::new(&ingress, "/in").await;
    let limits = ServerLimits { shutdown_grace: Duration::from_millis(50), ..ServerLimits::default() };
    let mut server = Server::start(&ingress, limits).await;
    let mut busy = Client::connect(server.address).await;
    busy.send(&post("/in", &[], b"x")).await;
    let _unsettled = held.receive().await;
    server.stop();
    server.ended().await;
    busy.assert_closed().await;
}
