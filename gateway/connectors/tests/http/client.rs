//! A client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything in these tests may take before it has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// What stays silent for this long is taken to stay silent.
pub const QUIET: Duration = Duration::from_millis(50);

pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("sent in time").unwrap();
    }

    /// Sends as much as the other side takes.
    pub async fn send_what_is_taken(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.stream.write_all(bytes)).await.expect("sent in time").is_ok()
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next response, other than `100 Continue`.
    pub async fn response(&mut self) -> Response {
        timeout(DEADLINE, self.read_response()).await.expect("answered in time").expect("answered")
    }

    /// No answer is there, nor comes for a while.
    pub async fn assert_silent(&mut self) {
        let more = timeout(QUIET, self.read_more()).await;
        assert!(more.is_err() && self.read.is_empty(), "{}", String::from_utf8_lossy(&self.read));
    }

    /// The other side has closed the connection without a further answer.
    pub async fn assert_closed(&mut self) {
        let rest = timeout(DEADLINE, async {
            // A reset is as closed as an end.
            while let Ok(1..) = self.stream.read_buf(&mut self.read).await {}
            &self.read
        });
        let rest = rest.await.expect("closed in time");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(rest));
    }

    async fn read_response(&mut self) -> Option<Response> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.read_more().await?,
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let mut response = Response {
            status,
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: Vec::new(),
        };
        let length: usize = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            self.read_more().await?;
        }
        response.body = self.read.drain(..length).collect();
        Some(response)
    }

    async fn read_more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => None,
            Ok(_) => Some(()),
            Err(error) => panic!("reading an answer: {error}; so far: {}", String::from_utf8_lossy(&self.read)),
        }
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The code of the problem document, whose form is checked on the way.
    pub fn code(&self) -> &'static str {
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "detail", "code"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        match problem["retryAfter"].as_u64() {
            Some(secs) => assert_eq!(self.header("retry-after"), Some(secs.to_string().as_str())),
            None => assert_eq!(self.header("retry-after"), None),
        }
        let codes = sluicegate_connectors::http::ProblemCode::ALL;
        let code = codes.into_iter().find(|code| problem["code"] == code.name());
        code.unwrap_or_else(|| panic!("an unknown code: {problem}")).name()
    }

    /// The places of all its single mistakes, sorted.
    pub fn places(&self) -> Vec<String> {
        let problem = self.json();
        let mut places: Vec<String> = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("no errors: {problem}"))
            .iter()
            .map(|error| error["pointer"].as_str().or(error["header"].as_str()).unwrap().to_owned())
            .collect();
        places.sort();
        places
    }
}

/// A POST with its length.
pub fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

/// One request on a connection of its own.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client.response().await
}
