//! Guest text made fit for logs, errors and records.

/// At most `limit_bytes` of `text`, cut between characters, control characters escaped: a guest can neither forge a log
/// line nor move a terminal's cursor.
pub(crate) fn tame(text: &str, limit_bytes: usize) -> String {
    let cut = &text[..text.floor_char_boundary(limit_bytes)];
    if !cut.contains(is_unsafe) {
        return cut.to_owned();
    }
    let mut tamed = String::with_capacity(cut.len());
    for character in cut.chars() {
        if is_unsafe(character) {
            tamed.extend(character.escape_default());
        } else {
            tamed.push(character);
        }
    }
    tamed.truncate(tamed.floor_char_boundary(limit_bytes));
    tamed
}

/// Control characters, and those that reorder or break lines.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::tame;

    #[test]
    fn plain_text_stays() {
        assert_eq!(tame("grün & 日本", 100), "grün & 日本");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(tame("a\nb\u{1b}[2J\u{202e}", 100), "a\\nb\\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn the_cut_is_between_characters_and_holds_after_escaping() {
        assert_eq!(tame("aä", 2), "a");
        assert_eq!(tame("\n\n\n", 3), "\\n\\");
    }
}
