//! What cannot be opened holds up nothing else, stays, and comes back with its key; a body is read in its own place alone.

mod dead_letters;
mod inboxes;
mod queues;

use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::delivery::{Outcome, Received, Settled};
use sluicegate_engine::inbox::Inbox as _;
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::Message;
use sluicegate_engine::source::Connection;
use sluicegate_store::inbox::{Admission, Admitted, Backlog, StoreInbox};
use sluicegate_store::vault::{DEFAULT_TENANT, Encryption, MasterKey};
use sluicegate_store::{Store, StoreOptions, testing};
use tokio::time::timeout;

use crate::both::Fresh;

const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for anything that could come to come.
const NOTHING: Duration = Duration::from_millis(300);

async fn encrypted(fresh: &Fresh) -> Arc<Store> {
    let encryption = Some(Encryption { master_key: MasterKey::new([1; 32]), previous: Vec::new() });
    Arc::new(Store::open(StoreOptions { location: fresh.location.clone(), encryption }).await.unwrap())
}

/// An encrypted body whose key is nowhere.
fn of_a_lost_key() -> Vec<u8> {
    let mut stored = vec![0xe5, u8::try_from(DEFAULT_TENANT.len()).unwrap()];
    stored.extend_from_slice(DEFAULT_TENANT.as_bytes());
    stored.extend_from_slice(&99_u32.to_be_bytes());
    stored.resize(stored.len() + 60, 7);
    stored
}

async fn sql(store: &Store, sql: &str) -> u64 {
    testing::execute(store, sql).await.unwrap()
}

fn message(id: &str, key: Option<&'static str>) -> Message {
    let key = key.map(|key| key.as_bytes().into());
    Message { id: id.to_owned(), key, ..Message::new("/test", "test", format!("body of {id}")) }
}

async fn admit(store: &Store, messages: Vec<Message>) {
    let backlog = Backlog { max_messages: 4, max_bytes: 1 << 20 };
    let admission =
        Admission { pipeline: "orders".into(), messages, ordered: true, idempotency: None, wait: false, backlog };
    assert!(matches!(store.admit(admission).await.unwrap(), Admitted::Taken { .. }));
}

/// The source is kept as long as its connection: what it has claimed goes back with it.
struct Reading {
    connection: Connection,
    _source: Box<dyn sluicegate_engine::source::Source>,
}

impl std::ops::Deref for Reading {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl std::ops::DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

async fn read(store: &Arc<Store>) -> Reading {
    let mut source = StoreInbox::new(Arc::clone(store), &"orders".into()).source(Lanes::default());
    Reading { connection: source.connect().await.unwrap(), _source: source }
}

async fn take(reading: &mut Reading, count: usize) -> Vec<Received> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(timeout(LIMIT, reading.inlet.receive(16)).await.expect("a message comes").unwrap());
    }
    taken
}

async fn nothing_to_take(reading: &mut Reading) {
    if let Ok(received) = timeout(NOTHING, reading.inlet.receive(16)).await {
        panic!("{received:?}");
    }
}

async fn deliver(reading: &mut Reading, received: Vec<Received>) {
    let settled: Vec<_> =
        received.into_iter().map(|one| Settled::new(one.token, Arc::new(one.message), Outcome::default())).collect();
    reading.settler.settle(&settled).await.unwrap();
}

fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(|received| received.message.id.as_str()).collect()
}

async fn left(store: &Store) -> i64 {
    testing::select(store, "SELECT count(*) FROM inbox").await.unwrap()
}
