//! What is due by itself: scheduled messages, retention, expiry. In steps of a few hundred messages, each a transaction.

use super::queues::Queues;

/// Does what is due for all queues of a store, beside other gateways' keepers.
#[derive(Debug)]
pub struct Keeper {}

impl Keeper {
    /// For these queues.
    pub fn new(queues: &Queues) -> Self {
        let _ = queues;
        Self {}
    }

    /// Runs until it is dropped. Trouble of the store is logged and waited out.
    pub async fn run(self) {
        unimplemented!()
    }
}
