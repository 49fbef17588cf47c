//! Which lanes of an inbox are open: the pipeline's own, and those of targets that take messages now.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::breaker::BreakerState;
use crate::link::LinkState;
use crate::target_driver::{Readiness, TargetLink};

/// How often a lane is looked at that is closed by something that opens by time alone, and tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A view of a pipeline's targets for its [inbox](crate::inbox::Inbox).
#[derive(Clone, Default)]
pub struct Lanes {
    targets: Vec<Arc<Readiness>>,
    last: CancellationToken,
}

/// One lane that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLane {
    /// Empty, or the target's name.
    pub name: Arc<str>,
    /// Most messages to give out now: one where a circuit breaker probes.
    pub max_messages: usize,
}

impl Lanes {
    /// The lanes of a pipeline with these targets; `last` is cancelled when nothing more comes from its other source.
    pub fn new<'a>(targets: impl IntoIterator<Item = &'a TargetLink>, last: CancellationToken) -> Self {
        let targets = targets.into_iter().map(|target| Arc::clone(target.readiness())).collect();
        Self { targets, last }
    }

    /// The lanes that are open now, the pipeline's own first.
    pub fn open(&self) -> Vec<OpenLane> {
        let own = OpenLane { name: Arc::from(""), max_messages: usize::MAX };
        let targets = self.targets.iter().filter(|target| target.obstacle().is_none()).filter_map(|target| {
            let max_messages = match target.breaker.state() {
                BreakerState::Closed => usize::MAX,
                BreakerState::Open | BreakerState::HalfOpen if target.breaker.may_probe() => 1,
                BreakerState::Open | BreakerState::HalfOpen => return None,
            };
            Some(OpenLane { name: Arc::clone(&target.link.name), max_messages })
        });
        std::iter::once(own).chain(targets).collect()
    }

    /// Names of the pipeline's targets. What waits in the lane of any other name is to be given out: its target is gone.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.targets.iter().map(|target| &target.link.name)
    }

    /// Waits until a closed lane may have opened; for ever while all are open. Cancel safe.
    pub async fn changed(&self) {
        let opens_by_time = self.targets.iter().any(|target| {
            target.link.connected() && (target.obstacle().is_some() || target.breaker.state() != BreakerState::Closed)
        });
        let mut states: Vec<_> = self.targets.iter().map(|target| target.link.state.clone()).collect();
        let connecting = states.iter_mut().filter(|state| matches!(*state.borrow(), LinkState::Connecting(_)));
        let connected: Vec<_> = connecting
            .map(|state| Box::pin(state.wait_for(|state| !matches!(state, LinkState::Connecting(_)))))
            .collect();
        let some_connected = async {
            if connected.is_empty() {
                std::future::pending::<()>().await;
            }
            drop(select_all(connected).await.0);
        };
        if !opens_by_time {
            return some_connected.await;
        }
        if timeout(LOOK_AGAIN, some_connected).await.is_err() {
            tracing::trace!("looking at closed lanes again");
        }
    }

    /// Whether the pipeline's other source has come to its end: the inbox ends once it is empty.
    pub fn is_last(&self) -> bool {
        self.last.is_cancelled()
    }

    /// Waits until [`is_last`](Self::is_last). Cancel safe.
    pub async fn last(&self) {
        self.last.cancelled().await;
    }
}
