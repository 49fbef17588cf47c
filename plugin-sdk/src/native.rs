//! Messages and drafts as plain values, so that a plugin is tested without a gateway.

mod document;
mod draft;
mod message;

pub use draft::Draft;
pub use message::{Message, MessageBuilder};
