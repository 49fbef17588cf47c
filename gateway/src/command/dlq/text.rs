//! Making foreign text safe and short enough for a terminal.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

/// Text from outside (senders, guests, brokers) for a terminal: control characters, which could move the cursor or
/// change its colours, are written as escapes. Line ends too, unless `lines` are wanted.
pub(crate) struct Printable<'a> {
    text: &'a str,
    lines: bool,
}

/// For a place within a line.
pub(crate) fn inline(text: &str) -> Printable<'_> {
    Printable { text, lines: false }
}

/// For a block of its own; line ends and tabs stay.
pub(crate) fn block(text: &str) -> Printable<'_> {
    Printable { text, lines: true }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.text.chars() {
            let is_kept = self.lines && matches!(character, '\n' | '\t');
            if !is_kept && (character.is_control() || is_direction_override(character)) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Characters that make a terminal show text in another order than it has (https://trojansource.codes).
fn is_direction_override(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `max_chars` characters; the last is `…` when something was cut.
pub(crate) fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

/// `text` with `margin` before every line.
pub(crate) fn indented(text: &str, margin: &str) -> String {
    text.lines().map(|line| format!("{margin}{line}\n")).collect()
}

/// RFC 3339 in UTC with that many digits of seconds.
pub(crate) fn time(milliseconds: u64, digits: usize) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{milliseconds} ms after 1970"), |time| format!("{time:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_cannot_be_steered_from_outside() {
        let hostile = "a\u{1b}[31mred\r\nb\tc\u{202e}d\u{9b}";
        assert_eq!(inline(hostile).to_string(), "a\\u{1b}[31mred\\r\\nb\\tc\\u{202e}d\\u{9b}");
        assert_eq!(block(hostile).to_string(), "a\\u{1b}[31mred\\r\nb\tc\\u{202e}d\\u{9b}");
        assert_eq!(inline("Grüße, 世界").to_string(), "Grüße, 世界");
    }

    #[test]
    fn cutting_counts_characters_and_says_that_it_cut() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüx", 3), "äö…");
    }

    #[test]
    fn times_are_rfc_3339_even_when_they_cannot_be() {
        assert_eq!(time(1_763_654_400_123, 3), "2025-11-20T16:00:00.123Z");
        assert_eq!(time(1_763_654_400_999, 0), "2025-11-20T16:00:00Z");
        assert_eq!(time(u64::MAX, 3), "18446744073709551615 ms after 1970");
    }
}
