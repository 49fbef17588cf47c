//! The faults: what each does to a world, and what ends it.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluicegate_tests::gateway::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::Trouble;
use crate::world::World;

/// Idle connections that the bad clients ask for.
const IDLE: usize = 10_000;
/// Clients of each slow kind.
const SLOW: usize = 50;
/// The zeros in a compression bomb.
const BOMB_BYTES: usize = 64 << 20;
/// A bad client does not wait longer.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);
/// For something to come about.
const LIMIT: Duration = Duration::from_secs(60);
/// Dead letters before they are redriven, and redelivered before the gateway is killed.
const LETTERS: f64 = 150.0;
const REDELIVERED: u64 = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillGateway,
    PauseGateway,
    KillRabbitMq,
    PauseRabbitMq,
    RabbitMqAlarm,
    KillRedis,
    PauseRedis,
    KillPostgres,
    Connections(Trouble),
    SlowTarget,
    HungTarget,
    BadClients,
    KillWhileRedriving,
    Reload,
    FullDisk,
}

impl Fault {
    /// Which targets of every lane go on meanwhile; none while everything stands.
    pub fn unaffected(self, targets: usize) -> std::ops::Range<usize> {
        match self {
            Self::SlowTarget | Self::HungTarget => 0..targets.saturating_sub(1),
            _other => 0..0,
        }
    }

    /// Breaks it. `which` chooses among several gateways.
    pub async fn hit(self, world: &mut World<'_>, which: usize) -> Result<()> {
        let gateway = which % world.gateways.len();
        match self {
            Self::KillGateway => world.gateways[gateway].kill()?,
            Self::PauseGateway => world.gateways[gateway].process().signal("STOP")?,
            Self::KillRabbitMq => {
                world.deaths.push(Instant::now());
                world.servers.rabbitmq.as_mut().context("a RabbitMQ")?.kill()?;
            }
            Self::PauseRabbitMq => world.servers.rabbitmq.as_mut().context("a RabbitMQ")?.pause()?,
            Self::RabbitMqAlarm => alarm(world, "0").await?,
            Self::KillRedis => {
                world.deaths.push(Instant::now());
                world.redis().await?.kill()?;
            }
            Self::PauseRedis => world.redis().await?.pause()?,
            Self::KillPostgres => world.servers.postgres.as_mut().context("a PostgreSQL")?.kill()?,
            Self::Connections(trouble) => world.proxies.iter().for_each(|proxy| proxy.set(trouble)),
            Self::SlowTarget => last_target(world, 1_000)?,
            Self::HungTarget => last_target(world, 3_600_000)?,
            Self::BadClients => bad_clients(world).await?,
            Self::KillWhileRedriving => kill_while_redriving(world).await?,
            Self::Reload => {
                world.reload()?;
                // Sooner than every 2 s it is not asked for.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            Self::FullDisk => world.disk.as_ref().context("a small disk")?.fill()?,
        }
        Ok(())
    }

    /// Ends it. What was killed runs again; how soon messages flow is the caller's to watch.
    pub async fn heal(self, world: &mut World<'_>, which: usize) -> Result<()> {
        let gateway = which % world.gateways.len();
        match self {
            Self::KillGateway => world.gateways[gateway].restart().await?,
            Self::PauseGateway => world.gateways[gateway].process().signal("CONT")?,
            Self::KillRabbitMq => world.servers.rabbitmq.as_mut().context("a RabbitMQ")?.restart().await?,
            Self::PauseRabbitMq => world.servers.rabbitmq.as_mut().context("a RabbitMQ")?.resume()?,
            Self::RabbitMqAlarm => alarm(world, "0.6").await?,
            Self::KillRedis => world.redis().await?.restart().await?,
            Self::PauseRedis => world.redis().await?.resume()?,
            Self::KillPostgres => world.servers.postgres.as_mut().context("a PostgreSQL")?.restart().await?,
            Self::Connections(_) => world.proxies.iter().for_each(|proxy| proxy.set(Trouble::None)),
            Self::SlowTarget | Self::HungTarget => last_target(world, 0)?,
            Self::BadClients => {
                world.clients.clear();
                world.slow.shutdown().await;
            }
            Self::KillWhileRedriving => {
                world.gateways[0].restart().await?;
                let job = await_redrive(world, |job| job["state"] == "done").await?;
                world.redriven += job["counts"]["delivered"].as_u64().context("a count")?;
            }
            Self::Reload => {}
            Self::FullDisk => world.disk.as_ref().context("a small disk")?.free()?,
        }
        Ok(())
    }

    /// Whether recovery counts from before [`heal`](Self::heal), which starts the gateway: its start is part of it.
    pub fn heals_by_starting(self) -> bool {
        matches!(self, Self::KillGateway)
    }
}

async fn alarm(world: &mut World<'_>, watermark: &str) -> Result<()> {
    let rabbitmq = world.servers.rabbitmq.as_mut().context("a RabbitMQ")?;
    // It starts an Erlang of its own: seconds, in which the receivers go on.
    tokio::task::block_in_place(|| rabbitmq.control(&["set_vm_memory_high_watermark", watermark]))?;
    Ok(())
}

fn last_target(world: &World<'_>, delay_ms: u64) -> Result<()> {
    let manners = world.lanes[0].manners.last().context("a webhook")?;
    manners.delay_ms.store(delay_ms, Ordering::Relaxed);
    Ok(())
}

/// Bodies that are too large get their answer; then connections that only cost memory, for as long as the fault lasts.
async fn bad_clients(world: &mut World<'_>) -> Result<()> {
    let (address, path) = (world.gateways[0].address(), world.lanes[0].path());
    let oversized = vec![b'x'; 2 << 20];
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&vec![b' '; BOMB_BYTES])?;
    for (what, encoding, body) in [("an oversized body", None, oversized), ("a bomb", Some("gzip"), bomb.finish()?)] {
        let mut request = world.client.post(world.gateways[0].url(&path)).body(body).timeout(CLIENT_LIMIT);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        // Refused before it has been read it may end in a reset connection instead.
        if let Ok(answer) = request.send().await
            && answer.status() != 413
        {
            world.troubles.push(format!("{what} was answered {}", answer.status()));
        }
    }
    for number in 0..2 * SLOW {
        let (path, slow_body) = (path.clone(), number % 2 == 0);
        world.slow.spawn(async move { drop(drip(address, &path, slow_body).await) });
    }
    let connecting = (0..IDLE).map(|_| async move { timeout(CLIENT_LIMIT, TcpStream::connect(address)).await });
    let connected = futures_util::future::join_all(connecting).await;
    world.clients.extend(connected.into_iter().filter_map(|connection| connection.ok()?.ok()));
    // Above its limit the gateway lets them wait; the kernel keeps some of those.
    ensure!(world.clients.len() > 1_000, "only {} idle connections could be opened", world.clients.len());
    Ok(())
}

/// A request that comes byte by byte.
async fn drip(address: std::net::SocketAddr, path: &str, slow_body: bool) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 100000\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(if slow_body { b"\r\n" } else { b"x-slow: " }).await?;
    let mut answer = [0; 64];
    loop {
        tokio::select! {
            read = stream.read(&mut answer) => { read?; return Ok(()) }
            () = tokio::time::sleep(Duration::from_millis(300)) => stream.write_all(b"a").await?,
        }
    }
}

/// The target refuses for good until there are enough dead letters; then it takes them again, and in the middle of their
/// redrive the gateway dies.
async fn kill_while_redriving(world: &mut World<'_>) -> Result<()> {
    let manners = world.lanes[0].manners[0].clone();
    manners.status.store(400, Ordering::Relaxed);
    let letters = async |gateway: &Gateway| gateway.metric("sluicegate_dead_letters_total", &[]).await;
    let before = letters(&world.gateways[0]).await?;
    await_that("there are dead letters", async || {
        let now = letters(&world.gateways[0]).await?;
        Ok(now >= before + LETTERS)
    })
    .await?;
    manners.status.store(204, Ordering::Relaxed);
    let form = json!({ "filter": {}, "ratePerSecond": 100 });
    let url = world.gateways[0].url("/api/v1/dead-letters/redrive");
    let answer = world.client.post(url).body(form.to_string()).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status == 201, "redriving: {status} {text}");
    let job: Value = serde_json::from_str(&text)?;
    world.redrive = Some(job["id"].as_str().context("a job's id")?.to_owned());
    await_redrive(world, |job| job["counts"]["delivered"].as_u64() >= Some(REDELIVERED)).await?;
    world.gateways[0].kill()
}

/// The job, once it has come so far.
async fn await_redrive(world: &World<'_>, reached: impl Fn(&Value) -> bool) -> Result<Value> {
    let id = world.redrive.as_ref().context("a redrive")?;
    let look = async || -> Result<Value> {
        Ok(serde_json::from_str(&world.gateways[0].text(&format!("/api/v1/redrives/{id}")).await?)?)
    };
    await_that("the redrive has come so far", async || Ok(reached(&look().await?))).await?;
    look().await
}

/// Waits for it; unlike `eventually` it fails without a panic, so that the other runs take place.
pub async fn await_that(what: &str, condition: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let last = match condition().await {
            Ok(true) => return Ok(()),
            Ok(false) => "it is not so".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        ensure!(Instant::now() < end, "not within {LIMIT:?}: {what}: {last}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
