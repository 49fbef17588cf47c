//! `dlq list`.

use std::io::Write;

use sluicegate_store::Reader;
use sluicegate_store::dead_letter::{MAX_PAGE_LETTERS, Summary};

use super::ListArgs;
use super::record::ListedLetter;
use super::text::{cut, inline, time};

/// Longest error in a table's row, in characters.
const MAX_ERROR_CHARS: usize = 80;
/// Longest name in a table's row, in characters.
const MAX_NAME_CHARS: usize = 36;

const TITLES: [&str; 8] = ["ID", "FAILED AT", "PIPELINE", "AT", "CLASS", "TRIES", "MESSAGE", "ERROR"];

pub(super) async fn list(args: &ListArgs, reader: &Reader, out: &mut impl Write) -> anyhow::Result<()> {
    let filter = args.filter.filter();
    let mut left = args.limit;
    let mut shown = 0_u64;
    let mut after: Option<String> = None;
    let mut table = Table::default();
    loop {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(MAX_PAGE_LETTERS);
        let page = reader.list(&filter, limit, after.as_deref()).await?;
        if args.json {
            for letter in &page.letters {
                serde_json::to_writer(&mut *out, &ListedLetter::from(letter))?;
                writeln!(out)?;
            }
        } else {
            table.write(&page.letters, out)?;
        }
        shown += page.letters.len() as u64;
        left = left.saturating_sub(page.letters.len() as u64);
        after = page.next;
        if left == 0 || after.is_none() {
            break;
        }
    }
    if !args.json {
        let matching = reader.count(&filter).await?;
        match (shown, after) {
            (0, _) => writeln!(out, "no dead letters match")?,
            (_, None) => writeln!(out, "{shown} dead letters; `sluicegate dlq show ID` explains one")?,
            (_, Some(_)) => writeln!(out, "{shown} of {matching} dead letters; --limit shows more")?,
        }
    }
    out.flush()?;
    Ok(())
}

/// Rows under titles. The widths are those of the first page, so that a long list can be written as it is read.
#[derive(Default)]
struct Table {
    widths: Option<[usize; 8]>,
}

impl Table {
    fn write(&mut self, letters: &[Summary], out: &mut impl Write) -> anyhow::Result<()> {
        let rows: Vec<[String; 8]> = letters.iter().map(row).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let widths = match self.widths {
            Some(widths) => widths,
            None => {
                let widths = widths(&rows);
                self.widths = Some(widths);
                write_row(&TITLES.map(str::to_owned), widths, out)?;
                widths
            }
        };
        for row in &rows {
            write_row(row, widths, out)?;
        }
        Ok(())
    }
}

fn row(letter: &Summary) -> [String; 8] {
    let place = match (&letter.step, &letter.target) {
        (Some(step), _) => step.clone(),
        (None, Some(target)) => format!("-> {target}"),
        (None, None) => "-".to_owned(),
    };
    let name = |text: &str| cut(&inline(text).to_string(), MAX_NAME_CHARS);
    [
        inline(&letter.id).to_string(),
        time(letter.failed_at_ms, 0),
        name(&letter.pipeline),
        name(&place),
        letter.class.name().to_owned(),
        letter.attempts.to_string(),
        name(&letter.message_id),
        cut(&inline(&letter.error).to_string(), MAX_ERROR_CHARS),
    ]
}

fn widths(rows: &[[String; 8]]) -> [usize; 8] {
    let mut widths = TITLES.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn write_row(cells: &[String; 8], widths: [usize; 8], out: &mut impl Write) -> std::io::Result<()> {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    writeln!(out, "{}", padded.join("  ").trim_end())
}
