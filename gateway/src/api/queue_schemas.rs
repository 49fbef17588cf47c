//! The schemas of queues, compiled once for each configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use sluicegate_engine::failure::StepFailure;
use sluicegate_engine::step::Validate as _;
use sluicegate_store::queue::Publication;

use super::error::{ApiCode, ApiError};
use crate::config::Config;
use crate::validation::SchemaStep;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct QueueSchemas(Arc<Mutex<Compiled>>);

#[derive(Debug, Default)]
struct Compiled {
    config_version: Arc<str>,
    by_name: HashMap<String, Arc<SchemaStep>>,
}

impl QueueSchemas {
    /// Checks all messages against the schema, on a thread of its own: schemas and bodies may be large.
    ///
    /// # Errors
    /// `SchemaViolation` with the pointers of the first message that is at fault; `Conflict` when the schema is not
    /// configured any more.
    pub async fn check(
        &self,
        config: Arc<Config>,
        schema: &str,
        publications: Vec<Publication>,
    ) -> Result<Vec<Publication>, ApiError> {
        let (compiled, name) = (self.clone(), schema.to_owned());
        let checking = tokio::task::spawn_blocking(move || {
            let step = compiled.step(&config, &name)?;
            for (index, publication) in publications.iter().enumerate() {
                step.validate(&publication.message).map_err(|failure| violation(&name, index, failure))?;
            }
            Ok(publications)
        });
        checking.await.unwrap_or_else(|error| {
            Err(ApiError::new(ApiCode::Internal, format!("checking against the schema `{schema}` failed: {error}")))
        })
    }

    fn step(&self, config: &Config, name: &str) -> Result<Arc<SchemaStep>, ApiError> {
        let known = {
            let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if compiled.config_version != config.version {
                *compiled = Compiled { config_version: Arc::clone(&config.version), by_name: HashMap::new() };
            }
            compiled.by_name.get(name).cloned()
        };
        if let Some(step) = known {
            return Ok(step);
        }
        let step = Arc::new(SchemaStep::build(name, &config.schemas).map_err(|_| {
            let text = format!(
                "the queue's schema `{name}` is not configured any more; define it under `schemas`, or update the queue"
            );
            ApiError::new(ApiCode::Conflict, text)
        })?);
        let mut compiled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.config_version == config.version {
            compiled.by_name.insert(name.to_owned(), Arc::clone(&step));
        }
        Ok(step)
    }
}

fn violation(schema: &str, index: usize, failure: StepFailure) -> ApiError {
    let text = failure.to_string();
    let errors = match failure {
        StepFailure::Schema { schema: _, errors } => errors,
        StepFailure::Guest { .. } | StepFailure::Unroutable | StepFailure::Timeout(_) => Vec::new(),
    };
    let errors: Vec<_> = errors.iter().map(|e| json!({ "pointer": e.pointer, "text": e.text })).collect();
    ApiError::new(ApiCode::SchemaViolation, format!("messages[{index}]: {text}"))
        .with_details(json!({ "schema": schema, "index": index, "errors": errors }))
}
