//! The gateway's server without pipelines, with what asks for credentials before it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicegate::api::{Api, QueueSchemas};
use sluicegate::config::{self, Process};
use sluicegate::identity::{Audit, Directory, Guard, Scope, keep_up};
use sluicegate::in_force::InForce;
use sluicegate::queue_meters::QueueMeters;
use sluicegate::queues::AllQueues;
use sluicegate::server::{self, View};
use sluicegate_connectors::http::{Ingress, ServerLimits, serve};
use sluicegate_plugin_host::{HostConfig, PluginHost};
use sluicegate_store::api_key::NewKey;
use sluicegate_store::queue::Queues;
use sluicegate_store::tenant::{Grants, Quotas, Realm, TenantName};
use sluicegate_store::{Location, Store};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What services show.
pub const SERVICE_TOKEN: &str = "service-token-of-at-least-32-characters";

/// Asks for keys, and takes the service's token.
pub fn asking() -> String {
    format!("auth: {{ service_token: {SERVICE_TOKEN}, protect_metrics: true }}")
}

/// Ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    pub store: Arc<Store>,
    _tasks: JoinSet<()>,
    folder: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, after the status has been seen to.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    /// Sees to status and code of a refusal, which is a problem document.
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["code"].as_str()), (status, Some(code)), "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        assert_eq!(self.head.contains("www-authenticate: bearer"), status == 401, "{self:?}");
    }
}

impl Server {
    pub async fn start(auth: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sluicegate.yaml");
        let pipeline = "pipelines: { p: { source: { stdio: {} }, targets: { out: { stdio: {} } } } }";
        std::fs::write(&file, format!("{auth}\n{pipeline}")).expect("written");
        let config = config::load(&[file], &Process).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let store = Arc::new(Store::open(&Location::embedded(folder.path().join("data"))).await.expect("a store"));
        let (directory, audit) = (Directory::new(Arc::clone(&store)), Arc::new(Audit::new(Arc::clone(&store))));
        let ingress = Ingress::default();
        let guard = Guard::new(&config.auth, false, directory.clone(), Arc::clone(&audit), ingress.clone());
        let guard = guard.await.expect("a guard");
        let (_, running) = watch::channel(Arc::default());
        let config = Arc::new(config);
        let declared = Arc::clone(&config.queues);
        let in_force = watch::channel(Arc::new(InForce::of(Arc::clone(&config)))).1;
        let (_, config) = watch::channel(config);
        let api = Api {
            store: Arc::clone(&store),
            config: config.clone(),
            in_force,
            states: watch::channel(Arc::default()).1,
            host: PluginHost::new(HostConfig { max_instances: 1, ..HostConfig::default() }).expect("a host"),
            queues: AllQueues::new(&Queues::new(Arc::clone(&store)), move || Arc::clone(&declared)),
            meters: Arc::new(QueueMeters::default()),
            schemas: QueueSchemas::default(),
            running: running.clone(),
        };
        let app = server::router(View { running, metrics: None }, api, &ingress, guard);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            serve(listener, app, ServerLimits::default(), std::future::pending()).await.expect("served");
        });
        tasks.spawn(keep_up(directory, audit, config, CancellationToken::new()));
        Self { address, store, _tasks: tasks, folder }
    }

    /// Where the store is.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `headers` are whole lines.
    pub async fn call(&self, method: &str, path: &str, headers: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }

    /// With a key.
    pub async fn as_key(&self, key: &str, method: &str, path: &str, body: Value) -> Answer {
        self.call(method, path, &format!("authorization: Bearer {key}\r\n"), &body).await
    }

    /// A tenant.
    pub async fn tenant(&self, name: &str) {
        let name = TenantName::parse(name).expect("a name");
        self.store.create_tenant(&name, "", Quotas::default(), Grants::default()).await.expect("a tenant");
    }

    /// A key of the operator's or of a tenant's.
    pub async fn key(&self, tenant: Option<&str>, scopes: &[Scope]) -> String {
        let realm = tenant.map_or(Realm::Operator, |name| Realm::Tenant(TenantName::parse(name).expect("a name")));
        let scopes = scopes.iter().map(|scope| scope.name().to_owned()).collect();
        let new = NewKey { realm, name: "test".to_owned(), scopes, expires_at_ms: None };
        self.store.create_api_key(new).await.expect("a key").1.expose().to_owned()
    }

    /// Entries of the audit, newest first, as a key sees them.
    pub async fn audit(&self, key: &str, query: &str) -> Vec<Value> {
        let page = self.as_key(key, "GET", &format!("/api/v1/audit{query}"), Value::Null).await.expect(200);
        page["entries"].as_array().cloned().unwrap_or_else(|| panic!("{page}"))
    }

    /// Waits until a request is answered with `status`, for a second at most.
    pub async fn within_a_second(&self, key: &str, path: &str, status: u16) {
        let asked = async {
            while self.as_key(key, "GET", path, Value::Null).await.status != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), asked).await.unwrap_or_else(|_| panic!("{path}: never {status}"));
    }
}

/// A queue's form.
pub fn queue(name: &str) -> Value {
    json!({ "name": name })
}
