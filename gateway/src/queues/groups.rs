//! The groups of all queues.

use sluicegate_store::queue::{Position, Start};

use super::all::{AllQueues, Keeper, offset};
use super::error::QueuesError;
use super::kept::{KeptGroup, KeptPosition, Place};

impl AllQueues {
    /// Makes a group, and says whether it is new. One that exists stays where it is.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `TooMany`.
    pub async fn create_group(&self, queue: &str, group: &str, start: Start) -> Result<bool, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.create_group(queue, group, start).await?),
            Keeper::Redis(redis) => redis.create_group(group, start).await,
        }
    }

    /// The groups of a queue, by name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn groups(&self, queue: &str) -> Result<Vec<KeptGroup>, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.groups(queue).await?.into_iter().map(KeptGroup::from).collect()),
            Keeper::Redis(redis) => redis.groups().await,
        }
    }

    /// One group.
    ///
    /// # Errors
    /// `NotFound`, `GroupNotFound`.
    pub async fn group(&self, queue: &str, group: &str) -> Result<KeptGroup, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.group(queue, group).await?.into()),
            Keeper::Redis(redis) => redis.group(group).await,
        }
    }

    /// Gives the group nothing any more, on any gateway: at once in the store, within a second in Redis.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn pause(&self, queue: &str, group: &str) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.pause(queue, group).await?),
            Keeper::Redis(redis) => redis.set_paused(group, true).await,
        }
    }

    /// Goes on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn resume(&self, queue: &str, group: &str) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.resume(queue, group).await?),
            Keeper::Redis(redis) => redis.set_paused(group, false).await,
        }
    }

    /// Lets the group go on from another place. What it holds counts as settled.
    ///
    /// # Errors
    /// As [`group`](Self::group); `Invalid` for a place of the other backend.
    pub async fn reset(&self, queue: &str, group: &str, position: KeptPosition) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => {
                let position = match position {
                    KeptPosition::Earliest => Position::Earliest,
                    KeptPosition::Latest => Position::Latest,
                    KeptPosition::Place(place) => Position::Offset(offset("position", place)?),
                    KeptPosition::Time(at) => Position::Time(at),
                };
                Ok(self.store.reset(queue, group, position).await?)
            }
            Keeper::Redis(redis) => redis.reset(group, position).await,
        }
    }

    /// Removes a group.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn delete_group(&self, queue: &str, group: &str) -> Result<(), QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => Ok(self.store.delete_group(queue, group).await?),
            Keeper::Redis(redis) => redis.delete_group(group).await,
        }
    }

    /// The place before the first message that the group has not been given, if it reads in order; with priorities,
    /// before as many as it has not been given.
    ///
    /// # Errors
    /// As [`group`](Self::group).
    pub async fn reached(&self, queue: &str, group: &str) -> Result<Place, QueuesError> {
        match self.keeper(queue) {
            Keeper::Store => {
                let last = self.store.get(queue).await?.last_offset;
                Ok(Place::Offset(last.saturating_sub(self.store.group(queue, group).await?.lag)))
            }
            Keeper::Redis(redis) => redis.reached(group).await,
        }
    }
}
