//! Instances kept for reuse.

use std::sync::{Mutex, PoisonError};

use crate::instance::Instance;
use crate::slots::Shelf;

/// Instances that wait for the next call, the one used last on top, since its memory is warm.
pub(crate) struct Idle {
    instances: Mutex<Vec<Instance>>,
    limit: usize,
}

impl Idle {
    pub fn new(limit: usize) -> Self {
        Self { instances: Mutex::default(), limit }
    }

    pub fn take(&self) -> Option<Instance> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Keeps the instance if there is room.
    pub fn put(&self, instance: Instance) {
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        if instances.len() < self.limit {
            instances.push(instance);
        }
    }
}

impl Shelf for Idle {
    fn give_up_one(&self) -> bool {
        let given = {
            let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
            if instances.is_empty() { None } else { Some(instances.remove(0)) }
        };
        given.is_some()
    }
}
