//! Which gateways are alive, and what becomes of the claims of those that are not.
//!
//! A gateway claims rows under its [`Owner`] name and is seen every [`BEAT`]. One that has not been seen for
//! [`LEASE_TERM`] by the database's clock is removed by any other, and what it had claimed is released in the same
//! transaction ([`RELEASES`]). A gateway that was merely paused finds its name gone and takes a new one before it
//! claims anything more. The embedded store has one gateway: what others have left is released when it opens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::change::{Change, Transaction};
use crate::database::{Backend, Connection, Value};
use crate::error::StoreError;
use crate::signals::Signals;
use crate::writer::Queue;

/// Run when a gateway is removed; `$1` is its name.
const RELEASES: [&str; 4] = [
    "UPDATE inbox SET claimed_by = NULL WHERE claimed_by = $1",
    crate::redrive::RELEASE,
    "UPDATE queue_claims SET consumer = NULL, owner = NULL WHERE owner = $1",
    "DELETE FROM queue_consumers WHERE owner = $1",
];

/// Announced when claims of a dead gateway have been released.
pub(crate) const RELEASED: &str = "released";

/// How long a gateway that is not seen keeps its claims.
pub(crate) const LEASE_TERM: Duration = Duration::from_secs(10);
/// How often a gateway says that it is alive, and looks for those that are not.
const BEAT: Duration = Duration::from_secs(3);

/// Under which name a gateway claims.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner(Arc<str>);

impl Owner {
    /// One nobody has had before.
    pub fn new() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    /// As it is written to the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Owner> for Value {
    fn from(owner: &Owner) -> Self {
        Self::from(owner.as_str())
    }
}

impl From<Owner> for Value {
    fn from(owner: Owner) -> Self {
        Self::from(&owner)
    }
}

/// Adds a gateway that opens the store. `is_alone`: all others are known to be dead.
pub(crate) async fn join(connection: &mut Connection, owner: &Owner, is_alone: bool) -> Result<(), StoreError> {
    connection.set_doing("register this gateway");
    connection.begin().await?;
    if is_alone {
        for row in connection.query("SELECT id FROM gateways", &[]).await? {
            remove(connection, &row.text(0)?).await?;
        }
    }
    add(connection, owner).await?;
    connection.commit().await
}

/// Whether it is still known. While the transaction lasts nobody else can remove it.
pub(crate) async fn is_alive(connection: &mut Connection, owner: &Owner) -> Result<bool, StoreError> {
    let sql = match connection.backend() {
        Backend::Sqlite => "SELECT 1 FROM gateways WHERE id = $1",
        Backend::Postgres => "SELECT 1 FROM gateways WHERE id = $1 FOR KEY SHARE",
    };
    Ok(connection.query_first(sql, &[owner.into()]).await?.is_some())
}

/// A new name for a gateway that has been removed. What it has claimed since is released.
pub(crate) async fn renew(connection: &mut Connection, old: &Owner) -> Result<Owner, StoreError> {
    let new = Owner::new();
    connection.set_doing("renew this gateway's lease");
    connection.begin().await?;
    remove(connection, old.as_str()).await?;
    add(connection, &new).await?;
    connection.commit().await?;
    Ok(new)
}

async fn add(connection: &mut Connection, owner: &Owner) -> Result<(), StoreError> {
    let now_ms = connection.now_ms().await?;
    let sql = "INSERT INTO gateways (id, seen_at_ms) VALUES ($1, $2)";
    connection.execute(sql, &[owner.into(), now_ms.into()]).await.map(drop)
}

/// The name first: whoever claims under it holds on to it until his transaction has ended, and so is seen by the
/// statements that follow.
async fn remove(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM gateways WHERE id = $1", &[id.into()]).await?;
    for release in RELEASES {
        connection.execute(release, &[id.into()]).await?;
    }
    Ok(())
}

/// "I am alive", and a look at who is not.
struct Beat;

#[async_trait]
impl Change for Beat {
    /// The dead.
    type Output = Vec<String>;

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "renew this gateway's lease"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Vec<String>, StoreError> {
        let (owner, now_ms) = (transaction.owner(), transaction.now_ms().await?);
        let seen = "UPDATE gateways SET seen_at_ms = $2 WHERE id = $1";
        transaction.execute(seen, &[owner.into(), now_ms.into()]).await?;
        let term_ms = i64::try_from(LEASE_TERM.as_millis()).unwrap_or(i64::MAX);
        // Whoever is in the middle of a claim or of being removed is left for the next time.
        let sql = match transaction.backend() {
            Backend::Sqlite => "SELECT id FROM gateways WHERE seen_at_ms < $1",
            Backend::Postgres => "SELECT id FROM gateways WHERE seen_at_ms < $1 FOR UPDATE SKIP LOCKED",
        };
        let mut dead = Vec::new();
        for row in transaction.query(sql, &[now_ms.saturating_sub(term_ms).into()]).await? {
            let id = row.text(0)?;
            remove(transaction, &id).await?;
            transaction.announce(RELEASED);
            dead.push(id);
        }
        Ok(dead)
    }
}

/// This gateway ends in order: nobody needs to wait for its term.
pub(crate) struct Leave(pub Owner);

#[async_trait]
impl Change for Leave {
    type Output = ();

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "take leave of the store"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<(), StoreError> {
        remove(transaction, self.0.as_str()).await?;
        transaction.announce(RELEASED);
        Ok(())
    }
}

/// Beats until it is aborted.
pub(crate) async fn keep_alive(queue: Queue) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match queue.change(Beat).await {
            Ok(dead) => {
                for id in dead {
                    tracing::warn!(gateway = id, term = ?LEASE_TERM, "a gateway was not seen for the lease term; what it had claimed is released");
                }
            }
            // The writer has said so already.
            Err(error) => tracing::debug!(%error, "this gateway's lease was not renewed"),
        }
    }
}

/// Listens for what other gateways announce, until it is aborted.
pub(crate) async fn listen(postgres: crate::database::Postgres, signals: Arc<Signals>) {
    let mut backoff = crate::writer::Backoff::default();
    let listening = format!("LISTEN {}", crate::database::CHANNEL);
    loop {
        backoff.wait().await;
        let listened = async {
            let mut connection = postgres.connect(Some(Arc::clone(&signals))).await?;
            connection.batch(&listening).await?;
            // From here on nothing is missed; before, anything may have been.
            signals.bump_all();
            connection.ended().await;
            Ok::<(), StoreError>(())
        };
        match listened.await {
            Ok(()) => {
                backoff.succeeded();
                tracing::info!(store = %postgres.place, "the connection for announcements ended; connecting again");
            }
            Err(error) => tracing::debug!(%error, "cannot listen for announcements"),
        }
        backoff.failed();
    }
}
