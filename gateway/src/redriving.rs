//! Runs redrive jobs, and keeps the dead letters within what the configuration says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_engine::pipeline::Order;
use sluicegate_store::redrive::{ActiveJob, Advance, Destination, Destinations};
use sluicegate_store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::in_force::InForce;

/// How often jobs are looked for: commands in other processes cannot tell a gateway on SQLite.
const POLL: Duration = Duration::from_millis(500);
/// How often running jobs send.
const TICK: Duration = Duration::from_millis(100);
/// After a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// How often old letters and jobs are removed.
const TRIM: Duration = Duration::from_secs(60);
/// How long the outcome of a job is kept.
const KEEP_JOBS: Duration = Duration::from_secs(30 * 86_400);
/// A job that could not send for a while makes up for this much of it at once.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Until it is stopped. What it has sent is in the inboxes, and a restarted gateway goes on with the rest.
pub async fn run(store: Arc<Store>, in_force: watch::Receiver<Arc<InForce>>, stop: CancellationToken) {
    let mut news = store.redrive_news();
    let mut redriving = Redriving { store, in_force, paces: HashMap::new(), trimmed_at: None };
    loop {
        news.mark_unchanged();
        let work = async {
            redriving.trim().await?;
            redriving.advance().await
        };
        let wait = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = work => match done {
                Ok(wait) => wait,
                Err(error) => {
                    warn!(%error, "redriving dead letters pauses");
                    PAUSE
                }
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
            changed = news.changed() => {
                if changed.is_err() {
                    sleep(wait).await;
                }
            }
        }
    }
}

struct Redriving {
    store: Arc<Store>,
    in_force: watch::Receiver<Arc<InForce>>,
    paces: HashMap<String, Pace>,
    trimmed_at: Option<Instant>,
}

/// How many letters of a job may be sent now.
struct Pace {
    credit: f64,
    at: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { credit: 1.0, at: Instant::now() }
    }

    fn earn(&mut self, rate_per_second: u32) {
        let rate = f64::from(rate_per_second);
        let now = Instant::now();
        self.credit += rate * (now - self.at).as_secs_f64();
        self.credit = self.credit.min((rate * CATCH_UP.as_secs_f64()).max(1.0));
        self.at = now;
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and small")]
    fn whole(&self) -> u32 {
        self.credit as u32
    }
}

impl Redriving {
    /// Lets every job of this gateway go on; returns how long until the next look.
    async fn advance(&mut self) -> Result<Duration, StoreError> {
        let jobs = self.store.claim_redrives().await?;
        self.paces.retain(|id, _| jobs.iter().any(|job| job.id == *id));
        if jobs.is_empty() {
            return Ok(POLL);
        }
        let destinations = self.destinations();
        for job in &jobs {
            self.advance_job(job, &destinations).await?;
        }
        Ok(TICK)
    }

    async fn advance_job(&mut self, job: &ActiveJob, destinations: &Destinations) -> Result<(), StoreError> {
        let pace = self.paces.entry(job.id.clone()).or_insert_with(|| {
            info!(redrive = job.id, rate_per_second = job.rate_per_second, "redrive job runs here");
            Pace::new()
        });
        pace.earn(job.rate_per_second);
        while pace.whole() > 0 {
            match self.store.advance_redrive(job, destinations, pace.whole()).await? {
                // Nothing of it could be sent now, as when somebody edits a letter: later.
                Advance::Sent(0) | Advance::Waits | Advance::Lost => return Ok(()),
                Advance::Sent(count) => pace.credit = (pace.credit - f64::from(count)).max(0.0),
                Advance::Done => {
                    info!(redrive = job.id, "redrive job is done");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn destinations(&self) -> Destinations {
        let in_force = Arc::clone(&self.in_force.borrow());
        let destination = |order: Order| Destination { ordered: order != Order::None };
        in_force.pipelines().map(|pipeline| (Arc::clone(&pipeline.name), destination(pipeline.order))).collect()
    }

    async fn trim(&mut self) -> Result<(), StoreError> {
        if self.trimmed_at.is_some_and(|at| at.elapsed() < TRIM) {
            return Ok(());
        }
        let limits = self.in_force.borrow().operator.dead_letters;
        let keep_ms = limits.keep.map(milliseconds);
        let trimmed = self.store.trim_letters(keep_ms, limits.max).await?;
        if trimmed > 0 {
            info!(deleted = trimmed, "old dead letters were deleted, as `dead_letters` says");
        }
        self.store.forget_redrives(milliseconds(KEEP_JOBS)).await?;
        self.trimmed_at = Some(Instant::now());
        Ok(())
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_sends_at_its_rate_and_catches_up_only_a_little() {
        let mut pace = Pace::new();
        let mut sent = 0;
        for _ in 0..100 {
            tokio::time::advance(TICK).await;
            pace.earn(7);
            sent += pace.whole();
            pace.credit -= f64::from(pace.whole());
        }
        assert!((70..=71).contains(&sent), "{sent} in ten seconds");
        tokio::time::advance(Duration::from_secs(3_600)).await;
        pace.earn(100);
        assert_eq!(pace.whole(), 50);
    }
}
