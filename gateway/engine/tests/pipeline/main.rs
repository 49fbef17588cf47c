//! The engine as a whole, on paused time, with connectors in memory and faults by script.

mod faults;
mod flow;
mod inbox;
mod receipts;
mod settlement;
mod support;
