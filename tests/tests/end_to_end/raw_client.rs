//! HTTP by hand, for requests that no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The slowest answer is that to a header which never ends.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// 0 when the connection was closed without one.
    pub status: u16,
    /// Status line, headers and body.
    pub text: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).with_context(|| format!("the body of {}", self.text))
    }
}

/// Sends `request`, closes the writing half if `hang_up`, and reads until the gateway closes the connection. Requests
/// therefore ask for `connection: close`.
pub async fn exchange(address: SocketAddr, request: &[u8], hang_up: bool) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    if hang_up {
        stream.shutdown().await?;
    }
    let mut bytes = Vec::new();
    tokio::time::timeout(ANSWER_LIMIT, stream.read_to_end(&mut bytes)).await.context("the gateway keeps silent")??;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, text })
}
