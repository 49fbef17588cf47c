//! Claiming on PostgreSQL: in the database, under this gateway's name, so that several share the work.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::ledger::{Claim, Ledger};
use super::rows::{self, in_list, list};
use super::stored::{CLAIM_COLUMNS, ClaimedEntry};
use super::{LaneWanted, MAX_CLAIM_BYTES};
use crate::change::{Change, Transaction};
use crate::database::{Backend, Row, Value};
use crate::error::StoreError;

/// Claims what is ready.
pub(super) struct Take {
    pub ledger: Arc<Ledger>,
    pub run: u64,
    pub lanes: Vec<LaneWanted>,
    pub max_messages: usize,
    pub now_ms: u64,
    /// Given back by the way.
    pub orphans: Vec<i64>,
    pub ticket: Arc<Ticket>,
}

/// Ties what is claimed to whoever asked for it: if he has gone, it is given back.
#[derive(Debug, Default)]
pub(super) struct Ticket(Mutex<TicketState>);

#[derive(Debug, Default)]
struct TicketState {
    is_abandoned: bool,
    claimed: Vec<i64>,
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, TicketState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by who asks, until he has what he asked for.
pub(super) struct Asking {
    pub ledger: Arc<Ledger>,
    pub ticket: Arc<Ticket>,
}

impl Asking {
    /// He has it.
    pub fn done(self) {
        self.ticket.lock().claimed.clear();
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut ticket = self.ticket.lock();
        ticket.is_abandoned = true;
        let mut books = self.ledger.books();
        for seq in ticket.claimed.drain(..) {
            books.forget(seq);
            books.orphans.insert(seq);
        }
    }
}

/// `$5` is the time, for those that wait for it.
static TAKE: LazyLock<[String; 2]> = LazyLock::new(|| {
    ["timed = 0 AND CAST($5 AS BIGINT) >= 0", "timed = 1 AND ready_at_ms <= $5"].map(|ready| {
        format!(
            "WITH picked AS MATERIALIZED (SELECT seq, bytes, ready_at_ms FROM inbox WHERE pipeline = $1 AND lane = $2 \
               AND leads = 1 AND claimed_by IS NULL AND {ready} ORDER BY ready_at_ms, seq LIMIT $3 FOR UPDATE SKIP LOCKED), \
             fits AS (SELECT number FROM (SELECT seq AS number, CAST(sum(bytes) OVER (ORDER BY ready_at_ms, seq) AS BIGINT) - bytes \
               AS bytes_before FROM picked) AS summed WHERE bytes_before < $4) \
             UPDATE inbox SET claimed_by = $6 FROM fits WHERE seq = number RETURNING {CLAIM_COLUMNS}"
        )
    })
});

#[async_trait]
impl Change for Take {
    type Output = Vec<ClaimedEntry>;

    fn size_bytes(&self) -> usize {
        1_024
    }

    fn doing(&self) -> &'static str {
        "claim messages that are ready"
    }

    async fn apply(&mut self, transaction: &mut Transaction<'_>) -> Result<Vec<ClaimedEntry>, StoreError> {
        if !self.orphans.is_empty() {
            rows::release(transaction, &self.ledger, self.orphans.iter().copied()).await?;
        }
        let mut entries = self.take_reserved(transaction).await?;
        for (index, lane) in self.lanes.iter().enumerate() {
            let lanes_left = self.lanes.len() - index;
            let room = self.max_messages.saturating_sub(entries.len()).div_ceil(lanes_left);
            let mut room = room.min(lane.max_messages);
            // What waited for its time gets half at first.
            for timed in [true, false] {
                let limit = if timed { room.div_ceil(2) } else { room };
                let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
                if limit == 0 || bytes >= MAX_CLAIM_BYTES {
                    continue;
                }
                let arguments: [Value; 6] = [
                    Arc::clone(&self.ledger.pipeline).into(),
                    Arc::clone(&lane.name).into(),
                    (limit as u64).into(),
                    (MAX_CLAIM_BYTES - bytes).into(),
                    self.now_ms.into(),
                    transaction.owner().into(),
                ];
                let rows = transaction.query(&TAKE[usize::from(timed)], &arguments).await?;
                room -= rows.len().min(room);
                let mut taken = self.entries(rows)?;
                taken.sort_by_key(|entry| (entry.ready_at_ms, entry.seq));
                entries.append(&mut taken);
            }
        }
        Ok(entries)
    }

    fn committed(&mut self, entries: &mut Vec<ClaimedEntry>) {
        let mut ticket = self.ticket.lock();
        let mut books = self.ledger.books();
        for seq in &self.orphans {
            books.orphans.remove(seq);
        }
        for entry in entries {
            books.reserved.remove(&entry.seq);
            if ticket.is_abandoned {
                books.orphans.insert(entry.seq);
            } else {
                books.enter_claim(entry.seq, Claim::new(self.run, entry));
                ticket.claimed.push(entry.seq);
            }
        }
    }
}

impl Take {
    fn entries(&self, rows: Vec<Row>) -> Result<Vec<ClaimedEntry>, StoreError> {
        rows.into_iter().map(|row| ClaimedEntry::read(row, &self.ledger.pipeline)).collect()
    }

    /// What was claimed for this gateway when it was put in.
    async fn take_reserved(&self, transaction: &mut Transaction<'_>) -> Result<Vec<ClaimedEntry>, StoreError> {
        let reserved: Vec<i64> = self.ledger.books().reserved.iter().copied().take(MAX_RESERVED).collect();
        if reserved.is_empty() || !self.lanes.iter().any(|lane| lane.name.is_empty()) {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {CLAIM_COLUMNS} FROM inbox WHERE {} AND leads = 1 AND claimed_by = $2 ORDER BY seq LIMIT $3",
            in_list(Backend::Postgres)
        );
        let owner = transaction.owner();
        let arguments = [list(reserved), owner.into(), (self.max_messages as u64).into()];
        let rows = transaction.query(&sql, &arguments).await?;
        let mut entries = self.entries(rows)?;
        let mut bytes = 0_u64;
        entries.retain(|entry| {
            let fits = bytes < MAX_CLAIM_BYTES;
            bytes = bytes.saturating_add(entry.bytes);
            fits
        });
        Ok(entries)
    }
}

/// Most numbers asked for at once.
const MAX_RESERVED: usize = 4_096;
