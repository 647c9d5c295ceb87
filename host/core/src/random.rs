//! Random numbers that are the same for the same seed.

/// Increment of [`SplitMix64`]: 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): the state of a sequence, which begins as its seed. Not for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// Returns the sequence's next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Returns the next number as one in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Spreads the bits of a number over all of it: SplitMix64's finish.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns the seed of the sequence whose first number is this one, so that a recorded query leads back to its simulation.
pub fn seed_of_first(number: u64) -> u64 {
    /// The inverses of the factors of [`mix`], modulo 2^64.
    const INVERSES: [u64; 2] = [0x3196_42b2_d24d_8ec3, 0x96de_1b17_3f11_9089];
    let mut z = number ^ (number >> 31) ^ (number >> 62);
    z = z.wrapping_mul(INVERSES[0]);
    z = z ^ (z >> 27) ^ (z >> 54);
    z = z.wrapping_mul(INVERSES[1]);
    z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_sub(GOLDEN)
}
