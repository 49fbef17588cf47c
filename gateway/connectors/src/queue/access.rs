//! What sources and targets are built with: the declared queues, and who keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_engine::failure::Failure;

use super::backend::QueueBackend;
use super::declaration::Declaration;

/// The section `queues`, by name.
pub type Declarations = BTreeMap<String, Declaration>;

/// The queues there are. The default knows none and keeps none, which is right wherever nothing connects.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Keeps the queues whose backend is the store.
    pub backend: Option<Arc<dyn QueueBackend>>,
    /// All of the section `queues`, by name.
    pub declared: Arc<Declarations>,
}

impl Access {
    /// How the queue is declared.
    pub fn declaration(&self, queue: &str) -> Option<&Declaration> {
        self.declared.get(queue)
    }

    /// The backend, with the queue in it as declared.
    pub(super) async fn open(&self, queue: &str) -> Result<&Arc<dyn QueueBackend>, Failure> {
        let Some(backend) = &self.backend else {
            return Err(Failure::permanent(format!("cannot open the queue `{queue}`: this gateway has no store")));
        };
        if let Some(declaration) = self.declared.get(queue) {
            backend.declare(queue, declaration).await?;
        }
        Ok(backend)
    }
}
