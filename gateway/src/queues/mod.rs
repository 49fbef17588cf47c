//! Managed queues, wherever they are kept: for pipelines ([`StoreQueues`], the `queue` connector's backend) and for
//! whoever manages them ([`AllQueues`], the API and the commands).

mod all;
mod error;
mod groups;
mod in_redis;
mod kept;
mod store_backend;

pub use all::AllQueues;
pub use error::QueuesError;
pub use kept::{
    Backend, KeptBatch, KeptGroup, KeptMessage, KeptPending, KeptPosition, KeptPublished, KeptQueue, KeptState, Page,
    Place, WhichKept,
};
pub use store_backend::{Keeping, StoreQueues, defaults, settings};
