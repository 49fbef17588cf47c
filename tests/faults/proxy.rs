//! A TCP proxy between the gateway and a broker, which spoils the connections through it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use sluicegate_tests::port::Port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What the proxy does to what passes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Every connection is reset at once, and every new one.
    Reset,
    /// Nothing passes; connections stay open and new ones are accepted.
    Stall,
    /// The next piece of every connection is cut in the middle and the connection reset.
    Cut,
    /// Every piece is late by so much.
    Delay(Duration),
}

/// The proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    trouble: watch::Sender<Trouble>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts one to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind(port.address()).await?;
        let (trouble, seen) = watch::channel(Trouble::None);
        Ok(Self { port, trouble, serving: tokio::spawn(serve(listener, upstream, seen)) })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn set(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, trouble: watch::Receiver<Trouble>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => { connections.spawn(join(client, upstream, trouble.clone())); }
            Some(_) = connections.join_next() => {} // how a connection ended is its ends' affair
        }
    }
}

async fn join(client: TcpStream, upstream: SocketAddr, trouble: watch::Receiver<Trouble>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    for stream in [&client, &server] {
        // Closed with a reset: a spoiled connection says no proper goodbye. Fails only on a closed socket.
        drop(stream.set_zero_linger());
        drop(stream.set_nodelay(true));
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (up, down) = (trouble.clone(), trouble);
    // The first direction to end takes the other with it.
    tokio::select! {
        () = pass(from_client, to_server, up) => {}
        () = pass(from_server, to_client, down) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut trouble: watch::Receiver<Trouble>) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let length = tokio::select! {
            read = from.read(&mut piece) => match read { Ok(length @ 1..) => length, Ok(0) | Err(_) => return },
            reset = trouble.wait_for(|trouble| *trouble == Trouble::Reset) => { drop(reset); return }
        };
        let now = *trouble.borrow();
        match now {
            Trouble::None => {}
            Trouble::Reset => return,
            Trouble::Cut => {
                // Whether the half arrives is the network's affair, as in life.
                drop(to.write_all(&piece[..length / 2]).await);
                return;
            }
            Trouble::Delay(by) => tokio::time::sleep(by).await,
            Trouble::Stall => match trouble.wait_for(|trouble| *trouble != Trouble::Stall).await {
                Ok(after) if *after != Trouble::Reset => {}
                Ok(_) | Err(_) => return,
            },
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// The host and port of `scheme://user@HOST:PORT/rest`.
pub fn address_of(url: &str) -> Result<SocketAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    Ok(host.split_once('/').map_or(host, |(host, _)| host).parse()?)
}
