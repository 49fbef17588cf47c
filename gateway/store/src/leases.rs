//! Which gateways are alive, and what becomes of the claims of those that are not.
//!
//! A gateway claims rows under its [`Owner`] name and writes every [`BEAT`] that it is alive. One whose row any other has
//! found unchanged for [`LEASE_TERM`] is removed by it, and what it had claimed is released in the same transaction
//! ([`RELEASES`]). No clock is compared with another: the term is what the observer has waited, so nobody is swept because
//! a clock was set. A gateway that was merely paused finds its name gone and takes a new one before it claims anything
//! more. The embedded store has one gateway: what others have left is released when it opens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

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
    let sql = "INSERT INTO gateways (id, seen_at_ms) VALUES ($1, $2)";
    connection.execute(sql, &[owner.into(), connection.now_ms().into()]).await.map(drop)
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

/// "I am alive", and a look at the others.
struct Beat;

/// A gateway's row: its name, and the time it wrote last, by its own clock.
type Sighting = (String, i64);

/// More are looked at when some of these have gone.
const MAX_SIGHTINGS: u64 = 1_000;

#[async_trait]
impl Change for Beat {
    /// The others.
    type Output = Vec<Sighting>;

    fn size_bytes(&self) -> usize {
        64
    }

    fn doing(&self) -> &'static str {
        "renew this gateway's lease"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Vec<Sighting>, StoreError> {
        let (owner, now) = (transaction.owner(), transaction.now_ms());
        let seen = "UPDATE gateways SET seen_at_ms = $2 WHERE id = $1";
        transaction.execute(seen, &[(&owner).into(), now.into()]).await?;
        let sql = "SELECT id, seen_at_ms FROM gateways WHERE id <> $1 ORDER BY id LIMIT $2";
        let rows = transaction.query(sql, &[owner.into(), MAX_SIGHTINGS.into()]).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.integer(1)?))).collect()
    }
}

/// Removes those of these gateways that have still not written anything.
struct Sweep(Vec<Sighting>);

#[async_trait]
impl Change for Sweep {
    /// The dead.
    type Output = Vec<String>;

    fn size_bytes(&self) -> usize {
        64 * self.0.len()
    }

    fn doing(&self) -> &'static str {
        "release what dead gateways had claimed"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Vec<String>, StoreError> {
        // Whoever is in the middle of a claim or of being removed is left for the next time.
        let sql = match transaction.backend() {
            Backend::Sqlite => "SELECT 1 FROM gateways WHERE id = $1 AND seen_at_ms = $2",
            Backend::Postgres => "SELECT 1 FROM gateways WHERE id = $1 AND seen_at_ms = $2 FOR UPDATE SKIP LOCKED",
        };
        let mut dead = Vec::new();
        for (id, seen_at_ms) in &self.0 {
            if transaction.query_first(sql, &[id.into(), (*seen_at_ms).into()]).await?.is_some() {
                remove(transaction, id).await?;
                transaction.announce(RELEASED);
                dead.push(id.clone());
            }
        }
        Ok(dead)
    }
}

/// What a gateway knows of the others.
#[derive(Debug, Default)]
struct Sightings {
    /// What each was last seen to have written, and since when it has been that.
    by_id: HashMap<String, (i64, Instant)>,
    looked_at: Option<Instant>,
}

impl Sightings {
    /// Takes in what a look shows that began and ended at these times; returns those that have not changed for the term.
    fn look(&mut self, found: Vec<Sighting>, began: Instant, ended: Instant) -> Vec<Sighting> {
        // Who has not looked for a term, because it was paused or the database was away, knows nothing of the others: they
        // may not have been able to write either.
        if self.looked_at.replace(ended).is_none_or(|at| began.saturating_duration_since(at) >= LEASE_TERM) {
            self.by_id.clear();
        }
        let before = std::mem::take(&mut self.by_id);
        let mut silent = Vec::new();
        for (id, seen_at_ms) in found {
            let since = match before.get(&id) {
                Some((same, since)) if *same == seen_at_ms => *since,
                Some(_) | None => ended,
            };
            if began.saturating_duration_since(since) >= LEASE_TERM {
                silent.push((id.clone(), seen_at_ms));
            }
            self.by_id.insert(id, (seen_at_ms, since));
        }
        silent
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
    let mut sightings = Sightings::default();
    loop {
        beats.tick().await;
        match beat(&queue, &mut sightings).await {
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

async fn beat(queue: &Queue, sightings: &mut Sightings) -> Result<Vec<String>, StoreError> {
    let began = Instant::now();
    let found = queue.change(Beat).await?;
    let silent = sightings.look(found, began, Instant::now());
    if silent.is_empty() { Ok(Vec::new()) } else { queue.change(Sweep(silent)).await }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn row(seen_at_ms: i64) -> Vec<Sighting> {
        vec![("other".to_owned(), seen_at_ms)]
    }

    #[test]
    fn who_writes_nothing_for_the_term_is_silent_whatever_the_clocks_say() {
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        // An hour ahead, an hour back, and the same again: it only counts that it changes.
        for (second, seen_at_ms) in [(0, 3_600_000), (3, -3_600_000), (6, 3_600_000), (9, 3_600_001), (12, 7)] {
            let at = start + second * SECOND;
            assert_eq!(sightings.look(row(seen_at_ms), at, at), [], "after {second} s");
        }
        for second in [15, 18, 21] {
            let at = start + second * SECOND;
            assert_eq!(sightings.look(row(7), at, at), [], "after {second} s");
        }
        let at = start + 22 * SECOND;
        assert_eq!(sightings.look(row(7), at, at), row(7));
    }

    #[test]
    fn who_could_not_look_for_a_term_begins_anew() {
        let (mut sightings, start) = (Sightings::default(), Instant::now());
        sightings.look(row(7), start, start);
        let late = start + 60 * SECOND;
        assert_eq!(sightings.look(row(7), late, late), []);
        // A look that took long shows what was then, not what is.
        let (began, ended) = (late + 9 * SECOND, late + 30 * SECOND);
        assert_eq!(sightings.look(row(7), began, ended), []);
        let began = ended + 3 * SECOND;
        assert_eq!(sightings.look(row(7), began, began), row(7));
    }
}
