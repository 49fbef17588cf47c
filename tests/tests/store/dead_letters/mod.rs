mod read;
mod repair;
mod round_trip;
pub mod sample;
