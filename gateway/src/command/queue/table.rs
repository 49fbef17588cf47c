//! Rows under titles.

use std::io::{self, Write};

use crate::command::dlq::text::{cut, inline};

/// Longest cell, in characters.
const MAX_CELL_CHARS: usize = 48;

/// Writes the rows, as wide as they need to be. What comes from outside cannot steer the terminal.
pub(super) fn write<const N: usize>(titles: [&str; N], rows: &[[String; N]], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| cut(&inline(cell).to_string(), MAX_CELL_CHARS))).collect();
    let mut widths = titles.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(titles)?;
    rows.iter().try_for_each(|row| line(row.each_ref().map(String::as_str)))
}
