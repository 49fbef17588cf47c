//! The `queue` connector: the gateway's own durable queues, as source and as target.
//!
//! A queue is declared in the section `queues` ([`Declaration`]). Where it is kept is its backend's business: the
//! gateway's store behind [`QueueBackend`], or a Redis Stream, which the [`redis`](crate::redis) connector reads and
//! writes and [`Stream`] manages.

mod access;
mod backend;
mod config;
mod declaration;
mod defaults;
mod either;
mod source;
mod target;

pub use crate::redis::stream::Stream;
pub use access::{Access, Declarations};
pub use backend::{Member, Outgoing, QueueBackend, Verdict};
pub use config::{SourceConfig, Start, TargetConfig};
pub use declaration::{AtLimit, Backend, Compression, Declaration, Kind, RedisBackend, Retention, is_name};
pub use defaults::{Defaults, Length, UNLIMITED};
pub use source::QueueSource;
pub use target::QueueTarget;

use sluicegate_engine::source::Source;
use sluicegate_engine::target::Target;

use crate::redis::{RedisSource, RedisTarget};
use crate::registry::BuildContext;

/// The source of a queue, wherever it is kept.
pub(crate) fn source(config: &SourceConfig, context: &BuildContext) -> Box<dyn Source> {
    match context.queues.declaration(&config.name).and_then(|declaration| config.redis(declaration)) {
        Some(redis) => Box::new(RedisSource::new(&redis, context).pausable()),
        None => Box::new(QueueSource::new(config, context)),
    }
}

/// The target of a queue, wherever it is kept.
pub(crate) fn target(config: &TargetConfig, context: &BuildContext) -> Box<dyn Target> {
    match context.queues.declaration(&config.name).and_then(|declaration| config.redis(declaration)) {
        Some(redis) => Box::new(RedisTarget::new(&redis, context)),
        None => Box::new(QueueTarget::new(config, context)),
    }
}
