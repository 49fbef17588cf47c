//! Who may do what, over HTTP, with the guard before the whole server and a real store behind it.

mod audit;
mod keys;
mod server;
mod tenants;
mod walls;
