//! Random numbers of a query.

/// A sequence of random numbers that is the same for the same seed (SplitMix64).
///
/// ```
/// let mut dice = pointsman_sdk::Dice::new(7);
/// assert!(dice.below(6) < 6);
/// assert!(!dice.chance(0.0) && dice.chance(1.0));
/// assert_eq!(pointsman_sdk::Dice::new(7).below(1_000), pointsman_sdk::Dice::new(7).below(1_000));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`; 0 when the bound is 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (((mix(self.0) >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True once in `1 / share` times; a share of 0 is never, of 1 always.
    #[inline]
    pub fn chance(&mut self, share: f64) -> bool {
        const STEPS: u32 = 1 << 30;
        f64::from(self.below(STEPS)) < share * f64::from(STEPS)
    }
}

/// Spreads the bits of a number over all of it: SplitMix64's finish.
#[inline]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
