//! How a message waits: in flight, with its source, or in the inbox.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Fault, History, Origin, Place, Trip};
use crate::delivery::{Outcome, Settlement};
use crate::failure::Failure;
use crate::inbox::{Entry, Progress, Waypoint};
use crate::message::now_ms;
use crate::pipeline::Order;
use crate::receipt::Happening;
use crate::retry::HOLD_LIMIT;
use crate::target_driver::{Obstacle, TargetLink};

/// Why a message is given back when the gateway stops.
const STOPPING: &str = "the gateway is stopping; the message stays with its source";

/// How long a message is given back for when its target takes none; a parked one waits for the target itself.
const TARGET_DOWN_DELAY: Duration = Duration::from_secs(5);

/// How a message makes room for others while it waits for longer than [`HOLD_LIMIT`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retreat {
    /// Not at all.
    None,
    /// Its source takes it back.
    Postpone,
    /// Its entry in the inbox is replaced.
    Replace,
    /// It is put into the inbox.
    Park,
}

/// What a message waits for.
#[derive(Clone, Copy)]
enum Until {
    /// This time from now.
    After(Duration),
    /// Its target takes messages; a source that takes it back delivers it after this time all the same.
    Open(Duration),
    /// The messages before it in its lane have gone.
    Predecessors,
}

impl Trip<'_> {
    /// Waits until the target is connected, has room and its circuit breaker lets a message through. A message that can
    /// retreat does not wait here for long: it would hold the place of messages for other targets.
    ///
    /// # Errors
    /// Outer: the message's way ends here. Inner: it has waited as long as it may.
    pub(super) async fn admitted(
        &self,
        place: Place<'_>,
        target: &TargetLink,
        history: &History,
    ) -> Result<Result<(), Fault>, Outcome> {
        let admission = self.admission(place, target, history);
        let Some(left) = self.patience(place) else { return admission.await.map(Ok) };
        match timeout(left, admission).await {
            Ok(admitted) => admitted.map(Ok),
            Err(_) => {
                let text =
                    format!("target `{}` could not take it before it expired or reached its `max_age`", target.name);
                Ok(Err(Fault::Target(Failure::transient(text))))
            }
        }
    }

    async fn admission(&self, place: Place<'_>, target: &TargetLink, history: &History) -> Result<(), Outcome> {
        let retreats = self.retreat(place) != Retreat::None;
        loop {
            match target.readiness().obstacle() {
                Some(Obstacle::Down(down_for)) => {
                    let patience = if retreats { HOLD_LIMIT.saturating_sub(down_for) } else { Duration::MAX };
                    let connected = tokio::select! {
                        biased;
                        connected = timeout(patience, target.connected()) => connected.is_ok(),
                        () = self.stop.cancelled() => return Err(Outcome::requeued(STOPPING)),
                    };
                    if !connected {
                        let why = format!("target `{}` is not connected", target.name);
                        self.give_way(place, Until::Open(TARGET_DOWN_DELAY), history, why).await?;
                    }
                }
                Some(Obstacle::Stuck) if retreats => {
                    let why = format!("target `{}` has not answered for {HOLD_LIMIT:?}", target.name);
                    self.give_way(place, Until::Open(TARGET_DOWN_DELAY), history, why).await?;
                }
                Some(Obstacle::Stuck) | None => match target.admit() {
                    Ok(()) => return Ok(()),
                    Err(after) if after <= HOLD_LIMIT => self.hold(after).await?,
                    Err(after) => {
                        let why = format!("the circuit breaker of target `{}` is open", target.name);
                        self.give_way(place, Until::Open(after), history, why).await?;
                    }
                },
            }
        }
    }

    /// How long it waits for room among the messages in publication.
    pub fn room_patience(&self, place: Place<'_>) -> Option<Duration> {
        (self.retreat(place) != Retreat::None).then_some(HOLD_LIMIT)
    }

    /// How much longer a message may wait for a target, if there is a limit.
    fn patience(&self, place: Place<'_>) -> Option<Duration> {
        let by_age = self.pipeline.retry.max_age.map(|limit| limit.saturating_sub(self.age()));
        let by_expiry = place.message.time_to_live();
        by_age.into_iter().chain(by_expiry).min()
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(
        &self,
        place: Place<'_>,
        after: Duration,
        history: &History,
        why: String,
    ) -> Result<(), Outcome> {
        if after <= HOLD_LIMIT {
            self.hold(after).await
        } else {
            self.give_way(place, Until::After(after), history, why).await
        }
    }

    /// Waits `delay` before a place is reached at all: a router's delay, a message's delivery time.
    ///
    /// # Errors
    /// The message's way ends here for now.
    pub async fn defer(&self, place: Place<'_>, delay: Duration, why: String) -> Result<(), Outcome> {
        // A source would deliver it again from its beginning: it would be routed, and delayed, again.
        if delay <= HOLD_LIMIT || self.retreat(place) == Retreat::Postpone && self.pipeline.inbox.is_none() {
            return self.hold(delay).await;
        }
        let history = History::new();
        let how = match self.retreat(place) {
            Retreat::Postpone => Retreat::Park,
            other => other,
        };
        self.retreat_by(how, place, Until::After(delay), &history, why).await
    }

    /// Puts the message behind those of its key that wait in its lane already.
    ///
    /// # Errors
    /// Always but when the store cannot take it: the message's way ends here for now.
    pub async fn queue_up(&self, place: Place<'_>) -> Result<(), Outcome> {
        let why = "it waits behind an earlier message with its key".to_owned();
        self.retreat_by(Retreat::Park, place, Until::Predecessors, &History::new(), why).await
    }

    async fn give_way(&self, place: Place<'_>, until: Until, history: &History, why: String) -> Result<(), Outcome> {
        self.retreat_by(self.retreat(place), place, until, history, why).await
    }

    async fn retreat_by(
        &self,
        how: Retreat,
        place: Place<'_>,
        until: Until,
        history: &History,
        why: String,
    ) -> Result<(), Outcome> {
        let (after, not_before_ms) = match until {
            Until::After(after) => (after, now_ms().saturating_add(after.as_millis() as u64)),
            Until::Open(after) => (after, 0),
            Until::Predecessors => (HOLD_LIMIT, 0),
        };
        // An expired message becomes a dead letter when it expires, not when its wait is over.
        let not_before_ms = place.message.expires_at_ms.map_or(not_before_ms, |at| not_before_ms.min(at));
        match how {
            Retreat::None => self.hold(after).await,
            Retreat::Postpone => {
                let attempt = history.trial.attempt;
                let undecided = Some(format!("{why}; attempt {attempt} follows in {after:?}"));
                Err(Outcome { settlement: Settlement::Postponed { after, attempt }, undecided, ..Outcome::default() })
            }
            Retreat::Replace => {
                let entry = self.entry(place, history, not_before_ms);
                self.note_parked(&entry, &why);
                // From its own lane it goes into its target's: what follows it there must go behind it.
                let lane = entry.progress.waypoint.lane();
                if let Some(key) = entry.message.key.as_ref().filter(|_| entry.ordered)
                    && lane != self.progress.waypoint.lane()
                {
                    self.pipeline.parked_keys.enter(lane, key.clone());
                }
                let settlement = Settlement::Postponed { after, attempt: history.trial.attempt };
                let parked = Some(Box::new(entry));
                Err(Outcome { settlement, undecided: Some(why), parked, ..Outcome::default() })
            }
            Retreat::Park => self.park(self.entry(place, history, not_before_ms), after, why).await,
        }
    }

    /// Waits with the message in flight.
    ///
    /// # Errors
    /// The gateway is stopping.
    pub async fn hold(&self, delay: Duration) -> Result<(), Outcome> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Outcome::requeued(STOPPING)),
            () = sleep(delay) => Ok(()),
        }
    }

    /// A message that was split or fanned out cannot go back to where it came from: its other parts would come again.
    fn retreat(&self, place: Place<'_>) -> Retreat {
        let unordered = self.pipeline.order == Order::None;
        match (self.origin, &self.pipeline.inbox) {
            (Origin::Source { postpones: true }, _) if place.alone && unordered => Retreat::Postpone,
            (Origin::Source { .. }, Some(_)) => Retreat::Park,
            (Origin::Inbox, Some(_)) if place.alone => Retreat::Replace,
            // Put in anew, it would stand behind those of its key that follow it.
            (Origin::Inbox, Some(_)) if !unordered && place.target.is_none() => Retreat::None,
            (Origin::Inbox, Some(_)) => Retreat::Park,
            (Origin::Source { .. } | Origin::Inbox, None) => Retreat::None,
        }
    }

    fn entry(&self, place: Place<'_>, history: &History, not_before_ms: u64) -> Entry {
        let waypoint = match (place.target, place.step) {
            (Some(target), _) => Waypoint::Target(Arc::clone(&target.name)),
            (None, Some(step)) => Waypoint::Step(Arc::clone(step)),
            (None, None) => Waypoint::Start,
        };
        Entry {
            original: Arc::clone(self.original),
            message: Arc::clone(place.message),
            progress: Progress {
                waypoint,
                attempt: history.trial.attempt,
                disconnects: history.trial.disconnects,
                attempts: history.attempts.clone(),
                received_at_ms: self.received_at_ms(),
                redrive: self.progress.redrive.clone(),
            },
            not_before_ms,
            ordered: self.pipeline.order != Order::None && place.message.key.is_some(),
        }
    }

    async fn park(&self, entry: Entry, after: Duration, why: String) -> Result<(), Outcome> {
        let Some(inbox) = &self.pipeline.inbox else { return self.hold(after).await };
        let key = entry.message.key.clone().filter(|_| entry.ordered);
        let lane = entry.progress.waypoint.lane().to_owned();
        if let Some(key) = &key {
            self.pipeline.parked_keys.enter(&lane, key.clone());
        }
        self.note_parked(&entry, &why);
        match inbox.park(entry).await {
            Ok(()) => {
                self.pipeline.meters.parked.increment(1);
                Err(Outcome { settlement: Settlement::Parked, undecided: Some(why), ..Outcome::default() })
            }
            Err(failure) => {
                warn!(pipeline = %self.pipeline.name, message.id = %self.original.id, error = %failure, "cannot park the message; it waits in flight");
                if let Some(key) = &key {
                    self.pipeline.parked_keys.leave(&lane, key);
                }
                self.hold(after).await
            }
        }
    }

    fn note_parked(&self, entry: &Entry, why: &str) {
        self.journal.note(|| Happening::Parked {
            waypoint: entry.progress.waypoint.clone(),
            until_ms: entry.not_before_ms,
            why: why.to_owned(),
        });
    }
}
