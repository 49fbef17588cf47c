//! Who calls, and what they may do.
//!
//! [`Guard`] stands before the whole server: it finds out who calls from the credential alone, looks up in [`routes`] what
//! that needs, and puts the [`Caller`] into the request. What a handler decides besides it asks the caller.

mod audit;
mod bootstrap;
mod caller;
mod credential;
mod directory;
mod guard;
mod routes;
mod token;
mod upkeep;

pub use audit::{Audit, Audited};
pub use bootstrap::{BOOTSTRAP_VARIABLE, first_key};
pub use caller::{Caller, Credential, Scope, Scopes};
pub use directory::Directory;
pub use guard::Guard;
pub use token::{JwksPlace, Tokens};
pub use upkeep::keep_up;
