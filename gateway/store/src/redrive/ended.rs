//! The end of a redriven message's way, within the transaction that settles its inbox's entry.

use sluicegate_engine::delivery::{Outcome, Settlement};

use super::ItemState;
use crate::change::Transaction;
use crate::database::{Connection, Value};
use crate::dead_letter::{delete_redriven, hold_redriven, is_being_redriven};
use crate::error::StoreError;

/// Longest outcome that is kept, in characters.
const MAX_OUTCOME_CHARS: usize = 1_000;

/// An inbox's entry that comes from this dead letter has gone. With the last one the letter goes too, unless it failed
/// again: then its record has this redrive's count, or the parts that failed have records of their own. The job's item
/// gets its outcome.
pub(crate) async fn ended(
    transaction: &mut Transaction<'_>,
    letter: &str,
    redrive_count: u32,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    hold_redriven(transaction, letter).await?;
    let is_last = !is_being_redriven(transaction, letter).await?;
    if is_last {
        delete_redriven(transaction, letter, redrive_count).await?;
    }
    let state = match outcome.settlement {
        Settlement::Delivered => ItemState::Delivered,
        Settlement::Dropped => ItemState::Filtered,
        Settlement::DeadLettered => ItemState::DeadLettered,
        // Other entries have its parts, or it stays in.
        Settlement::Parked | Settlement::Postponed { .. } | Settlement::Requeued => {
            return close(transaction, letter, redrive_count, is_last).await;
        }
    };
    let words: String = describe(outcome).chars().take(MAX_OUTCOME_CHARS).collect();
    // The worst of its parts counts: what failed stays failed, and what was delivered is not called filtered.
    let sql = format!(
        "UPDATE redrive_items SET outcome = CASE WHEN outcome IS NULL THEN CAST($3 AS TEXT) \
         ELSE substr(outcome || '; ' || CAST($3 AS TEXT), 1, {MAX_OUTCOME_CHARS}) END, at_ms = $4, \
         delivered = CASE WHEN CAST($5 AS TEXT) = 'delivered' THEN 1 ELSE delivered END, \
         state = CASE WHEN CAST($5 AS TEXT) = 'dead_lettered' THEN 'dead_lettered' ELSE state END \
         WHERE letter = $1 AND redrive_count = $2 AND state IN ('sent', 'dead_lettered')"
    );
    let arguments: [Value; 5] =
        [letter.into(), redrive_count.into(), words.into(), transaction.now_ms().into(), state.name().into()];
    transaction.execute(&sql, &arguments).await?;
    close(transaction, letter, redrive_count, is_last).await
}

/// Once nothing of the letter is on its way any more, what was delivered or dropped is said to be.
async fn close(connection: &mut Connection, letter: &str, redrive_count: u32, is_last: bool) -> Result<(), StoreError> {
    if !is_last {
        return Ok(());
    }
    let sql = "UPDATE redrive_items SET state = CASE WHEN delivered = 1 THEN 'delivered' ELSE 'filtered' END, at_ms = $3 WHERE letter = $1 AND redrive_count = $2 AND state = 'sent'";
    connection.execute(sql, &[letter.into(), redrive_count.into(), connection.now_ms().into()]).await.map(drop)
}

fn describe(outcome: &Outcome) -> String {
    match outcome.settlement {
        Settlement::Delivered => match &outcome.delivered_to[..] {
            [] => "delivered".to_owned(),
            targets => format!("delivered to {}", targets.iter().map(|name| &**name).collect::<Vec<_>>().join(", ")),
        },
        Settlement::Dropped => {
            let reasons: Vec<String> = outcome.dropped.iter().map(ToString::to_string).collect();
            format!("dropped: {}", reasons.join("; "))
        }
        Settlement::DeadLettered => {
            let letters = outcome.dead_letters.iter();
            let letters: Vec<String> =
                letters.map(|letter| format!("{} ({}): {}", letter.id, letter.class.name(), letter.error)).collect();
            format!("failed again: {}", letters.join("; "))
        }
        Settlement::Parked | Settlement::Postponed { .. } | Settlement::Requeued => String::new(),
    }
}
