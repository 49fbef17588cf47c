//! Searching receipts, and counting them.

use std::io::Write;

use sluicegate_store::Reader;
use sluicegate_store::receipt::{MAX_PAGE_RECEIPTS, Summary};

use super::TraceArgs;
use crate::command::dlq::text::{cut, inline, time};
use crate::trace::{FoundReceipt, ShownTally};

/// Longest name in a table's row, in characters.
const MAX_NAME_CHARS: usize = 36;

pub(super) async fn search(args: &TraceArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let filter = args.filter();
    let mut left = args.limit;
    let mut shown = 0_u64;
    let mut after: Option<String> = None;
    let mut table = Table::new(["MESSAGE", "BEGAN AT", "PIPELINE", "SETTLEMENT", "FAILURES", "CORRELATION", "KEY"]);
    loop {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(MAX_PAGE_RECEIPTS);
        let page = reader.receipts(&filter, limit, after.as_deref()).await?;
        if args.json {
            for receipt in &page.receipts {
                serde_json::to_writer(&mut *out, &FoundReceipt::from(receipt))?;
                writeln!(out)?;
            }
        } else {
            table.write(page.receipts.iter().map(row).collect(), out)?;
        }
        shown += page.receipts.len() as u64;
        left = left.saturating_sub(page.receipts.len() as u64);
        after = page.next;
        if left == 0 || after.is_none() {
            break;
        }
    }
    if !args.json {
        match (shown, after) {
            (0, _) => writeln!(
                out,
                "no receipts match; of messages without trouble only a share is kept (`receipts.sample`), and for a time (`receipts.keep`)"
            )?,
            (_, None) => writeln!(out, "{shown} receipts; `sluicegate trace ID` tells a message's whole way")?,
            (_, Some(_)) => writeln!(out, "{shown} receipts, and there are more; --limit shows them")?,
        }
    }
    out.flush()?;
    Ok(())
}

pub(super) async fn count(args: &TraceArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let tallies = reader.tally_receipts(&args.filter()).await?;
    if args.json {
        for tally in &tallies {
            serde_json::to_writer(&mut *out, &ShownTally::from(tally))?;
            writeln!(out)?;
        }
    } else {
        let mut table = Table::new(["PIPELINE", "SETTLEMENT", "RECEIPTS", "FAILURES"]);
        let cells = tallies.iter().map(|tally| {
            let pipeline = cut(&inline(&tally.pipeline).to_string(), MAX_NAME_CHARS);
            [pipeline, tally.ending.name().to_owned(), tally.receipts.to_string(), tally.failures.to_string()]
        });
        table.write(cells.collect(), out)?;
        writeln!(
            out,
            "of messages without trouble only a share leaves a receipt (`receipts.sample`); metrics count them all"
        )?;
    }
    out.flush()?;
    Ok(())
}

/// Rows under titles. The widths are those of the first page, so that a long list can be written as it is read.
struct Table<const N: usize> {
    titles: [&'static str; N],
    widths: Option<[usize; N]>,
}

impl<const N: usize> Table<N> {
    fn new(titles: [&'static str; N]) -> Self {
        Self { titles, widths: None }
    }

    fn write(&mut self, rows: Vec<[String; N]>, out: &mut impl Write) -> std::io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let widths = match self.widths {
            Some(widths) => widths,
            None => {
                let mut widths = self.titles.map(str::len);
                for row in &rows {
                    for (width, cell) in widths.iter_mut().zip(row) {
                        *width = (*width).max(cell.chars().count());
                    }
                }
                self.widths = Some(widths);
                write_row(&self.titles.map(str::to_owned), widths, out)?;
                widths
            }
        };
        rows.iter().try_for_each(|row| write_row(row, widths, out))
    }
}

fn write_row<const N: usize>(cells: &[String; N], widths: [usize; N], out: &mut impl Write) -> std::io::Result<()> {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    writeln!(out, "{}", padded.join("  ").trim_end())
}

fn row(receipt: &Summary) -> [String; 7] {
    let name = |text: &str| cut(&inline(text).to_string(), MAX_NAME_CHARS);
    [
        // Whole: it is what `trace` is asked with.
        inline(&receipt.message_id).to_string(),
        time(receipt.began_at_ms, 3),
        name(&receipt.pipeline),
        receipt.ending.name().to_owned(),
        receipt.failures.to_string(),
        receipt.correlation_id.as_deref().map_or_else(|| "-".to_owned(), name),
        receipt.key.as_deref().map_or_else(|| "-".to_owned(), |key| name(&String::from_utf8_lossy(key))),
    ]
}
