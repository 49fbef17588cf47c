mod read;
mod repair;
mod round_trip;
#[path = "../../../../gateway/store/tests/store/sample.rs"]
pub mod sample;
