//! Inputs made from seeds: a few random edits each, the way parsers break.

use std::ops::Range;

use fastrand::Rng;

/// Larger inputs are cut: they find nothing that smaller ones do not, only more slowly.
const MAX_INPUT_BYTES: usize = 64 << 10;
/// Most edits of one input.
const MAX_EDITS: usize = 8;
/// Longest stretch that one edit inserts, removes or repeats.
const MAX_STRETCH_BYTES: usize = 64;
/// Bytes that mean something to many formats.
const TELLING_BYTES: [u8; 16] =
    [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'\t', b' ', b'"', b'\'', b'\\', b'{', b'[', b'0', b'-'];

/// An endless sequence of inputs that depends only on the number it starts with.
pub struct Mutator<'w> {
    random: Rng,
    seeds: Vec<Vec<u8>>,
    words: &'w [&'w [u8]],
}

impl<'w> Mutator<'w> {
    /// `seeds` must not be empty.
    pub fn new(number: u64, seeds: Vec<Vec<u8>>, words: &'w [&'w [u8]]) -> Self {
        Self { random: Rng::with_seed(number), seeds, words }
    }

    /// The next one.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seeds[self.random.usize(0..self.seeds.len())].clone();
        for _ in 0..self.random.usize(1..=MAX_EDITS) {
            self.edit(&mut input);
        }
        input.truncate(input.len().min(MAX_INPUT_BYTES.max(self.longest_seed())));
        input
    }

    fn longest_seed(&self) -> usize {
        self.seeds.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn edit(&mut self, input: &mut Vec<u8>) {
        let stretch = self.stretch(input.len());
        match self.random.u8(0..10) {
            0 => flip(input, &mut self.random),
            1 => drop(input.drain(stretch)),
            2 => repeat(input, stretch, self.random.usize(1..200)),
            3 => {
                let other = &self.seeds[self.random.usize(0..self.seeds.len())];
                let cut = self.random.usize(0..=other.len());
                input.truncate(stretch.start);
                input.extend_from_slice(&other[cut..]);
            }
            4 => input.truncate(stretch.start),
            5 | 6 if !self.words.is_empty() => {
                let word = self.words[self.random.usize(0..self.words.len())];
                input.splice(stretch.start..stretch.start, word.iter().copied());
            }
            7 => {
                let bytes: Vec<u8> = (0..self.random.usize(0..MAX_STRETCH_BYTES)).map(|_| self.random.u8(..)).collect();
                input.splice(stretch, bytes);
            }
            _ => {
                let byte = TELLING_BYTES[self.random.usize(0..TELLING_BYTES.len())];
                match input.get_mut(stretch.start) {
                    Some(place) => *place = byte,
                    None => input.push(byte),
                }
            }
        }
    }

    /// Somewhere in an input of that length.
    fn stretch(&mut self, length: usize) -> Range<usize> {
        let start = self.random.usize(0..=length);
        start..(start + self.random.usize(0..MAX_STRETCH_BYTES)).min(length)
    }
}

fn flip(input: &mut [u8], random: &mut Rng) {
    if !input.is_empty() {
        input[random.usize(0..input.len())] ^= 1 << random.u8(0..8);
    }
}

fn repeat(input: &mut Vec<u8>, stretch: Range<usize>, times: usize) {
    let repeated = input[stretch.clone()].repeat(times);
    input.splice(stretch.end..stretch.end, repeated);
}

#[test]
fn the_sequence_depends_on_the_number_alone() {
    let sequence = |number| {
        let mut mutator = Mutator::new(number, vec![b"{\"a\":1}".to_vec(), b"[]".to_vec()], &[b"null"]);
        (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
    };
    assert_eq!(sequence(7), sequence(7));
    assert_ne!(sequence(7), sequence(8));
    assert!(sequence(7).iter().all(|input| input.len() <= MAX_INPUT_BYTES));
}
