//! Reading an inbox: its source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::LaneWanted;
use super::aside::{self, Waited};
use super::ledger::Ledger;
use super::outlook::{KeptLanes, LookAhead};
use super::settle::{Release, SettleBatch};
use super::stored::ClaimedEntry;
use super::take::{Asking, Take, Ticket};
use super::walk::LookForReady;
use crate::clock::CLOCK_PATIENCE;
use crate::database::Backend;
use crate::error::StoreError;
use crate::leases::RELEASED;
use crate::store::Store;

/// How often lanes of targets that are gone are looked for.
const LANES_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether something has come without a word: a signal may get lost between gateways, and
/// commands write beside the gateway.
const SHARED_FALLBACK: Duration = Duration::from_secs(5);
const EMBEDDED_FALLBACK: Duration = Duration::from_secs(2);
/// How often it is looked for what was set aside long enough ago.
const ASIDE_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct InboxSource {
    pub store: Arc<Store>,
    pub ledger: Arc<Ledger>,
    pub lanes: Lanes,
    pub run: Arc<Run>,
}

/// A source's life. What it has claimed is given up with it.
pub(super) struct Run {
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    number: u64,
}

impl Run {
    pub fn begin(store: &Arc<Store>, ledger: &Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { store: Arc::clone(store), ledger: Arc::clone(ledger), number: ledger.begin_run() })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let seqs = self.ledger.end_run(self.number);
        give_back(&self.store, &self.ledger, seqs);
    }
}

#[async_trait]
impl Source for InboxSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        self.ledger.count(&self.store).await?;
        aside::take_up(&self.store, &self.ledger, Waited::AnyTime).await?;
        let inlet = InboxInlet {
            news: self.store.signals().subscribe(&self.ledger.topic),
            released: self.store.signals().subscribe(RELEASED),
            store: Arc::clone(&self.store),
            ledger: Arc::clone(&self.ledger),
            lanes: self.lanes.clone(),
            deserted: Vec::new(),
            looked_for_lanes: None,
            looked_aside: Instant::now(),
            run: Arc::clone(&self.run),
        };
        let settler = InboxSettler { store: Arc::clone(&self.store), ledger: Arc::clone(&self.ledger) };
        Ok(Connection { inlet: Box::new(inlet), settler: Box::new(settler), resumes: true, postpones: true })
    }
}

struct InboxInlet {
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    lanes: Lanes,
    news: watch::Receiver<u64>,
    released: watch::Receiver<u64>,
    /// Lanes of targets that are gone, and when they were looked for.
    deserted: Vec<Arc<str>>,
    looked_for_lanes: Option<Instant>,
    /// When it was looked for what was set aside.
    looked_aside: Instant,
    run: Arc<Run>,
}

#[async_trait]
impl Inlet for InboxInlet {
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure> {
        let (store, ledger) = (Arc::clone(&self.store), Arc::clone(&self.ledger));
        loop {
            self.news.mark_unchanged();
            self.released.mark_unchanged();
            let mut changed = std::pin::pin!(ledger.changed.notified());
            changed.as_mut().enable();
            let is_last = self.lanes.is_last();
            let now = store.now_ms();
            let lanes = self.wanted().await?;
            let entries = self.claim(lanes.clone(), max, now).await?;
            let received = self.open(entries).await?;
            if !received.is_empty() {
                return Ok(received);
            }
            let (pipeline, lanes) = (Arc::clone(&ledger.pipeline), lanes.into_iter().map(|lane| lane.name).collect());
            let outlook = store.ask(LookAhead { pipeline, lanes, now_ms: now }).await?;
            if is_last && outlook.is_empty {
                return Err(Failure::end_of_input());
            }
            let patience = match outlook.next_ms {
                Some(at) => Duration::from_millis(at.saturating_sub(store.now_ms()).max(1)).min(CLOCK_PATIENCE),
                None if store.backend() == Backend::Postgres => SHARED_FALLBACK,
                None => EMBEDDED_FALLBACK,
            };
            let last = async {
                if is_last {
                    std::future::pending::<()>().await;
                }
                self.lanes.last().await;
            };
            tokio::select! {
                () = changed => {}
                () = sleep(patience) => {}
                () = last => {}
                () = self.lanes.changed() => {}
                news = self.news.changed() => news.map_err(|_| closed())?,
                released = self.released.changed() => released.map_err(|_| closed())?,
            }
        }
    }
}

fn closed() -> Failure {
    Failure::disconnected("the store is closed; restart the gateway")
}

impl InboxInlet {
    /// The lanes to take messages from now: the open ones, and those of targets that are gone.
    async fn wanted(&mut self) -> Result<Vec<LaneWanted>, StoreError> {
        if self.looked_for_lanes.is_none_or(|at| at.elapsed() >= LANES_PATIENCE) {
            let kept = self.store.ask(KeptLanes { pipeline: Arc::clone(&self.ledger.pipeline) }).await?;
            let is_known = |lane: &Arc<str>| lane.is_empty() || self.lanes.names().any(|name| name == lane);
            self.deserted = kept.into_iter().filter(|lane| !is_known(lane)).collect();
            self.looked_for_lanes = Some(Instant::now());
        }
        if self.looked_aside.elapsed() >= ASIDE_PATIENCE {
            aside::take_up(&self.store, &self.ledger, Waited::LongEnough).await?;
            self.looked_aside = Instant::now();
        }
        let open = self.lanes.open();
        let books = self.ledger.books();
        let open = open.into_iter().map(|lane| LaneWanted {
            // A limit holds for what is under way, not for each look.
            max_messages: match lane.max_messages {
                usize::MAX => usize::MAX,
                limited => limited.saturating_sub(books.claimed_in(&lane.name)),
            },
            name: lane.name,
        });
        let deserted = self.deserted.iter().map(|lane| LaneWanted { name: Arc::clone(lane), max_messages: usize::MAX });
        Ok(open.chain(deserted).collect())
    }

    async fn claim(&self, lanes: Vec<LaneWanted>, max_messages: usize, now_ms: u64) -> Result<Unopened, StoreError> {
        let (ledger, run) = (Arc::clone(&self.ledger), self.run.number);
        let entries = match self.store.backend() {
            Backend::Sqlite => {
                let walk = ledger.walk(now_ms);
                let found = self.store.ask(LookForReady { ledger, lanes, max_messages, now_ms }).await?;
                walk.claim(run, found.entries, found.cursors)
            }
            Backend::Postgres => {
                let ticket = Arc::new(Ticket::default());
                let asking = Asking { ledger: Arc::clone(&ledger), ticket: Arc::clone(&ticket) };
                let orphans = ledger.books().orphans.iter().copied().collect();
                let taken =
                    self.store.change(Take { ledger, run, lanes, max_messages, now_ms, orphans, ticket }).await?;
                asking.done();
                taken
            }
        };
        let seqs = entries.iter().map(|entry| entry.seq).collect();
        let kept = Kept { store: Arc::clone(&self.store), ledger: Arc::clone(&self.ledger), seqs };
        Ok(Unopened { entries, kept })
    }

    /// What can be opened, in its order; the rest is set aside.
    async fn open(&self, Unopened { entries, kept }: Unopened) -> Result<Vec<Received>, StoreError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut received = Vec::with_capacity(entries.len());
        let mut unreadable = Vec::new();
        for one in self.store.open_all(entries).await? {
            match one {
                Ok(one) => received.push(one),
                Err(one) => unreadable.push(one),
            }
        }
        if !unreadable.is_empty() {
            aside::set_aside(&self.store, &self.ledger, &unreadable).await?;
        }
        kept.handed_over();
        Ok(received)
    }
}

/// Claimed entries that nobody has opened.
struct Unopened {
    entries: Vec<ClaimedEntry>,
    kept: Kept,
}

/// What is claimed and not handed over: if who asked has gone, or it could not be opened, it is given back, at once: another
/// gateway may be able to open it.
struct Kept {
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    seqs: Vec<i64>,
}

impl Kept {
    fn handed_over(mut self) {
        self.seqs.clear();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.seqs.is_empty() {
            return;
        }
        let mut books = self.ledger.books();
        self.seqs.retain(|seq| books.forget(*seq).is_some());
        books.walk_from_start();
        drop(books);
        give_back(&self.store, &self.ledger, std::mem::take(&mut self.seqs));
        self.ledger.changed.notify_waiters();
    }
}

/// Gives back what is claimed in the database, now or with the next claim.
fn give_back(store: &Arc<Store>, ledger: &Arc<Ledger>, seqs: Vec<i64>) {
    if store.backend() == Backend::Postgres
        && !seqs.is_empty()
        && !store.submit(Release { ledger: Arc::clone(ledger), seqs: seqs.clone() })
    {
        ledger.books().orphans.extend(seqs);
    }
}

struct InboxSettler {
    store: Arc<Store>,
    ledger: Arc<Ledger>,
}

#[async_trait]
impl Settler for InboxSettler {
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure> {
        let mut settling = SettleBatch::new(&self.ledger, self.store.vault(), batch)?;
        if settling.writes(self.store.backend()) {
            self.store.change(settling).await?;
        } else {
            settling.enter(&super::settle::Applied::default());
        }
        Ok(())
    }
}
