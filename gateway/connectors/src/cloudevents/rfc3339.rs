//! Times as RFC 3339 writes them, from and to milliseconds since the Unix epoch.

use jiff::Timestamp;

/// The last whole second jiff knows, 9999-12-30T22:00:00Z, in milliseconds: four digits of a year under every offset.
const MAX_MS: i64 = 253_402_207_200_000;

/// UTC with milliseconds, for example `2026-11-20T16:04:05.120Z`. Times past the year 9999 are written as its end.
pub fn print(time_ms: u64) -> String {
    let millis = i64::try_from(time_ms).unwrap_or(MAX_MS).min(MAX_MS);
    Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// Reads a date-time of RFC 3339 with its offset; digits past the millisecond are dropped.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub fn parse(text: &str) -> Result<u64, String> {
    if !has_shape(text.as_bytes()) {
        return Err(format!(
            "`{}` is not an RFC 3339 time with an offset such as 2026-11-20T16:04:05.120Z or 2026-11-20T17:04:05+01:00",
            shortened(text)
        ));
    }
    let time: Timestamp = text.parse().map_err(|error| format!("`{text}` is not a time that exists: {error}"))?;
    u64::try_from(time.as_millisecond()).map_err(|_| format!("`{text}` is before 1970, the earliest time supported"))
}

/// jiff reads more than RFC 3339 allows (spaces, missing parts, bracketed zones), so the shape is looked at first.
fn has_shape(text: &[u8]) -> bool {
    const DATE_TIME: &[u8; 19] = b"dddd-dd-ddTdd:dd:dd";
    let matches = |pattern: &[u8], text: &[u8]| {
        pattern.len() == text.len()
            && pattern.iter().zip(text).all(|(&p, &c)| match p {
                b'd' => c.is_ascii_digit(),
                b'T' => c.eq_ignore_ascii_case(&b'T'),
                _ => c == p,
            })
    };
    let Some((date_time, mut rest)) = text.split_at_checked(DATE_TIME.len()) else { return false };
    if !matches(DATE_TIME, date_time) {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return false;
        }
        rest = &fraction[digits..];
    }
    rest.eq_ignore_ascii_case(b"Z") || matches(b"+dd:dd", rest) || matches(b"-dd:dd", rest)
}

fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offsets_and_fractions_are_read() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Ok(1_000));
        assert_eq!(parse("1970-01-01t01:00:00.5+01:00"), Ok(500));
        assert_eq!(parse("2018-04-05T17:31:00.123456789-02:00"), parse("2018-04-05T19:31:00.123Z"));
    }

    #[test]
    fn what_rfc_3339_does_not_allow_is_refused() {
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T16:04:05",
            "2026-11-20 16:04:05Z",
            "2026-11-20T16:04Z",
            "20261120T160405Z",
            "2026-13-20T16:04:05Z",
            "2026-02-30T16:04:05Z",
            "2026-11-20T16:04:05.Z",
            "2026-11-20T16:04:05Z[UTC]",
            "1969-12-31T23:59:59Z",
            "yesterday",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_past_the_year_9999_are_written_as_its_end() {
        assert_eq!(print(u64::MAX), "9999-12-30T22:00:00.000Z");
        assert!(parse(&print(u64::MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn milliseconds_come_back(time_ms in 0..=MAX_MS as u64) {
            prop_assert_eq!(parse(&print(time_ms)), Ok(time_ms));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            prop_assert!(parse(&text).is_err() || has_shape(text.as_bytes()));
        }
    }
}
