mod read;
mod round_trip;
pub mod sample;
