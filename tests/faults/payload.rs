//! What a message holds: all of it follows from the seed, the lane and the number, so that nothing has to be remembered
//! to know whether what arrives is what was sent.

use std::fmt::Write;

/// The header every message carries; a name that is a CloudEvents attribute as well, so that every system carries it.
pub const SEAL: &str = "faultseal";
/// Keys of an ordered lane.
pub const KEYS: u64 = 16;
/// One message in so many is larger.
const LARGE_EVERY: u64 = 50;

/// The message `number` of a lane.
#[derive(Debug, Clone, Copy)]
pub struct Payload {
    pub seed: u64,
    pub lane: usize,
    pub number: u64,
    /// One in so many is no JSON and fails its pipeline's schema; 0 for none.
    pub poison_every: u64,
}

impl Payload {
    /// The message's id: `f-LANE-NUMBER`.
    pub fn id(&self) -> String {
        format!("f-{}-{}", self.lane, self.number)
    }

    pub fn key(&self) -> u64 {
        self.number % KEYS
    }

    pub fn is_poison(&self) -> bool {
        self.poison_every > 0 && self.number % self.poison_every == self.poison_every - 1
    }

    /// Compact JSON, or for poison a text that is none.
    pub fn body(&self) -> Vec<u8> {
        let digest = self.digest();
        let bytes = if self.number % LARGE_EVERY == LARGE_EVERY - 1 { 4_096 } else { digest % 512 };
        let mut filler = String::new();
        let mut state = digest;
        while (filler.len() as u64) < bytes {
            state = mix(state);
            write!(filler, "{state:016x}").expect("a string takes all");
        }
        let (lane, number) = (self.lane, self.number);
        if self.is_poison() {
            return format!("poison {lane} {number} {filler}").into_bytes();
        }
        format!(r#"{{"lane":{lane},"number":{number},"filler":"{filler}"}}"#).into_bytes()
    }

    /// The value of the header [`SEAL`].
    pub fn seal(&self) -> String {
        format!("{:016x}", mix(self.digest()))
    }

    fn digest(&self) -> u64 {
        mix(mix(self.seed ^ ((self.lane as u64) << 48)) ^ self.number)
    }
}

/// The lane and number a body names.
pub fn number(body: &[u8]) -> Option<(usize, u64)> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some((usize::try_from(value["lane"].as_u64()?).ok()?, value["number"].as_u64()?))
}

/// The number in an [id](Payload::id) of this lane.
pub fn number_of_id(id: &str, lane: usize) -> Option<u64> {
    id.strip_prefix("f-")?.strip_prefix(&lane.to_string())?.strip_prefix('-')?.parse().ok()
}

/// SplitMix64's finalizer: far apart for neighbours.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
