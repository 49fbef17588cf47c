//! Who calls, and what they may do.

mod caller;

pub use caller::{Caller, Credential, Scope, Scopes};
