//! Who waits for news of a topic, and waking them. A signal says "look again", never what happened: a waiter that is
//! woken once too often finds nothing and waits on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// The topics somebody in this process waits for.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<String, watch::Sender<u64>>,
    /// How many were left when those nobody waits for were last removed.
    swept_len: usize,
}

/// Topics are swept when they have doubled since, and not below this.
const LEAST_SWEPT_TOPICS: usize = 64;

impl Signals {
    /// From now on each commit that announces `topic`, of this gateway or another on the same store, changes the value.
    /// Subscribe first, then look, then wait: so nothing is missed.
    pub fn subscribe(&self, topic: impl Into<String>) -> watch::Receiver<u64> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.by_name.len() >= LEAST_SWEPT_TOPICS.max(2 * topics.swept_len) {
            topics.by_name.retain(|_, sender| sender.receiver_count() > 0);
            topics.swept_len = topics.by_name.len();
        }
        topics.by_name.entry(topic.into()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Wakes those who wait for `topic`.
    pub fn bump(&self, topic: &str) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = topics.by_name.get(topic) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Wakes everyone: news may have been missed.
    pub fn bump_all(&self) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in topics.by_name.values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_wait_for_the_topic_are_woken() {
        let signals = Signals::default();
        let (mut a, mut b) = (signals.subscribe("a"), signals.subscribe("b"));
        signals.bump("a");
        signals.bump("nobody's");
        assert!(a.has_changed().expect("open") && !b.has_changed().expect("open"));
        a.mark_unchanged();
        signals.bump_all();
        assert!(a.has_changed().expect("open") && b.has_changed().expect("open"));
        b.mark_unchanged();
    }

    #[test]
    fn topics_nobody_waits_for_any_more_are_forgotten() {
        let signals = Signals::default();
        let kept = signals.subscribe("kept");
        for number in 0..10_000 {
            drop(signals.subscribe(format!("topic {number}")));
        }
        let topics = signals.topics.lock().expect("not poisoned");
        assert!(topics.by_name.len() <= LEAST_SWEPT_TOPICS, "{} topics", topics.by_name.len());
        assert!(topics.by_name.contains_key("kept") && kept.has_changed().is_ok());
    }
}
