//! Ways to make the outcomes a role answers with. The types themselves are the contract's.

use std::fmt;
use std::time::Duration;

use crate::{Destination, Failure, Postponement, Reason};

impl Reason {
    /// `code` for programs (short, `snake_case`, from a small set), `text` for people (1 KiB of it is kept).
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.code, self.text)
    }
}

impl Failure {
    /// The message can never succeed: it becomes a dead letter at once.
    pub fn reject(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Reject(Reason::new(code, text))
    }

    /// The message may succeed later: it is retried as the pipeline's policy says.
    pub fn retry(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Retry(Postponement { reason: Reason::new(code, text), after_ms: None })
    }

    /// As [`retry`](Self::retry), but no sooner than after this long, in whole milliseconds.
    pub fn retry_after(delay: Duration, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Retry(Postponement { reason: Reason::new(code, text), after_ms: Some(milliseconds(delay)) })
    }

    /// Why, whichever it is.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Retry(postponement) => &postponement.reason,
            Self::Reject(reason) => reason,
        }
    }
}

impl Destination {
    /// The pipeline's target of this name; a name it does not have fails the message.
    pub fn to(target: impl Into<String>) -> Self {
        Self { target: target.into(), key: None, delay_ms: None }
    }

    /// Replaces the routing key, stream or partition key of this delivery, where the target has one.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Holds this delivery back, in whole milliseconds.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay_ms = Some(milliseconds(delay));
        self
    }
}

/// Saturates: half a billion years are as good as any longer delay.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Destination, Failure};

    #[test]
    fn a_destination_carries_key_and_delay() {
        let destination = Destination::to("eu").key("gold").delay(Duration::from_secs(2));
        assert_eq!(destination.target, "eu");
        assert_eq!(destination.key.as_deref(), Some("gold"));
        assert_eq!(destination.delay_ms, Some(2_000));
    }

    #[test]
    fn a_delay_saturates() {
        assert_eq!(Destination::to("eu").delay(Duration::MAX).delay_ms, Some(u64::MAX));
    }

    #[test]
    fn a_failure_knows_its_reason() {
        let Failure::Retry(postponement) = Failure::retry_after(Duration::from_millis(5), "busy", "later") else {
            panic!("retry_after makes a retry")
        };
        assert_eq!(postponement.after_ms, Some(5));
        assert_eq!(Failure::reject("bad", "no").reason().to_string(), "bad: no");
    }
}
