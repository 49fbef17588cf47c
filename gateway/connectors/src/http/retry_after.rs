//! The `Retry-After` header (RFC 9110, 10.2.3): seconds, or one of the three forms of an HTTP date.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use jiff::fmt::strtime;

/// The longest wait another server can ask of us; longer wishes are cut to this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// How long to wait from `now`; zero for a date in the past, `None` if `value` says nothing.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wish = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit mean "very long", which is cut below like any other.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = parse_http_date(value)?;
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wish.min(MAX_RETRY_AFTER))
}

/// RFC 9110, 5.6.7: IMF-fixdate, and the obsolete RFC 850 and asctime forms, which recipients must still take.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    if let Ok(zoned) = rfc2822::parse(text) {
        return Some(zoned.timestamp());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].iter().find_map(|format| {
        let civil = strtime::parse(format, text).ok()?.to_datetime().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(value: &str) -> Option<Duration> {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        parse_retry_after(value, now)
    }

    #[test]
    fn seconds_and_all_forms_of_dates_are_understood() {
        let expected = Some(Duration::from_secs(37));
        assert_eq!(wait("37"), expected);
        assert_eq!(wait(" 37 "), expected);
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), expected);
        assert_eq!(wait("Sunday, 06-Nov-94 08:49:37 GMT"), expected);
        assert_eq!(wait("Sun Nov  6 08:49:37 1994"), expected);
    }

    #[test]
    fn the_past_is_now_and_the_far_future_is_cut() {
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Mon, 06 Nov 2094 08:00:00 GMT"), None, "the weekday is wrong: it was a Saturday");
        assert_eq!(wait("Sat, 06 Nov 2094 08:00:00 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("99999999999999999999999"), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn nonsense_is_no_wish() {
        for value in ["", "-1", "1.5", "soon", "1 2", "0x10", "Sun, 06 Nov"] {
            assert_eq!(wait(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_exceeds_the_limit(value in "\\PC{0,40}") {
            if let Some(waited) = wait(&value) {
                prop_assert!(waited <= MAX_RETRY_AFTER);
            }
        }
    }
}
