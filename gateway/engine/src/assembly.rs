//! A pipeline with its source, inbox and targets: all that has to run for it to run, started and stopped in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::blueprint::{Blueprint, State};
use crate::flow::Flow;
use crate::lanes::Lanes;
use crate::link::{End, Link, LinkOwner};
use crate::meters::Meters;
use crate::parked_keys::ParkedKeys;
use crate::pipeline::Pipeline;
use crate::source_driver::{Arrival, SourceDriver};
use crate::target_driver::{TargetDriver, TargetLink, drive};
use crate::trip::Origin;

/// All that has to run for a pipeline to run; nothing does before [`run`](Self::run).
pub struct Assembly {
    pipeline: Arc<Pipeline>,
    source: SourceDriver,
    arrivals: mpsc::Receiver<Arrival>,
    inbox: Option<(SourceDriver, mpsc::Receiver<Arrival>)>,
    /// Cancelled when only the inbox can bring more messages.
    inbox_is_last: CancellationToken,
    targets: Vec<TargetDriver>,
    links: Vec<Link>,
}

/// How a pipeline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Messages that were given back because the drain limit passed.
    pub abandoned: usize,
    /// Whether a driver panicked: a defect, after which the pipeline does nothing more.
    pub failed: bool,
}

/// Longest wait for connections to close after everything is settled.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

impl Assembly {
    /// Puts the parts together. Does no I/O and starts nothing.
    pub fn new(blueprint: Blueprint) -> Self {
        let Blueprint { name, source_system, source, steps, targets, max_in_flight, .. } = blueprint;
        let owner = LinkOwner::new(&name, &Arc::from("source"), source_system, End::Source);
        let mut links = vec![owner.link()];
        let (source, arrivals) = SourceDriver::new(source, owner, max_in_flight, None);
        let (targets, drivers): (Vec<_>, Vec<_>) =
            targets.into_iter().map(|part| drive(part.target, part.system, &name, &part.name, part.settings)).unzip();
        links.extend(targets.iter().map(TargetLink::link));
        let State { inbox, receipts, deduplication } = blueprint.state;
        let inbox_is_last = CancellationToken::new();
        let inbox_driver = inbox.as_ref().map(|inbox| {
            let owner = LinkOwner::new(&name, &Arc::from("inbox"), "store", End::Source);
            links.push(owner.link());
            let source = inbox.source(Lanes::new(&targets, inbox_is_last.clone()));
            SourceDriver::new(source, owner, max_in_flight, Some(Origin::Inbox))
        });
        let pipeline = Arc::new(Pipeline {
            meters: Meters::new(&name, &steps),
            name,
            config_version: blueprint.config_version,
            retry: blueprint.retry,
            dead_letters: blueprint.dead_letters,
            order: blueprint.order,
            steps,
            targets,
            handler_timeout: blueprint.handler_timeout,
            inbox,
            parked_keys: ParkedKeys::default(),
            receipts,
            deduplication,
        });
        Self { pipeline, source, arrivals, inbox: inbox_driver, inbox_is_last, targets: drivers, links }
    }

    /// The connections, to watch; the source's first.
    pub fn links(&self) -> Vec<Link> {
        self.links.clone()
    }

    /// Runs until `stop` is cancelled or the source ends; then drains what is in flight for at most `drain_limit` and
    /// gives the rest back to the source.
    pub async fn run(self, stop: CancellationToken, drain_limit: Duration) -> Ended {
        let Self { pipeline, source, mut arrivals, inbox, inbox_is_last, targets, .. } = self;
        let mut drivers = JoinSet::new();
        let no_more_connects = stop.child_token();
        for target in targets {
            drivers.spawn(target.run(no_more_connects.clone()));
        }
        pipeline.load_parked_keys(&stop).await;
        drivers.spawn(source.run(stop.clone()));
        let mut returning = inbox.map(|(inbox, returning)| {
            drivers.spawn(inbox.run(stop.clone()));
            returning
        });
        let mut flow = Flow::new(pipeline, stop);
        flow.take(&mut arrivals, returning.as_mut(), &inbox_is_last).await;
        drop((arrivals, returning));
        let abandoned = flow.drain(drain_limit).await;
        // With the pipeline go its target links: the drivers finish and close.
        drop(flow);
        no_more_connects.cancel();
        let mut failed = false;
        let closing = async {
            while let Some(ended) = drivers.join_next().await {
                if let Err(error) = ended {
                    error!(%error, "a connection's driver panicked");
                    failed = true;
                }
            }
        };
        if timeout(CLOSE_LIMIT, closing).await.is_err() {
            warn!("connections did not close within {CLOSE_LIMIT:?}; dropping them");
            drivers.shutdown().await;
        }
        Ended { abandoned, failed }
    }
}
