//! Room for instances: as many as the pool has, so that making one never fails for want of it. Idle instances kept for
//! reuse give way when somebody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Somewhere idle instances are kept.
pub(crate) trait Shelf: Send + Sync {
    /// Drops one, if there is any; says whether there was.
    fn give_up_one(&self) -> bool;
}

/// Counts instances.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    /// Calls that wait for room. While there are any, nothing is put on a shelf.
    waiting: AtomicUsize,
    shelves: Mutex<Vec<Weak<dyn Shelf>>>,
    max_wait: Duration,
}

/// Somebody waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Slots {
    pub fn new(count: u32, max_wait: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count as usize)),
            waiting: AtomicUsize::new(0),
            shelves: Mutex::default(),
            max_wait,
        }
    }

    /// Makes a shelf known.
    pub fn add(&self, shelf: Weak<dyn Shelf>) {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.retain(|shelf| shelf.strong_count() > 0);
        shelves.push(shelf);
    }

    /// Whether an idle instance should be given up rather than kept.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Room for one instance; none if there was none for the longest time that a call waits. Cancel safe.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(slot);
        }
        // Announced before the shelves are searched: an instance that comes back during the search either sees us
        // waiting, or is on its shelf in time to be found.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        self.give_up_one();
        let acquired = tokio::time::timeout(self.max_wait, Arc::clone(&self.free).acquire_owned()).await;
        acquired.ok().and_then(Result::ok)
    }

    fn give_up_one(&self) {
        let shelves: Vec<_> = {
            let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
            // So that it is not always the same plugin that gives way.
            if !shelves.is_empty() {
                shelves.rotate_left(1);
            }
            shelves.iter().filter_map(Weak::upgrade).collect()
        };
        // Outside the lock: dropping an instance takes a while.
        shelves.iter().any(|shelf| shelf.give_up_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Mutex<Vec<OwnedSemaphorePermit>>);

    impl Shelf for Kept {
        fn give_up_one(&self) -> bool {
            self.0.lock().expect("no panic").pop().is_some()
        }
    }

    #[tokio::test]
    async fn an_idle_instance_gives_way() {
        let slots = Slots::new(1, Duration::from_secs(5));
        let slot = slots.take().await.expect("room");
        let shelf: Arc<Kept> = Arc::new(Kept(Mutex::new(vec![slot])));
        let known: Arc<dyn Shelf> = Arc::clone(&shelf) as Arc<dyn Shelf>;
        slots.add(Arc::downgrade(&known));
        assert!(!slots.is_wanted());
        let _slot = slots.take().await.expect("the idle one gave way");
        assert!(shelf.0.lock().expect("no panic").is_empty());
        assert!(!slots.is_wanted());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let slots = Slots::new(1, Duration::from_millis(20));
        let _busy = slots.take().await.expect("room");
        let mut waiting = Box::pin(slots.take());
        assert!(poll_once(&mut waiting).await.is_none());
        assert!(slots.is_wanted());
        assert!(waiting.await.is_none());
        assert!(!slots.is_wanted());
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
