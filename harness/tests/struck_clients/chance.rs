//! Chance that can be repeated.

use std::env;

/// Draws numbers that are a function of a seed.
pub(crate) struct Chance(u64);

impl Chance {
    /// For the test of this name. `BACKSTOP_STRIKES_SEED` is a number that makes other draws.
    pub(crate) fn of(test: &str) -> Self {
        let seed = env::var("BACKSTOP_STRIKES_SEED").map_or(0, |seed| seed.parse().expect("a number"));
        println!("{test}: seed {seed}");
        Self(test.bytes().fold(seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte)))
    }

    /// Below `bound`: SplitMix64 (Steele, Lea and Flood, 2014).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("an index")]
    }
}

/// How many strikes a test makes: `usual`, or so many times as many as `BACKSTOP_STRIKES` says.
pub(crate) fn strikes(usual: usize) -> usize {
    usual * env::var("BACKSTOP_STRIKES").map_or(1, |times| times.parse::<usize>().expect("a number"))
}
