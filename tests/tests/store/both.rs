//! A new, empty store in each database.

use std::sync::Arc;

use sluicegate_store::{Location, Store, testing};
use sluicegate_tests::{servers, unique};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A place where no gateway has run, removed with this value (a database goes with its server).
pub struct Fresh {
    pub location: Location,
    /// In what is printed when a test fails.
    pub name: &'static str,
    /// Of a database of a server.
    pub url: Option<String>,
    _folder: Option<TempDir>,
}

impl Fresh {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { location: Location::embedded(folder.path()), name: "SQLite", url: None, _folder: Some(folder) }
    }

    /// A database of the shared server.
    pub async fn postgres() -> Self {
        Self::postgres_on(servers::postgres().await.unwrap().url()).await
    }

    /// A database of this server.
    pub async fn postgres_on(server_url: &str) -> Self {
        let name = unique("store");
        spoil(server_url, &format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")).await;
        let url = database_url(server_url, &name);
        Self { location: Location::shared(&url), name: "PostgreSQL", url: Some(url), _folder: None }
    }

    pub async fn open(&self) -> Store {
        Store::open(&self.location).await.unwrap()
    }
}

/// Bytes as a value within a statement.
pub fn blob(store: &Store, bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match testing::is_shared(store) {
        true => format!("decode('{digits}', 'hex')"),
        false => format!("x'{digits}'"),
    }
}

/// The URL of another database of the same server.
pub fn database_url(server_url: &str, database: &str) -> String {
    let (server, _) = server_url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}

/// Runs statements past the store.
pub async fn spoil(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    driving.await.unwrap().unwrap();
}

/// Runs `test` at a new place in each database.
pub async fn both_places(test: impl AsyncFn(&Fresh)) {
    for fresh in [Fresh::sqlite(), Fresh::postgres().await] {
        println!("on {}", fresh.name);
        test(&fresh).await;
    }
}

/// Runs `test` with a new store in each database, and closes it.
pub async fn both(test: impl AsyncFn(&Arc<Store>)) {
    both_places(async |fresh| {
        let store = Arc::new(fresh.open().await);
        test(&store).await;
        store.close().await;
    })
    .await;
}

/// The same for tests that drive the runtime themselves, such as those of properties.
pub fn both_blocking(test: impl Fn(&Runtime, &Arc<Store>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for fresh in [Fresh::sqlite(), runtime.block_on(Fresh::postgres())] {
        println!("on {}", fresh.name);
        let store = Arc::new(runtime.block_on(fresh.open()));
        test(&runtime, &store);
        runtime.block_on(store.close());
    }
}
