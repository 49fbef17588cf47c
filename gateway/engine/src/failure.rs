//! Why something failed, sorted by what to do about it.

use std::fmt;
use std::time::Duration;

/// A source, target or dead-letter store could not do its work. Sorted by decision, not by origin: what the engine does
/// next depends on [`FailureKind`] alone, the text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What to do about it.
    pub kind: FailureKind,
    /// What was being done, to what, what went wrong, and what to try. Never contains secrets.
    pub text: String,
}

/// What a [`Failure`] asks of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Trying again may help, not before `retry_after` if the other side said so.
    Transient {
        /// The other side's own wish, such as HTTP `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Trying the same again cannot help.
    Permanent,
    /// The connection is gone: connect anew, then try again. Costs the message no attempt.
    Disconnected,
    /// The source has no more messages and never will.
    EndOfInput,
}

impl Failure {
    /// Trying again may help.
    pub fn transient(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Transient { retry_after: None }, text: text.into() }
    }

    /// Trying again may help, after `delay`.
    pub fn retry_after(delay: Duration, text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Transient { retry_after: Some(delay) }, text: text.into() }
    }

    /// Trying the same again cannot help.
    pub fn permanent(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Permanent, text: text.into() }
    }

    /// The connection is gone.
    pub fn disconnected(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Disconnected, text: text.into() }
    }

    /// The source is exhausted.
    pub fn end_of_input() -> Self {
        Self { kind: FailureKind::EndOfInput, text: "end of input".to_owned() }
    }
}

/// A code for programs and a text for people, as a guest or a rule gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Short and stable, for example `missing_field`.
    pub code: String,
    /// One sentence.
    pub text: String,
}

impl Reason {
    /// Both parts.
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code: code.into(), text: text.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

/// A step did not let the message pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepFailure {
    /// The body does not satisfy the schema, or is not JSON at all.
    #[error("the body does not satisfy schema `{schema}`: {}", list(.errors))]
    Schema {
        /// The configured name of the schema.
        schema: String,
        /// Every violation, never just the first.
        errors: Vec<SchemaError>,
    },
    /// A plugin refused, failed or broke its contract.
    #[error("plugin `{plugin}`: {failure}")]
    Guest {
        /// The configured name of the plugin.
        plugin: String,
        /// Digest of the component, `sha256:…`.
        digest: String,
        /// What happened.
        failure: GuestFailure,
    },
    /// No route matched and the policy is to dead-letter.
    #[error("no target: the router returned no destination")]
    Unroutable,
    /// The step took longer than the pipeline's `handler_timeout`.
    #[error("step took longer than the handler timeout of {0:?}")]
    Timeout(Duration),
}

/// One violation of a JSON Schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// JSON pointer (RFC 6901) to the offending value in the body; empty for the whole body.
    pub pointer: String,
    /// What is wrong with it.
    pub text: String,
}

fn list(errors: &[SchemaError]) -> String {
    let shown: Vec<String> = errors
        .iter()
        .map(|e| if e.pointer.is_empty() { e.text.clone() } else { format!("{}: {}", e.pointer, e.text) })
        .collect();
    shown.join("; ")
}

/// How a guest call ended badly. Only the first two are the guest's own words; the rest is the host's evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestFailure {
    /// The guest asked for another try.
    #[error("asks for a retry: {reason}")]
    Retry {
        /// The guest's reason.
        reason: Reason,
        /// The guest's wish for the delay.
        after: Option<Duration>,
    },
    /// The guest refuses this message for good.
    #[error("rejects the message: {0}")]
    Reject(Reason),
    /// The guest trapped: panic, unreachable, stack overflow, out-of-bounds access.
    #[error("trapped: {text}")]
    Trap {
        /// The trap's own words.
        text: String,
        /// Guest frames with function names, innermost first.
        backtrace: Vec<String>,
    },
    /// The call used more than its CPU time.
    #[error("exceeded its CPU limit of {limit:?} a call")]
    Deadline {
        /// The limit.
        limit: Duration,
        /// Where the guest was when it was stopped, innermost first.
        backtrace: Vec<String>,
    },
    /// The guest asked for more memory than its limit and failed for it.
    #[error("exceeded its memory limit of {limit_bytes} bytes")]
    Memory {
        /// The limit over all memories of the instance.
        limit_bytes: u64,
        /// Where, innermost first.
        backtrace: Vec<String>,
    },
    /// What the guest returned is larger than it may be.
    #[error("returned {size_bytes} bytes of output, more than its limit of {limit_bytes}")]
    OutputLimit {
        /// What it tried to return.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The guest returned something the contract forbids, such as a target that is not the pipeline's.
    #[error("broke its contract: {0}")]
    ContractViolation(String),
    /// The gateway could not give the guest an instance now (its pool is exhausted). Not the guest's fault.
    #[error("could not be instantiated: {0}")]
    Unavailable(String),
}

/// The class of a failure, as it stands in dead letters, metrics and answers. A closed set, so safe as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// Schema violation.
    Schema,
    /// Rejected by a plugin.
    Rejected,
    /// A plugin's retries are used up.
    Retried,
    /// Trap.
    Trap,
    /// CPU limit.
    Deadline,
    /// Memory limit.
    Memory,
    /// Output limit.
    OutputLimit,
    /// Contract violation.
    Contract,
    /// No free instance, up to the last attempt.
    Unavailable,
    /// No route.
    Unroutable,
    /// `handler_timeout`, up to the last attempt.
    Timeout,
    /// Expired before it could be delivered.
    Expired,
    /// The target refused for good.
    TargetRefused,
    /// The target failed up to the last attempt.
    TargetFailed,
}

impl FailureClass {
    /// Every class.
    pub const ALL: [Self; 14] = [
        Self::Schema,
        Self::Rejected,
        Self::Retried,
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::OutputLimit,
        Self::Contract,
        Self::Unavailable,
        Self::Unroutable,
        Self::Timeout,
        Self::Expired,
        Self::TargetRefused,
        Self::TargetFailed,
    ];

    /// The name used in records, labels and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Rejected => "rejected",
            Self::Retried => "retried",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::OutputLimit => "output_limit",
            Self::Contract => "contract",
            Self::Unavailable => "unavailable",
            Self::Unroutable => "unroutable",
            Self::Timeout => "timeout",
            Self::Expired => "expired",
            Self::TargetRefused => "target_refused",
            Self::TargetFailed => "target_failed",
        }
    }

    /// The class of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Whether the message itself is at fault, so that its sender is told to change it (HTTP 422) rather than to try
    /// again (503).
    pub fn blames_message(self) -> bool {
        match self {
            Self::Schema
            | Self::Rejected
            | Self::Trap
            | Self::Memory
            | Self::OutputLimit
            | Self::Contract
            | Self::Unroutable
            | Self::Expired
            | Self::TargetRefused => true,
            Self::Retried | Self::Deadline | Self::Unavailable | Self::Timeout | Self::TargetFailed => false,
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl StepFailure {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Schema { .. } => FailureClass::Schema,
            Self::Unroutable => FailureClass::Unroutable,
            Self::Timeout(_) => FailureClass::Timeout,
            Self::Guest { failure, .. } => match failure {
                GuestFailure::Retry { .. } => FailureClass::Retried,
                GuestFailure::Reject(_) => FailureClass::Rejected,
                GuestFailure::Trap { .. } => FailureClass::Trap,
                GuestFailure::Deadline { .. } => FailureClass::Deadline,
                GuestFailure::Memory { .. } => FailureClass::Memory,
                GuestFailure::OutputLimit { .. } => FailureClass::OutputLimit,
                GuestFailure::ContractViolation(_) => FailureClass::Contract,
                GuestFailure::Unavailable(_) => FailureClass::Unavailable,
            },
        }
    }

    /// What to do about it. A trap will happen again on the same message, since clocks and randomness are derived from
    /// it; a deadline may have been the machine's fault and is tried again.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Schema { .. } | Self::Unroutable => FailureKind::Permanent,
            Self::Timeout(_) => FailureKind::Transient { retry_after: None },
            Self::Guest { failure, .. } => match failure {
                GuestFailure::Retry { after, .. } => FailureKind::Transient { retry_after: *after },
                GuestFailure::Deadline { .. } | GuestFailure::Unavailable(_) => {
                    FailureKind::Transient { retry_after: None }
                }
                GuestFailure::Reject(_)
                | GuestFailure::Trap { .. }
                | GuestFailure::Memory { .. }
                | GuestFailure::OutputLimit { .. }
                | GuestFailure::ContractViolation(_) => FailureKind::Permanent,
            },
        }
    }
}
