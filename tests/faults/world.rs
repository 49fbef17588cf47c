//! What a run happens in: real servers, kept from run to run, and the gateways, lanes and proxies of one run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::Value;
use sluicegate_tests::gateway::{Gateway, binary, http_client, new_folder};
use sluicegate_tests::process::run;
use sluicegate_tests::servers::{Postgres, RabbitMq, Redis};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::arrival::receive;
use crate::hook::Hook;
use crate::lane::{Addresses, Lane, Source, Target};
use crate::load::{Inlets, drive};
use crate::oracle::Terms;
use crate::payload;
use crate::proxy::{Proxy, address_of};
use crate::table::{Options, Run};

/// Messages in flight of a pipeline; a reload changes it by one.
const MAX_IN_FLIGHT: u32 = 128;
/// Size of the volume that is filled.
const SMALL_DISK: &str = "size=64m";

/// Real servers, started when first needed.
#[derive(Default)]
pub struct Servers {
    pub rabbitmq: Option<RabbitMq>,
    pub redis: Option<Redis>,
    everysec: Option<Redis>,
    pub postgres: Option<Postgres>,
}

/// A small volume. It is unmounted when it is dropped.
pub struct Disk {
    folder: TempDir,
}

pub struct World<'a> {
    pub servers: &'a mut Servers,
    pub options: Options,
    pub gateways: Vec<Gateway>,
    pub lanes: Vec<Arc<Lane>>,
    pub proxies: Vec<Proxy>,
    pub client: reqwest::Client,
    /// When a system died.
    pub deaths: Vec<Instant>,
    /// What went wrong beyond the oracle's account.
    pub troubles: Vec<String>,
    /// Connections of bad clients.
    pub clients: Vec<TcpStream>,
    pub slow: JoinSet<()>,
    pub redrive: Option<String>,
    /// Messages that redrives delivered: each of them another attempt.
    pub redriven: u64,
    store: Option<String>,
    reloads: u32,
    /// By process: retries and the most memory, in bytes.
    seen: BTreeMap<u32, (f64, u64)>,
    receivers: JoinSet<()>,
    loads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    _hook: Hook,
    /// Last: the gateways' folders are on it.
    pub disk: Option<Disk>,
}

impl Servers {
    /// Swaps in the Redis that fsyncs once a second, or back.
    async fn redis(&mut self, everysec: bool) -> Result<&mut Redis> {
        let (slot, fsync) = if everysec { (&mut self.everysec, "everysec") } else { (&mut self.redis, "always") };
        if slot.is_none() {
            *slot = Some(Redis::start_with(fsync).await?);
        }
        slot.as_mut().context("a Redis")
    }
}

impl Disk {
    /// Mounts one, or says why it cannot be.
    fn mount() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluicegate-disk-").tempdir()?;
        run("mount", |command| {
            command.args(["-t", "tmpfs", "-o", SMALL_DISK, "tmpfs"]).arg(folder.path());
        })
        .context("a small volume cannot be mounted here")?;
        Ok(Self { folder })
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.folder.path().join("filler"))?;
        let block = vec![0_u8; 64 << 10];
        loop {
            match std::io::Write::write(&mut file, &block) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.folder.path().join("filler"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", |command| {
            command.arg("-l").arg(self.folder.path());
        }) {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.stop.cancel();
        self.loads.iter().for_each(JoinHandle::abort);
    }
}

/// Why a run cannot take place here.
pub fn obstacle(run: &Run) -> Option<String> {
    run.options.small_disk.then(|| Disk::mount().err()).flatten().map(|error| format!("{error:#}"))
}

impl<'a> World<'a> {
    /// Starts what the run needs, with its pipelines running.
    pub async fn start(
        run: &Run,
        pairs: &[(Source, Target)],
        servers: &'a mut Servers,
        seed: u64,
    ) -> Result<World<'a>> {
        let options = run.options;
        let hook = Hook::start().await?;
        let mut addresses = Addresses::default();
        let uses = |from: &[Source], to: &[Target]| pairs.iter().any(|(f, t)| from.contains(f) || to.contains(t));
        let mut proxies = Vec::new();
        if uses(&[Source::RabbitMq], &[Target::RabbitMq]) {
            if servers.rabbitmq.is_none() {
                servers.rabbitmq = Some(RabbitMq::start().await?);
            }
            let url = servers.rabbitmq.as_ref().context("a RabbitMQ")?.url().to_owned();
            addresses.rabbitmq_for_gateway = proxied(&url, options.proxied, &mut proxies).await?;
            addresses.rabbitmq = url;
        }
        if uses(&[Source::Redis], &[Target::Redis]) {
            let url = servers.redis(options.everysec).await?.url().to_owned();
            addresses.redis_for_gateway = proxied(&url, options.proxied, &mut proxies).await?;
            addresses.redis = url;
        }
        let store = if options.shared_store {
            if servers.postgres.is_none() {
                servers.postgres = Some(Postgres::start().await?);
            }
            Some(servers.postgres.as_ref().context("a PostgreSQL")?.new_database().await?)
        } else {
            None
        };
        let lane = |(lane, (from, to)): (usize, &(Source, Target))| {
            let Options { targets, ordered, poison_every, excused, .. } = options;
            let terms = Terms { seed, lane, targets, ordered, poison_every, sealed: true, excused };
            Arc::new(Lane::new(*from, *to, terms, &addresses, &hook))
        };
        let lanes: Vec<Arc<Lane>> = pairs.iter().enumerate().map(lane).collect();
        let disk = if options.small_disk { Some(Disk::mount()?) } else { None };
        let mut world = World {
            servers,
            options,
            gateways: Vec::new(),
            lanes,
            proxies,
            client: http_client()?,
            deaths: Vec::new(),
            troubles: Vec::new(),
            clients: Vec::new(),
            slow: JoinSet::new(),
            redrive: None,
            redriven: 0,
            store,
            reloads: 0,
            seen: BTreeMap::new(),
            receivers: JoinSet::new(),
            loads: Vec::new(),
            stop: CancellationToken::new(),
            _hook: hook,
            disk,
        };
        world.start_gateways().await?;
        Ok(world)
    }

    async fn start_gateways(&mut self) -> Result<()> {
        let build = if self.options.control { control_build().await? } else { binary()?.to_owned() };
        for _ in 0..self.options.gateways {
            let folder = match &self.disk {
                Some(disk) => tempfile::tempdir_in(disk.folder.path())?,
                None => new_folder()?,
            };
            for lane in self.lanes.iter().filter(|lane| lane.from == Source::File) {
                // A source that waits for its file is not ready.
                std::fs::write(folder.path().join(&lane.input), "")?;
            }
            let gateway = Gateway::start_build(&build, folder, &self.config()).await?;
            self.gateways.push(gateway);
        }
        for lane in &self.lanes {
            self.receivers.spawn(receive(Arc::clone(lane), self.gateways[0].folder().to_owned()));
        }
        Ok(())
    }

    /// The configuration; another one after each reload.
    fn config(&self) -> String {
        let mut text = self.store.as_ref().map(|url| format!("store: '{url}'\n")).unwrap_or_default();
        if self.options.poison_every > 0 {
            text.push_str("schemas:\n  sound: { inline: { type: object, required: [number] } }\n");
        }
        let queues: String = self.lanes.iter().map(|lane| lane.queues()).collect();
        if !queues.is_empty() {
            text.push_str(&format!("queues:\n{queues}"));
        }
        text.push_str("pipelines:\n");
        text.extend(self.lanes.iter().map(|lane| lane.pipelines(MAX_IN_FLIGHT + self.reloads % 2)));
        text
    }

    /// Another configuration for every gateway: all pipelines are replaced.
    pub fn reload(&mut self) -> Result<()> {
        self.reloads += 1;
        let config = self.config();
        self.gateways.iter().try_for_each(|gateway| gateway.reload(&config))
    }

    pub fn start_load(&mut self, per_second: u32) {
        let gateways = self.gateways.iter().map(|gateway| gateway.url("")).collect();
        let inlets = Inlets { gateways, folder: self.gateways[0].folder().to_owned(), client: self.client.clone() };
        for lane in &self.lanes {
            let load = drive(Arc::clone(lane), inlets.clone(), per_second, self.stop.child_token());
            self.loads.push(tokio::spawn(load));
        }
    }

    pub async fn stop_load(&mut self) -> Result<()> {
        self.stop.cancel();
        for load in self.loads.drain(..) {
            load.await.context("a load driver")?;
        }
        Ok(())
    }

    pub fn in_flight(&self) -> usize {
        let lane = |lane: &Arc<Lane>| lane.oracle.in_flight() + lane.oracle.awaiting(std::time::Duration::from_secs(2));
        self.lanes.iter().map(lane).sum()
    }

    pub fn acknowledged(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.oracle.acknowledged()).sum()
    }

    /// The Redis of this run.
    pub async fn redis(&mut self) -> Result<&mut Redis> {
        self.servers.redis(self.options.everysec).await
    }

    /// Notes how often the gateways have retried and how much memory they took, as far as they answer.
    pub async fn sample(&mut self) {
        for gateway in &self.gateways {
            let id = gateway.process().id();
            let (retries, bytes) = self.seen.entry(id).or_default();
            if let Ok(counted) = gateway.metric("sluicegate_retries_total", &[]).await {
                *retries = retries.max(counted);
            }
            *bytes = (*bytes).max(peak_bytes(id).unwrap_or(0));
        }
    }

    pub fn retries(&self) -> u64 {
        self.seen.values().map(|(retries, _)| *retries as u64).sum()
    }

    pub fn peak_bytes(&self) -> u64 {
        self.seen.values().map(|(_, bytes)| *bytes).max().unwrap_or(0)
    }

    /// Tells the oracles what is in the dead letters now.
    pub async fn look_at_dead_letters(&self) -> Result<()> {
        let arguments = ["dlq", "list", "--json", "--limit", "1000000", "--config", "sluicegate.yaml"];
        let lines = self.gateways[0].command(&arguments).await?;
        let letters: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        for lane in &self.lanes {
            lane.oracle.dead_letters(letters.iter().filter_map(|letter| letter["message_id"].as_str()));
        }
        Ok(())
    }

    /// Fails while something is left in an inbox or a queue of the gateway.
    pub async fn ensure_settled(&self) -> Result<()> {
        for lane in &self.lanes {
            for queue in lane.own_queues() {
                let group = if queue == lane.input { "lane" } else { "out" };
                let path = format!("/api/v1/mq/subscriptions/{queue}:{group}-{}", lane.oracle.terms().lane);
                let shown: Value = serde_json::from_str(&self.gateways[0].text(&path).await?)?;
                ensure!(shown["lag"] == 0 && shown["pending"] == 0, "the queue of {}: {shown}", lane.name());
            }
        }
        let left = self.in_inboxes().await?;
        ensure!(left == 0, "{left} messages are left in the inboxes");
        Ok(())
    }

    async fn in_inboxes(&self) -> Result<i64> {
        const COUNT: &str = "SELECT count(*) FROM inbox";
        if let Some(url) = &self.store {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
            let driving = tokio::spawn(connection);
            let count = client.query_one(COUNT, &[]).await?.get(0);
            drop(client);
            driving.await??;
            return Ok(count);
        }
        let path = self.gateways[0].folder().join("data/sluicegate.sqlite");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        Ok(rusqlite::Connection::open_with_flags(path, flags)?.query_row(COUNT, [], |row| row.get(0))?)
    }

    /// What the brokers still hold of the lanes' sources. The gateways have ended: nothing is merely in flight.
    pub async fn left_in_brokers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for lane in &self.lanes {
            let count = match lane.from {
                Source::RabbitMq => {
                    let connection = sluicegate_tests::servers::connect_to_rabbitmq(&lane.addresses.rabbitmq).await?;
                    let channel = connection.create_channel().await?;
                    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                    channel
                        .queue_declare(lane.input.as_str().into(), options, FieldTable::default())
                        .await?
                        .message_count() as u64
                }
                Source::Redis => {
                    let client = redis::Client::open(lane.addresses.redis.as_str())?;
                    let mut connection = client.get_multiplexed_async_connection().await?;
                    let group = format!("lane-{}", lane.oracle.terms().lane);
                    pending(&mut connection, &lane.input, &group).await?
                }
                Source::HttpAccepted | Source::HttpDelivered | Source::Queue | Source::File => 0,
            };
            if lane.to == Target::File {
                let text = std::fs::read(self.gateways[0].folder().join(&lane.output))?;
                let lines =
                    text.split(|byte| *byte == b'\n').filter_map(payload::number).collect::<BTreeSet<_>>().len();
                if (lines as u64) < lane.oracle.delivered() {
                    left.push(format!("only {lines} messages are in the file of {}", lane.name()));
                }
            }
            if count > 0 {
                left.push(format!("{count} messages are unsettled in the source of {}", lane.name()));
            }
        }
        Ok(left)
    }
}

/// Entries of a stream that a group has been given and has not settled.
async fn pending(connection: &mut redis::aio::MultiplexedConnection, stream: &str, group: &str) -> Result<u64> {
    let answer: redis::Value = redis::cmd("XPENDING").arg(stream).arg(group).query_async(connection).await?;
    match &answer {
        redis::Value::Array(parts) => match parts.first() {
            Some(redis::Value::Int(count)) => Ok(u64::try_from(*count)?),
            other => bail!("XPENDING counts {other:?}"),
        },
        other => bail!("XPENDING answers {other:?}"),
    }
}

async fn proxied(url: &str, proxied: bool, proxies: &mut Vec<Proxy>) -> Result<String> {
    if !proxied {
        return Ok(url.to_owned());
    }
    let upstream = address_of(url)?;
    let proxy = Proxy::start(upstream).await?;
    let through = url.replace(&upstream.to_string(), &proxy.address().to_string());
    proxies.push(proxy);
    Ok(through)
}

/// The most memory a process has had, in bytes.
fn peak_bytes(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The gateway that acknowledges early, built beside the real one: what both have in common is compiled once.
async fn control_build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("the test binary is not in target/PROFILE/deps")?.to_owned();
    let own = target.join("fault-control");
    let built = own.join("debug/sluicegate");
    let build = tokio::task::spawn_blocking(move || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "sluicegate", "--features", "early-ack-fault-control"]);
        command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
        command.arg("--target-dir").arg(&own).env("CARGO_BUILD_BUILD_DIR", &target);
        command.status()
    });
    let status = build.await?.context("building the control")?;
    ensure!(status.success(), "building the control failed: {status}");
    Ok(built)
}
