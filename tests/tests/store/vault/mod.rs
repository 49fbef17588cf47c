//! Encryption of bodies, its keys, and backups.

mod backup;
mod encryption;
mod everywhere;
mod rotation;

use std::sync::Arc;

use sluicegate_engine::dead_letter::DeadLetter;
use sluicegate_engine::message::Message;
use sluicegate_store::vault::{Encryption, MasterKey};
use sluicegate_store::{Location, Store, StoreError, StoreOptions};

use crate::dead_letters::sample;

/// What no file may show. It does not shrink, so that neither compression nor encryption hides it from a search.
const SECRET: &str = "kJ8#qz!Vw2@pLm9$Xc4%Rt7^Yb1&Nd6*";

fn key(number: u8) -> MasterKey {
    MasterKey::new([number; 32])
}

fn with(location: &Location, present: u8, previous: &[u8]) -> StoreOptions {
    let previous = previous.iter().copied().map(key).collect();
    let encryption = Some(Encryption { master_key: key(present), previous });
    StoreOptions { location: location.clone(), encryption }
}

async fn refused(options: StoreOptions) -> StoreError {
    Store::open(options).await.expect_err("it does not start")
}

/// A letter whose body changed on the way; both bodies are secret.
fn letter() -> Arc<DeadLetter> {
    let mut letter = sample::letter();
    let body = |part: &str| format!("{{\"{part}\":\"{SECRET}\"}}").into_bytes();
    letter.original = Arc::new(Message::new("/orders", "order.created", body("original")));
    letter.at_failure = Arc::new(Message::new("/orders", "order.created", body("failing")));
    Arc::new(letter)
}
