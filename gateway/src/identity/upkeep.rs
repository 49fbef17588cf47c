//! Keeps the directory and the audit up, while the gateway runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::audit::Audit;
use super::directory::Directory;
use crate::config::Config;

/// How often it is looked whether keys or tenants have changed, beside the store's own news.
const LOOK: Duration = Duration::from_millis(500);
/// How often uses of keys are written.
const NOTE: Duration = Duration::from_secs(5);
/// How often counted denials are written, and old entries removed.
const TRIM: Duration = Duration::from_secs(30);

/// Until it is stopped; then what was counted is written.
pub async fn keep_up(
    directory: Directory,
    audit: Arc<Audit>,
    config: watch::Receiver<Arc<Config>>,
    stop: CancellationToken,
) {
    let (mut keys, mut tenants) = (directory.store().api_key_news(), directory.store().tenant_news());
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut noted_at, mut trimmed_at) = (Instant::now(), Instant::now());
    let mut is_failing = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = looks.tick() => {}
            Ok(()) = keys.changed() => {}
            Ok(()) = tenants.changed() => {}
        }
        match directory.renew().await {
            Ok(()) => is_failing = false,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(%error, "cannot look for changes of keys and tenants; those known before count on");
                }
                is_failing = true;
                continue;
            }
        }
        if noted_at.elapsed() >= NOTE {
            noted_at = Instant::now();
            if let Err(error) = directory.note_use().await {
                tracing::debug!(%error, "the use of keys is noted later");
            }
        }
        if trimmed_at.elapsed() >= TRIM {
            trimmed_at = Instant::now();
            audit.settle_denials(false);
            let keep = config.borrow().audit.keep;
            if let Err(error) = audit.trim(keep).await {
                tracing::debug!(%error, "old entries of the audit are removed later");
            }
        }
    }
    audit.settle_denials(true);
    if let Err(error) = directory.note_use().await {
        tracing::debug!(%error, "the last use of keys was not noted");
    }
}
