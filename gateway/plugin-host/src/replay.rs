//! Time and chance as a guest sees them: functions of the message, so that running it again tells the same story. What a
//! guest is granted besides (state, HTTP) is the exception: it answers what is so when it is asked.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use sluicegate_engine::message::Message;

/// One reading of the monotonic clock takes this long, in nanoseconds: a guest that measures itself sees time pass.
const NANOSECONDS_A_READING: u64 = 1_000;

/// The wall clock stands at the message's time; the monotonic one starts at zero in each call.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    wall_ms: u64,
    monotonic_ns: u64,
}

impl Clock {
    pub fn at_ms(wall_ms: u64) -> Self {
        Self { wall_ms, monotonic_ns: 0 }
    }

    pub fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    pub fn read_monotonic_ns(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(NANOSECONDS_A_READING);
        self.monotonic_ns
    }

    /// A guest that sleeps wakes at once, at the time it wanted.
    pub fn skip_to_ns(&mut self, at_ns: u64) {
        self.monotonic_ns = self.monotonic_ns.max(at_ns);
    }

    pub fn skip_ns(&mut self, by_ns: u64) {
        self.monotonic_ns = self.monotonic_ns.saturating_add(by_ns);
    }
}

/// SHA-256 over a seed and a counter. The seed is hashed when the first byte is asked for; most guests never ask.
#[derive(Debug, Default)]
pub(crate) struct Randomness {
    seed: Seed,
    next_block: u64,
    block: [u8; 32],
    left: usize,
}

#[derive(Debug, Default)]
enum Seed {
    #[default]
    None,
    Message(Arc<Message>),
    Hash([u8; 32]),
}

impl Randomness {
    pub fn of_message(message: &Arc<Message>) -> Self {
        Self { seed: Seed::Message(Arc::clone(message)), ..Self::default() }
    }

    pub fn of_text(text: &str) -> Self {
        let hash = Sha256::new().chain_update(b"sluicegate configure\0").chain_update(text).finalize();
        Self { seed: Seed::Hash(hash.into()), ..Self::default() }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.left == 0 {
                self.refill();
            }
            *byte = self.block[self.block.len() - self.left];
            self.left -= 1;
        }
    }

    pub fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn refill(&mut self) {
        let seed = match &self.seed {
            Seed::Hash(hash) => *hash,
            Seed::Message(message) => {
                let hash = Sha256::new()
                    .chain_update(b"sluicegate message\0")
                    .chain_update(&message.source)
                    .chain_update([0])
                    .chain_update(&message.id);
                hash.finalize().into()
            }
            Seed::None => [0; 32],
        };
        self.seed = Seed::Hash(seed);
        self.block = Sha256::new().chain_update(seed).chain_update(self.next_block.to_le_bytes()).finalize().into();
        self.next_block += 1;
        self.left = self.block.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(message: &Message, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Randomness::of_message(&Arc::new(message.clone())).fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_same_message_gives_the_same_bytes_and_another_gives_others() {
        let message = Message::new("test", "test", "");
        let mut other = message.clone();
        assert_eq!(bytes(&message, 100), bytes(&other, 100));
        other.id.push('x');
        assert_ne!(bytes(&message, 100), bytes(&other, 100));
    }

    #[test]
    fn blocks_do_not_repeat_and_pieces_add_up() {
        let message = Arc::new(Message::new("test", "test", ""));
        let whole = bytes(&message, 96);
        assert_ne!(whole[..32], whole[32..64]);
        let mut random = Randomness::of_message(&message);
        let mut pieces = vec![0; 96];
        pieces.chunks_mut(7).for_each(|piece| random.fill(piece));
        assert_eq!(whole, pieces);
    }

    #[test]
    fn the_monotonic_clock_moves_on_only() {
        let mut clock = Clock::at_ms(5);
        let first = clock.read_monotonic_ns();
        clock.skip_to_ns(0);
        assert!(clock.read_monotonic_ns() > first);
        clock.skip_ns(1_000_000);
        assert!(clock.read_monotonic_ns() > 1_000_000);
        assert_eq!(clock.wall_ms(), 5);
    }
}
