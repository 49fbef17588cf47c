//! HTTP ingestion: the gateway that answers 202 once a message is on the disk, beside an axum handler that stores nothing.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Plan;
use super::load;
use super::report::Spread;
use super::side::{Running, Side};

/// The share of the bare server's throughput that the gateway is to reach.
const GOAL: f64 = 0.7;
/// Clients, each with one request under way.
const CONNECTIONS: usize = 64;
/// How long the load runs before it is counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a server may take to listen; long enough to compile plugins.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long what was accepted may take to reach the file.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Where messages are posted.
const PATH: &str = "/ingest/bench";

/// What was measured of ingestion.
#[derive(Debug, Serialize)]
pub(super) struct IngestionReport {
    connections: usize,
    sides: Vec<IngestionSide>,
}

#[derive(Debug, Serialize)]
struct IngestionSide {
    side: Side,
    ratio: f64,
    requests_per_second: Spread,
    cpu_us_per_request: Option<Spread>,
    peak_bytes: Option<u64>,
    rounds: Vec<IngestionRound>,
}

/// What one side did in one round.
#[derive(Debug, Clone, Serialize)]
struct IngestionRound {
    requests_per_second: f64,
    cpu_us_per_request: Option<f64>,
    peak_bytes: Option<u64>,
    /// Answered 202, the warm-up included.
    accepted: u64,
    /// How many of them had reached the target when the load ended.
    delivered_at_end: Option<u64>,
    /// How many had reached it in the end: all that were accepted, no more and no less.
    delivered: Option<u64>,
}

/// Measures both sides in turns.
pub(super) async fn measure(plan: &Plan, mut say: impl FnMut(String)) -> anyhow::Result<IngestionReport> {
    let side = |side| IngestionSide {
        side,
        ratio: 0.0,
        requests_per_second: Spread::default(),
        cpu_us_per_request: None,
        peak_bytes: None,
        rounds: Vec::new(),
    };
    let mut report = IngestionReport { connections: CONNECTIONS, sides: vec![side(Side::Bare), side(Side::Gateway)] };
    for round in 1..=plan.rounds {
        let mut order: Vec<usize> = (0..report.sides.len()).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for index in order {
            let side = report.sides[index].side;
            say(format!("HTTP ingestion: round {round} of {}, {side}", plan.rounds));
            report.sides[index].rounds.push(self::round(side, plan).await?);
        }
    }
    report.conclude();
    Ok(report)
}

async fn round(side: Side, plan: &Plan) -> anyhow::Result<IngestionRound> {
    let port = free_port().await?;
    let out = plan.data_dir.join(format!("ingestion-{port}.jsonl"));
    let mut running = Running::start_server(side, port, &configuration(port, &out, plan), plan)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    await_listening(address, &mut running).await?;

    let (accepted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    let request = request(plan.body_bytes);
    for _ in 0..CONNECTIONS {
        clients.spawn(client(address, request.clone(), Arc::clone(&accepted), Arc::clone(&stop)));
    }
    let counted = async {
        tokio::time::sleep(WARM_UP).await;
        let (began, before, usage) = (Instant::now(), accepted.load(Ordering::Relaxed), running.usage()?);
        tokio::time::sleep(Duration::from_secs(plan.seconds)).await;
        let (took, after, used) = (began.elapsed(), accepted.load(Ordering::Relaxed), running.usage()?);
        anyhow::Ok((took, after - before, usage.zip(used)))
    };
    let (took, requests, usage) = tokio::select! {
        counted = counted => counted?,
        Some(ended) = clients.join_next() => match ended? {
            Ok(()) => bail!("a client ended before its time"),
            Err(error) => return Err(running.failed(format!("did not answer as it should: {error:#}"))),
        },
    };
    // Each has its answer first, so that what was accepted is known exactly.
    stop.store(true, Ordering::Relaxed);
    let ended = async {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    match timeout(DRAIN_LIMIT, ended).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(running.failed(format!("did not answer as it should: {error:#}"))),
        Err(_) => return Err(running.failed(format!("did not answer for {DRAIN_LIMIT:?}"))),
    }
    let accepted = accepted.load(Ordering::Relaxed);
    let (delivered_at_end, delivered) = match side {
        Side::Bare => (None, None),
        Side::Gateway | Side::GatewayWithoutSteps | Side::GatewayWithoutReceipts | Side::GatewayWithReceipts => {
            (Some(lines(&out).await?), Some(await_delivered(&out, accepted, &mut running).await?))
        }
    };
    running.kill().await?;
    let per_request = |(before, after): (super::usage::Usage, super::usage::Usage)| {
        (after.cpu_ms - before.cpu_ms) as f64 * 1_000.0 / requests.max(1) as f64
    };
    Ok(IngestionRound {
        requests_per_second: requests as f64 / took.as_secs_f64().max(f64::EPSILON),
        cpu_us_per_request: usage.map(per_request),
        peak_bytes: usage.map(|(_, after)| after.peak_bytes),
        accepted,
        delivered_at_end,
        delivered,
    })
}

fn configuration(port: u16, out: &Path, plan: &Plan) -> String {
    let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
    format!(
        "server: {{ listen: '127.0.0.1:{port}' }}\n\
         data_dir: '{}'\n\
         pipelines:\n  \
           bench:\n    \
             source: {{ http: {{ path: {PATH}, respond: accepted }} }}\n    \
             targets: {{ out: {{ file: {{ path: '{}' }} }} }}\n    \
             max_in_flight: {}\n",
        quoted(&plan.data_dir.join(format!("ingestion-{port}"))),
        quoted(out),
        plan.in_flight,
    )
}

async fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
    Ok(listener.local_addr()?.port())
}

async fn await_listening(address: SocketAddr, running: &mut Running) -> anyhow::Result<()> {
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        running.usage()?;
        if began.elapsed() > START_LIMIT {
            return Err(running.failed(format!("does not listen after {START_LIMIT:?}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn await_delivered(out: &Path, accepted: u64, running: &mut Running) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        let delivered = lines(out).await?;
        if delivered >= accepted {
            return Ok(delivered);
        }
        running.usage()?;
        if began.elapsed() > DRAIN_LIMIT {
            return Err(running.failed(format!("has delivered {delivered} of {accepted} accepted messages")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn lines(file: &Path) -> anyhow::Result<u64> {
    match tokio::fs::read(file).await {
        Ok(text) => Ok(text.iter().filter(|byte| **byte == b'\n').count() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn request(body_bytes: usize) -> Bytes {
    let body = load::body(0, 0, body_bytes);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
        load::CONTENT_TYPE,
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

/// One connection: a request, its answer, the next request; until it is to stop.
async fn client(
    address: SocketAddr,
    request: Bytes,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 << 10];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&request).await?;
        let mut filled = 0;
        let answer = loop {
            let got = stream.read(&mut buffer[filled..]).await?;
            ensure!(got > 0, "the connection was closed");
            filled += got;
            if let Some(answer) = complete(&buffer[..filled]) {
                break answer;
            }
            ensure!(filled < buffer.len(), "an answer is larger than {} bytes", buffer.len());
        };
        ensure!(
            answer.starts_with(b"HTTP/1.1 202 "),
            "answered: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(1 << 10)])
        );
        accepted.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The answer, once all of it is there: its length is in its head.
fn complete(received: &[u8]) -> Option<&[u8]> {
    let head = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&received[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    received.get(..head + length.unwrap_or_default())
}

/// The bare side: reads the body and answers 202, until it is killed.
pub(super) async fn bare_server(port: u16) -> anyhow::Result<()> {
    let answer = |_: Bytes| async {
        (http::StatusCode::ACCEPTED, [("content-type", "application/json")], r#"{"id":"0","status":"accepted"}"#)
    };
    let app = axum::Router::new().route(PATH, axum::routing::post(answer));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(axum::serve(listener, app).await?)
}

impl IngestionReport {
    fn conclude(&mut self) {
        for side in &mut self.sides {
            let rounds = &side.rounds;
            side.requests_per_second =
                Spread::of(rounds.iter().map(|round| round.requests_per_second)).unwrap_or_default();
            side.cpu_us_per_request = Spread::of(rounds.iter().filter_map(|round| round.cpu_us_per_request));
            side.peak_bytes = rounds.iter().filter_map(|round| round.peak_bytes).max();
        }
        let bare = self.sides.first().map_or(0.0, |first| first.requests_per_second.median);
        for side in &mut self.sides {
            side.ratio = if bare > 0.0 { side.requests_per_second.median / bare } else { 0.0 };
        }
    }
}

impl fmt::Display for IngestionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nHTTP ingestion, 202 once on disk, from {} connections", self.connections)?;
        writeln!(
            f,
            "  {:<14} {:>10} {:>19} {:>6} {:>12} {:>12}   delivered when the load ended",
            "", "requests/s", "(min – max)", "ratio", "CPU/request", "peak memory"
        )?;
        for side in &self.sides {
            let rate = side.requests_per_second;
            let spread = format!("({:.0} – {:.0})", rate.min, rate.max);
            let cpu = side.cpu_us_per_request.map_or("-".to_owned(), |cpu| format!("{:.1} µs", cpu.median));
            let memory =
                side.peak_bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64));
            let delivered = side
                .rounds
                .last()
                .and_then(|round| round.delivered_at_end.map(|delivered| format!("{delivered} of {}", round.accepted)));
            let name = side.side.to_string();
            writeln!(
                f,
                "  {name:<14} {:>10.0} {spread:>19} {:>6.2} {cpu:>12} {memory:>12}   {}",
                rate.median,
                side.ratio,
                delivered.unwrap_or_else(|| "-".to_owned())
            )?;
        }
        if let Some(gateway) = self.sides.iter().find(|side| side.side == Side::Gateway) {
            let judgement = if gateway.ratio >= GOAL { "reached" } else { "missed" };
            writeln!(f, "  the gateway at {:.2} of the bare server; goal {GOAL:.2} {judgement}", gateway.ratio)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(complete(&whole[..whole.len() - 1]), None);
        assert_eq!(complete(whole), Some(&whole[..]));
        assert_eq!(complete(b"HTTP/1.1 202 Accepted\r\n"), None);
    }

    #[test]
    fn a_request_has_the_length_it_says() {
        let request = request(1_024);
        let head = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(request.len() - head, 1_024);
    }
}
