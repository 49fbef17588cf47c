//! Stand-ins for pipelines: they take what the source receives and settle it as a test says.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sluicegate_connectors::http::{HttpSource, Ingress, SourceConfig, Spool};
use sluicegate_connectors::registry::BuildContext;
use sluicegate_engine::delivery::{Outcome, Received, Settled};
use sluicegate_engine::message::Message;
use sluicegate_engine::source::{Connection, Source};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::DEADLINE;

pub fn context(ingress: &Ingress) -> BuildContext {
    context_with(ingress, None)
}

fn context_with(ingress: &Ingress, spool: Option<Arc<dyn Spool>>) -> BuildContext {
    BuildContext {
        pipeline: Arc::from("orders"),
        base_dir: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        data_dir: PathBuf::new(),
        ingress: ingress.clone(),
        spool,
        ordered: false,
        queues: Default::default(),
    }
}

pub fn source(ingress: &Ingress, spool: Option<Arc<dyn Spool>>, config: Value) -> HttpSource {
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.problems(), []);
    HttpSource::new(&config, &context_with(ingress, spool))
}

pub fn delivered() -> Outcome {
    Outcome { delivered_to: vec![Arc::from("eu")], ..Outcome::default() }
}

/// Settles every message as its rule says and remembers it. Ends when dropped.
pub struct Pipeline {
    pub seen: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Pipeline {
    pub async fn delivering(ingress: &Ingress, path: &str) -> Self {
        Self::start(ingress, json!({ "path": path }), |_| delivered()).await
    }

    pub async fn start(
        ingress: &Ingress,
        config: Value,
        rule: impl FnMut(&Message) -> Outcome + Send + 'static,
    ) -> Self {
        Self::run(source(ingress, None, config), rule).await
    }

    pub async fn run(mut source: HttpSource, mut rule: impl FnMut(&Message) -> Outcome + Send + 'static) -> Self {
        let mut connection = source.connect().await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let batch: Vec<Settled> = connection
                    .inlet
                    .receive(16)
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|received| {
                        let outcome = rule(&received.message);
                        remembered.lock().unwrap().push(received.message.clone());
                        Settled::new(received.token, Arc::new(received.message), outcome)
                    })
                    .collect();
                connection.settler.settle(&batch).await.unwrap();
            }
        });
        Self { seen, task }
    }

    pub fn last(&self) -> Message {
        self.seen.lock().unwrap().last().cloned().expect("a message came")
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Receives and settles one message at a time, when a test wants it.
pub struct Held {
    pub connection: Connection,
    _source: HttpSource,
}

impl Held {
    pub async fn new(ingress: &Ingress, path: &str) -> Self {
        Self::with(ingress, json!({ "path": path })).await
    }

    pub async fn with(ingress: &Ingress, config: Value) -> Self {
        Self::connect(source(ingress, None, config)).await
    }

    pub async fn connect(mut source: HttpSource) -> Self {
        let connection = source.connect().await.unwrap();
        Self { connection, _source: source }
    }

    pub async fn receive(&mut self) -> Received {
        let mut received = timeout(DEADLINE, self.connection.inlet.receive(1)).await.expect("in time").unwrap();
        received.remove(0)
    }

    pub async fn settle(&mut self, received: Received, outcome: Outcome) {
        let settled = Settled::new(received.token, Arc::new(received.message), outcome);
        self.connection.settler.settle(&[settled]).await.unwrap();
    }

    pub async fn deliver(&mut self, received: Received) {
        self.settle(received, delivered()).await;
    }
}
