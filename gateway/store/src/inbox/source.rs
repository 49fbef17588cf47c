//! Reading an inbox: its source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sluicegate_engine::delivery::{Received, Settled};
use sluicegate_engine::failure::Failure;
use sluicegate_engine::lanes::Lanes;
use sluicegate_engine::message::now_ms;
use sluicegate_engine::source::{Connection, Inlet, Settler, Source};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::LaneWanted;
use super::ledger::{Claim, Ledger};
use super::outlook::{KeptLanes, LookAhead};
use super::settle::{Release, SettleBatch};
use super::stored::ClaimedEntry;
use super::take::{Asking, Take, Ticket};
use super::walk::LookForReady;
use crate::database::Backend;
use crate::error::StoreError;
use crate::leases::RELEASED;
use crate::store::Store;

/// Longest sleep toward a time: clocks are set forward and back.
const CLOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often lanes of targets that are gone are looked for.
const LANES_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether something has come without a word: a signal may get lost between gateways, and
/// commands write beside the gateway.
const SHARED_FALLBACK: Duration = Duration::from_secs(5);
const EMBEDDED_FALLBACK: Duration = Duration::from_secs(2);
/// A claim that belongs to no run is never given up: of what cannot be read.
const NO_RUN: u64 = 0;

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
        if self.store.backend() == Backend::Postgres && !seqs.is_empty() {
            let ledger = Arc::clone(&self.ledger);
            if !self.store.submit(Release { ledger, seqs: seqs.clone() }) {
                self.ledger.books().orphans.extend(seqs);
            }
        }
    }
}

#[async_trait]
impl Source for InboxSource {
    async fn connect(&mut self) -> Result<Connection, Failure> {
        self.ledger.count(&self.store).await?;
        let inlet = InboxInlet {
            news: self.store.signals().subscribe(&self.ledger.topic),
            released: self.store.signals().subscribe(RELEASED),
            store: Arc::clone(&self.store),
            ledger: Arc::clone(&self.ledger),
            lanes: self.lanes.clone(),
            deserted: Vec::new(),
            looked_for_lanes: None,
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
            let now = now_ms();
            let lanes = self.wanted().await?;
            let entries = self.claim(lanes.clone(), max, now).await?;
            if !entries.is_empty() {
                return Ok(entries.into_iter().map(ClaimedEntry::into_received).collect());
            }
            let (pipeline, lanes) = (Arc::clone(&ledger.pipeline), lanes.into_iter().map(|lane| lane.name).collect());
            let outlook = store.ask(LookAhead { pipeline, lanes, now_ms: now }).await?;
            if is_last && outlook.is_empty {
                return Err(Failure::end_of_input());
            }
            let patience = match outlook.next_ms {
                Some(at) => Duration::from_millis(at.saturating_sub(now_ms()).max(1)).min(CLOCK_PATIENCE),
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

    async fn claim(
        &self,
        lanes: Vec<LaneWanted>,
        max_messages: usize,
        now_ms: u64,
    ) -> Result<Vec<ClaimedEntry>, StoreError> {
        let (ledger, run) = (Arc::clone(&self.ledger), self.run.number);
        match self.store.backend() {
            Backend::Sqlite => {
                let walk = ledger.walk(now_ms);
                let found = self.store.ask(LookForReady { ledger, lanes, max_messages, now_ms }).await?;
                for (seq, error) in found.damaged {
                    tracing::error!(pipeline = %self.ledger.pipeline, seq, %error, "a message of the inbox cannot be read; it stays where it is");
                    self.ledger.books().enter_claim(seq, Claim::unreadable(NO_RUN));
                }
                Ok(walk.claim(run, found.entries, found.cursors))
            }
            Backend::Postgres => {
                let ticket = Arc::new(Ticket::default());
                let asking = Asking { ledger: Arc::clone(&ledger), ticket: Arc::clone(&ticket) };
                let orphans = ledger.books().orphans.iter().copied().collect();
                let taken =
                    self.store.change(Take { ledger, run, lanes, max_messages, now_ms, orphans, ticket }).await?;
                asking.done();
                Ok(taken)
            }
        }
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
