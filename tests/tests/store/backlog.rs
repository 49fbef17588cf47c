//! A large backlog: admission and claims do not slow down, and memory does not grow. Prints what it measures:
//!
//! ```sh
//! SLUICEGATE_TEST_BACKLOG=1000000 cargo test --release -p sluicegate-tests --test store -- --nocapture a_large_backlog
//! ```
//!
//! There the promise is held to: admission takes 20 % longer at most. Otherwise the backlog is a tenth of that, and the
//! bound allows for neighbours. What is carried is read from where it was put long ago, not from where it was just written;
//! that may take longer, but not by the backlog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_engine::delivery::{Outcome, Received, Settled};
use sluicegate_engine::inbox::Inbox;
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::{Connection, Source};
use sluicegate_store::inbox::{Admission, Admitted, Backlog, StoreInbox};
use sluicegate_store::{Store, testing};
use tokio::task::JoinSet;

use crate::both::both_places;

const ROWS: &str = "SLUICEGATE_TEST_BACKLOG";
const DEFAULT_ROWS: u64 = 100_000;
const CLIENTS: u64 = 64;
const BODY_BYTES: usize = 1_024;
/// Of a round.
const MESSAGES: u64 = 32 * CLIENTS;
/// How many times as long carrying may take with a backlog.
const MOST_CARRIED: f64 = 3.0;
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of this process that are in memory.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn admission(pipeline: &str, count: u64) -> Admission {
    let messages = (0..count).map(|_| Message::new("/test", "test", vec![b'x'; BODY_BYTES])).collect();
    let backlog = Backlog { max_messages: u64::MAX, max_bytes: u64::MAX };
    Admission { pipeline: pipeline.into(), messages, ordered: false, idempotency: None, wait: false, backlog }
}

async fn admit(store: &Store, pipeline: &str, count: u64) {
    assert!(matches!(store.admit(admission(pipeline, count)).await.unwrap(), Admitted::Taken { .. }));
}

/// How long it takes clients to have so many messages admitted, one each time, all at once.
async fn admitting(store: &Arc<Store>, pipeline: &'static str, messages: u64) -> Duration {
    let (began, mut clients) = (Instant::now(), JoinSet::new());
    for _ in 0..CLIENTS {
        let store = Arc::clone(store);
        clients.spawn(async move {
            for _ in 0..messages / CLIENTS {
                admit(&store, pipeline, 1).await;
            }
        });
    }
    clients.join_all().await;
    began.elapsed()
}

struct Reading {
    connection: Connection,
    _source: Box<dyn Source>,
}

impl Reading {
    async fn open(store: &Arc<Store>, pipeline: &str) -> Self {
        let mut source = StoreInbox::new(Arc::clone(store), &pipeline.into()).source(Lanes::default());
        Self { connection: source.connect().await.unwrap(), _source: source }
    }

    /// How long it takes to carry so many messages.
    async fn carrying(&mut self, messages: usize) -> Duration {
        let (began, mut carried) = (Instant::now(), 0);
        while carried < messages {
            let receiving = self.connection.inlet.receive(256.min(messages - carried));
            let received = tokio::time::timeout(LIMIT, receiving).await.expect("messages").unwrap();
            carried += received.len();
            let settle = |one: Received| Settled::new(one.token, Arc::new(one.message), Outcome::default());
            let settled: Vec<_> = received.into_iter().map(settle).collect();
            self.connection.settler.settle(&settled).await.unwrap();
        }
        began.elapsed()
    }
}

/// Rows as admission writes them, many times over.
async fn fill(store: &Store, pipeline: &str, rows: u64) {
    admit(store, pipeline, 1_000).await;
    let columns = "pipeline, lane, leads, timed, ready_at_ms, key_hash, bytes, received_at_ms, progress, head, body";
    let mut there = 1_000;
    while there < rows {
        let more = there.min(rows - there);
        let double = format!(
            "INSERT INTO inbox ({columns}) SELECT {columns} FROM inbox WHERE pipeline = '{pipeline}' LIMIT {more}"
        );
        assert_eq!(testing::execute(store, &double).await, Ok(more));
        there += more;
    }
}

async fn scans(store: &Store) -> i64 {
    let sql = "SELECT CAST(coalesce(seq_scan, 0) AS BIGINT) FROM pg_stat_user_tables WHERE relname = 'inbox'";
    testing::select(store, sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_slows_nothing_and_takes_no_memory() {
    let asked = std::env::var(ROWS).ok().map(|rows| rows.parse::<u64>().unwrap());
    // Rounds with the backlog and without, in turn: the fastest of each counts.
    let (rows, rounds, most) =
        asked.map_or((DEFAULT_ROWS, 3, [2.5, MOST_CARRIED]), |rows| (rows, 9, [1.2, MOST_CARRIED]));
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        fill(&store, "full", rows).await;
        if testing::is_shared(&store) {
            // As autovacuum does sooner or later; not while it is measured.
            crate::both::spoil(fresh.url.as_deref().unwrap(), "VACUUM ANALYZE inbox").await;
        }
        store.close().await;
        drop(store);

        let store = Arc::new(fresh.open().await);
        let began = Instant::now();
        let (mut full, mut empty) = (Reading::open(&store, "full").await, Reading::open(&store, "empty").await);
        println!("{}: {rows} rows, counted in {:?}", fresh.name, began.elapsed());
        let messages = MESSAGES;
        // Whatever is filled at first.
        admitting(&store, "empty", messages).await;
        empty.carrying(messages as usize).await;
        full.carrying(messages as usize).await;
        admitting(&store, "full", messages).await;
        let (before, scanned) = (resident_bytes(), if testing::is_shared(&store) { scans(&store).await } else { 0 });
        let mut fastest = [[Duration::MAX; 2]; 2];
        for _ in 0..rounds {
            for (with, pipeline, reading) in [(0, "empty", &mut empty), (1, "full", &mut full)] {
                fastest[with][0] = fastest[with][0].min(admitting(&store, pipeline, messages).await);
                fastest[with][1] = fastest[with][1].min(reading.carrying(messages as usize).await);
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        let rate = |took: Duration| messages as f64 / took.as_secs_f64();
        for (index, what) in ["admitted", "carried"].into_iter().enumerate() {
            let [without, with] = [fastest[0][index], fastest[1][index]];
            let ratio = with.as_secs_f64() / without.as_secs_f64();
            println!(
                "{}: {what} {:.0}/s without and {:.0}/s with a backlog of {rows}: {ratio:.2} times as long",
                fresh.name,
                rate(without),
                rate(with)
            );
            assert!(ratio <= most[index], "{what} takes {ratio:.2} times as long with a backlog of {rows}");
        }
        println!("{}: memory grew by {} KiB", fresh.name, grown >> 10);
        assert!(grown < 64 << 20, "{grown} bytes");
        if testing::is_shared(&store) {
            println!("{}: scans of the whole table: {}", fresh.name, scans(&store).await - scanned);
        }
        store.close().await;
    })
    .await;
}
