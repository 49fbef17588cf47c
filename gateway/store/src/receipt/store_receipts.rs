//! Where pipelines hand in receipts. Nothing here waits: what does not fit is counted and lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluicegate_engine::message::Message;
use sluicegate_engine::receipt::{Receipt, Receipts};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::keeper::{self, Keeper, MAX_BATCH_RECEIPTS};
use super::kept::Kept;
use crate::store::Store;

/// Receipts that may wait to be written.
const MAX_QUEUED_RECEIPTS: usize = 8_192;
/// Bytes of receipts that may wait: those of messages that failed often are long.
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// How long closing waits for the store to take what is queued.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// Least time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Which receipts are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiptSettings {
    /// The share of messages without trouble whose receipts are kept, 0 to 1. Those with trouble always are.
    pub sample: f64,
    /// How long receipts are kept, give or take a minute.
    pub keep: Duration,
}

/// Keeps receipts in the store, in batches (up to 512, at most 100 ms old), and deletes the old ones.
///
/// [`record`](Receipts::record) takes a receipt and never waits: at most 8,192 of them and 32 MiB wait to be written;
/// more are lost, counted in `sluicegate_receipts_lost_total` and logged once a minute at most. A store that cannot write
/// is tried for 10 seconds with each batch.
#[derive(Debug)]
pub struct StoreReceipts {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Kept>,
    stop: Arc<Notify>,
    /// Until someone closes it.
    tasks: Mutex<Option<[JoinHandle<()>; 2]>>,
}

/// What the tasks know, too.
#[derive(Debug)]
pub(super) struct Shared {
    /// A message is in the sample when the hash of its id is below.
    threshold: AtomicU64,
    keep_ms: AtomicU64,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
    /// When the last warning was written, and how many were lost by then.
    warned: Mutex<(Option<Instant>, u64)>,
    /// A batch is full before its time.
    pub(super) ripe: Notify,
}

impl StoreReceipts {
    /// Begins to keep receipts in `store`. Must be called within a Tokio runtime; [close](Self::close) it before the
    /// store.
    pub fn start(store: Arc<Store>, settings: ReceiptSettings) -> Self {
        let shared = Arc::new(Shared {
            threshold: AtomicU64::new(threshold(settings.sample)),
            keep_ms: AtomicU64::new(millis(settings.keep)),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            warned: Mutex::new((None, 0)),
            ripe: Notify::new(),
        });
        let (queue, receipts) = mpsc::channel(MAX_QUEUED_RECEIPTS);
        let stop = Arc::new(Notify::new());
        let keeper = Keeper::new(Arc::clone(&store), Arc::clone(&shared), receipts, Arc::clone(&stop));
        let tasks = [tokio::spawn(keeper.run()), tokio::spawn(keeper::delete_old(store, Arc::clone(&shared)))];
        Self { shared, queue, stop, tasks: Mutex::new(Some(tasks)) }
    }

    /// Takes over other settings, for receipts recorded from now on and, as to how long they are kept, for all.
    pub fn set(&self, settings: ReceiptSettings) {
        self.shared.threshold.store(threshold(settings.sample), Ordering::Relaxed);
        self.shared.keep_ms.store(millis(settings.keep), Ordering::Relaxed);
    }

    /// How many were lost since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Writes what is queued, waiting at most 10 seconds for the store, and takes no more.
    pub async fn close(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some([mut writing, deleting]) = tasks else { return };
        deleting.abort();
        self.stop.notify_one();
        match timeout(CLOSE_LIMIT, &mut writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the task that writes receipts failed"),
            Err(_) => {
                writing.abort();
                self.shared.lose(self.shared.waiting.load(Ordering::Relaxed), "the gateway stops");
            }
        }
    }
}

impl Drop for StoreReceipts {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        for task in tasks.iter().flatten() {
            task.abort();
        }
    }
}

impl Receipts for StoreReceipts {
    /// By the message's id, so that all stretches of a message, at all gateways, agree.
    fn samples(&self, message: &Message) -> bool {
        let threshold = self.shared.threshold.load(Ordering::Relaxed);
        threshold == u64::MAX || hash(message.id.as_bytes()) < threshold
    }

    fn record(&self, receipt: Receipt) {
        let kept = Kept::new(receipt);
        let bytes = kept.size_bytes;
        if !self.shared.enter(bytes) {
            self.shared.lose(1, "too many wait to be written");
            return;
        }
        if self.queue.try_send(kept).is_err() {
            self.shared.leave(1, bytes);
            self.shared.lose(1, "too many wait to be written, or the gateway stops");
            return;
        }
        if self.queue.max_capacity() - self.queue.capacity() >= MAX_BATCH_RECEIPTS {
            self.shared.ripe.notify_one();
        }
    }
}

impl Shared {
    pub fn keep_ms(&self) -> u64 {
        self.keep_ms.load(Ordering::Relaxed)
    }

    /// Takes room, if there is any.
    fn enter(&self, bytes: usize) -> bool {
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_QUEUED_BYTES {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Gives room back.
    pub fn leave(&self, receipts: usize, bytes: usize) {
        self.waiting.fetch_sub(receipts, Ordering::Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn lose(&self, receipts: usize, why: &str) {
        if receipts == 0 {
            return;
        }
        let receipts = receipts as u64;
        metrics::counter!("sluicegate_receipts_lost_total").increment(receipts);
        let lost = self.lost.fetch_add(receipts, Ordering::Relaxed) + receipts;
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.0.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            tracing::warn!(
                lost = lost - warned.1,
                why,
                "receipts lost; messages are not: `receipts.sample` keeps fewer"
            );
            *warned = (Some(Instant::now()), lost);
        }
    }
}

/// Everything below it is in the sample; `u64::MAX` stands for all.
fn threshold(sample: f64) -> u64 {
    // Saturates: 1 gives u64::MAX, what is below 0 or no number gives 0.
    (sample * u64::MAX as f64) as u64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// FNV-1a with the last mixing of SplitMix64, for even high bits: the same in every version of this program, so that
/// gateways agree. Whoever chooses ids may choose what is sampled; nothing depends on it.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
