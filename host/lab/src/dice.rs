//! Chance that can be had again: everything made up comes from one number.

use std::time::Duration;

use pointsman_core::random::SplitMix64;

/// Spreads a seed's purpose or a question's number over all bits.
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// A sequence of random numbers, and how they fall.
#[derive(Clone, Debug)]
pub struct Dice(SplitMix64);

impl Dice {
    /// Dice that always fall the same; `purpose` tells apart those thrown for different ends in one world.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut numbers = SplitMix64(seed ^ purpose.wrapping_mul(FACTOR));
        numbers.draw();
        Self(numbers)
    }

    /// Dice for one question of many: the same numbers give the same dice.
    pub fn of(numbers: &[u64]) -> Self {
        let next = |mut state: SplitMix64, number: &u64| SplitMix64(state.draw() ^ number.wrapping_mul(FACTOR));
        Self(numbers.iter().fold(SplitMix64(0), next))
    }

    /// 0..n; `n` is at least 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.draw() % n.max(1)
    }

    /// Returns a whole number of `least`..=`most`, each as likely as another.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these; `all` is not empty.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Evenly spread over the magnitudes from `least` to `most`, so that 10 is as likely as 1000.
    pub fn magnitude(&mut self, least: f64, most: f64) -> f64 {
        least * (most / least).powf(self.unit())
    }

    /// The time to the next of events that come at random, `mean` apart.
    pub fn gap(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// Returns a number of 0..1, evenly distributed.
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }
}
