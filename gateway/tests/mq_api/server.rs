//! A server with the API alone, and a client that sends bytes as they are.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use sluicegate::api::{self, Api, QueueSchemas};
use sluicegate::config::{self, Process};
use sluicegate::in_force::InForce;
use sluicegate::queue_meters::QueueMeters;
use sluicegate::queues::AllQueues;
use sluicegate::server::Snapshot;
use sluicegate_plugin_host::{HostConfig, PluginHost};
use sluicegate_store::queue::{Consumer, Keeper, Queues, Start};
use sluicegate_store::{Location, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CONFIG: &str = "
schemas:
  order:
    inline: { type: object, required: [id], properties: { id: { type: string } } }
pipelines:
  p: { source: { stdio: {} }, targets: { out: { stdio: {} } } }
";

const QUEUES: &str = "queues:\n  declared: { max_message: 1KiB }\n";

/// Ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    pub store: Arc<Store>,
    pub queues: Queues,
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    tasks: JoinSet<()>,
    _folder: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As it came, in lower case.
    pub head: String,
    pub body: Value,
}

impl Answer {
    /// A refusal's code; asserts the shape of requirement B9.
    pub fn code(&self) -> &str {
        let code = self.body["code"].as_str().unwrap_or_else(|| panic!("no refusal: {self:?}"));
        assert_eq!(self.body["status"], self.status, "{self:?}");
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        code
    }

    /// A refusal's text.
    pub fn text(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The body, after the status has been seen to.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }

    /// Sees to status, code and a part of the text of a refusal.
    pub fn refused(&self, status: u16, code: &str, part: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{self:?}");
        assert!(self.text().contains(part), "`{part}` is not in {self:?}");
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(QUEUES).await
    }

    /// With these sections about queues.
    pub async fn start_with(queues: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sluicegate.yaml");
        std::fs::write(&file, format!("{CONFIG}{queues}")).expect("written");
        let config = config::load(&[file], &Process).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let store = Store::open(&Location::embedded(folder.path().join("data"))).await.expect("a store");
        let store = Arc::new(store);
        let queues = Queues::new(Arc::clone(&store));
        let (snapshot, running) = watch::channel(Arc::default());
        let host = PluginHost::new(HostConfig { max_instances: 1, ..HostConfig::default() }).expect("a host");
        let config = Arc::new(config);
        let declared = Arc::clone(&config.queues);
        let in_force = watch::channel(Arc::new(InForce::of(Arc::clone(&config)))).1;
        let (_, config) = watch::channel(config);
        let api = Api {
            store: Arc::clone(&store),
            config,
            in_force,
            states: watch::channel(Arc::default()).1,
            host,
            queues: AllQueues::new(&queues, move || Arc::clone(&declared)),
            meters: Arc::new(QueueMeters::default()),
            schemas: QueueSchemas::default(),
            running,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, api::router(api)).await.expect("served") });
        tasks.spawn(Keeper::new(&queues).run());
        Self { address, store, queues, snapshot, tasks, _folder: folder }
    }

    /// Of a path below `/api/v1`.
    pub async fn get_below_api(&self, path: &str) -> Answer {
        self.call_below_api("GET", path, "").await
    }

    /// On a path below `/api/v1`.
    pub async fn call_below_api(&self, method: &str, path: &str, body: impl ToString) -> Answer {
        self.send(method, &format!("/api/v1{path}"), "", &body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "").await
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.call("POST", path, &body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: impl ToString) -> Answer {
        self.call("PUT", path, &body.to_string()).await
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_with(method, path, "", body).await
    }

    /// `path` is below `/api/v1/mq`; `headers` are whole lines.
    pub async fn call_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.send(method, &format!("/api/v1/mq{path}"), headers, body).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(head.as_bytes()).await.expect("sent");
        // A server that refuses a body by its length does not read it.
        let sent = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        assert!(!answer.is_empty(), "no answer: sending {sent:?}, reading {read:?}");
        let answer = String::from_utf8(answer).expect("UTF-8");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
        };
        Answer { status, head: head.to_ascii_lowercase(), body }
    }

    /// Makes a queue with these properties.
    pub async fn queue(&self, name: &str, properties: Value) {
        let mut form = properties;
        form["name"] = name.into();
        self.post("/queues", form).await.expect(201);
    }

    /// A consumer from the beginning.
    pub async fn consumer(&self, queue: &str, group: &str) -> Consumer {
        self.queues.join(queue, group, Start::Earliest).await.expect("joined")
    }

    /// Stops serving and closes the store.
    pub async fn close(mut self) {
        self.tasks.shutdown().await;
        self.store.close().await;
    }
}
