//! What a source is. Three small traits: a source connects; a connection has an inlet to read from and a settler to
//! settle with. Sources never loop, back off or reconnect: the [source driver](crate::source_driver) does.

use async_trait::async_trait;

use crate::delivery::{Received, Settled};
use crate::failure::Failure;

/// Where messages come from.
#[async_trait]
pub trait Source: Send {
    /// Opens a connection: declares what the config asks for, begins to consume. Called again after each disconnect,
    /// with the old connection dropped before.
    ///
    /// # Errors
    /// Every failure is tried again with growing delay; a permanent one is logged as such, since only a change on the
    /// other side (a password, a conflicting queue) can end it.
    async fn connect(&mut self) -> Result<Connection, Failure>;
}

/// An open connection of a source, in two halves that are used at the same time.
pub struct Connection {
    /// To read from.
    pub inlet: Box<dyn Inlet>,
    /// To settle with.
    pub settler: Box<dyn Settler>,
    /// Whether tokens of earlier connections still settle on this one. Stream ids and offsets do; AMQP delivery tags
    /// do not, and settlements of an earlier connection are then discarded: the broker redelivers.
    pub resumes: bool,
    /// Whether the settler takes `Settlement::Postponed`.
    pub postpones: bool,
}

/// The reading half.
#[async_trait]
pub trait Inlet: Send {
    /// Waits for at least one message and returns at most `max` (at least 1) of those that are there.
    ///
    /// Need not be cancel safe: it is dropped in the middle only when the inlet is dropped with it.
    ///
    /// # Errors
    /// `EndOfInput` ends the pipeline; any other failure leads to a new connection.
    async fn receive(&mut self, max: usize) -> Result<Vec<Received>, Failure>;
}

/// The settling half.
#[async_trait]
pub trait Settler: Send {
    /// Settles a batch, in any order. Never called with an empty batch. When it returns, what was settled is known to
    /// the other side as far as its protocol allows.
    ///
    /// Not cancelled but with the connection, when the inlet has failed: then the batch is settled again on the next one
    /// if the source [resumes](Connection::resumes), so that settling twice must be the same as once there.
    ///
    /// # Errors
    /// Any failure leads to a new connection, and the batch is settled again there if the source
    /// [resumes](Connection::resumes).
    async fn settle(&mut self, batch: &[Settled]) -> Result<(), Failure>;

    /// Says good-bye, after the inlet is gone and all that was in flight is settled.
    ///
    /// # Errors
    /// Only logged.
    async fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
