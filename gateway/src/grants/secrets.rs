//! Secrets of the configuration, by name.

use std::collections::HashMap;

use sluicegate_connectors::quantity::Secret;
use sluicegate_plugin_host::SecretsAccess;

/// One plugin's.
#[derive(Debug)]
pub struct NamedSecrets(HashMap<String, Secret>);

impl NamedSecrets {
    /// As configured.
    pub fn new(secrets: &[(String, Secret)]) -> Self {
        Self(secrets.iter().cloned().collect())
    }
}

impl SecretsAccess for NamedSecrets {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|secret| secret.expose().to_owned())
    }
}
