//! Bounds that hold at every moment at once, so that looking after every exchange costs no certainty.
//!
//! A bound of level `alpha` is wrong *ever*, however long it is looked at, with a probability of at most `alpha`:
//! - Of a share: the confidence sequence of the beta-binomial mixture. For every `p`, the likelihood of what was seen under a
//!   mixture of all shares, over its likelihood under `p`, is a martingale that begins at 1, and by Ville's inequality
//!   exceeds `1 / alpha` ever with probability at most `alpha` (H. Robbins, "Statistical methods related to the law of the
//!   iterated logarithm", 1970; S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic
//!   confidence sequences", Annals of Statistics 49, 2021, section 3). The mixture is Jeffreys' Beta(1/2, 1/2).
//! - Of a quantile: who lies above the true one is a share of its own (S. Howard, A. Ramdas, "Sequential estimation of
//!   quantiles with applications to A/B testing and best-arm identification", Bernoulli 28, 2022).
//! - Of a mean of unbounded numbers: the asymptotic confidence sequence of I. Waudby-Smith, D. Arbour, R. Sinha, E. Kennedy,
//!   A. Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024,
//!   appendix B.1 (one-sided). It is as good as the central limit theorem, so it says nothing about the first
//!   [`MIN_FOR_MEANS`].

use std::f64::consts::PI;

/// Fewer numbers than this have no bound of their mean.
pub(super) const MIN_FOR_MEANS: u64 = 50;

/// The number of observations at which the bound of a mean is about as tight as can be.
const MEANS_TIGHTEST_AT: f64 = 500.0;

/// Halvings of an interval: to 1e-9 of it.
const HALVINGS: u32 = 30;

/// Frequency of an observation among trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Number of trials at which it was observed.
    pub(super) yes: u64,
    /// Number of trials.
    pub(super) of: u64,
}

impl Count {
    /// The share seen; 0 of none is 0.
    pub(super) fn share(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.yes as f64 / self.of as f64 }
    }

    /// The largest share that the true one is above, at this level; 0: any may be.
    pub(super) fn at_least(self, alpha: f64) -> f64 {
        if self.yes == 0 { 0.0 } else { self.boundary(0.0, alpha) }
    }

    /// The smallest share that the true one is below, at this level; 1: any may be.
    pub(super) fn at_most(self, alpha: f64) -> f64 {
        if self.yes == self.of { 1.0 } else { self.boundary(1.0, alpha) }
    }

    /// Returns true if the data refute a true share of `p` at this level.
    pub(super) fn refutes(self, p: f64, alpha: f64) -> bool {
        self.ln_evidence(p) >= -alpha.ln()
    }

    /// Between the share seen, which is never refuted, and `far`, which always is.
    fn boundary(self, far: f64, alpha: f64) -> f64 {
        let (mut near, mut far) = (self.share(), far);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(near, far);
            if self.refutes(middle, alpha) { far = middle } else { near = middle }
        }
        far
    }

    /// The logarithm of the martingale.
    fn ln_evidence(self, p: f64) -> f64 {
        let (yes, no) = (self.yes as f64, (self.of - self.yes) as f64);
        let times = |n: f64, p: f64| if n == 0.0 { 0.0 } else { n * p.ln() };
        ln_beta(yes + 0.5, no + 0.5) - PI.ln() - times(yes, p) - times(no, 1.0 - p)
    }
}

/// Mean and spread of numbers (Welford's method).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Mean {
    pub(super) fn add(&mut self, number: f64) {
        self.count += 1;
        let before = number - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (number - self.mean);
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns a lower bound of the true mean at this level; `None`: too few numbers.
    pub(super) fn at_least(&self, alpha: f64) -> Option<f64> {
        Some(self.mean - self.margin(alpha)?)
    }

    /// Returns an upper bound of the true mean at this level; `None`: too few numbers.
    pub(super) fn at_most(&self, alpha: f64) -> Option<f64> {
        Some(self.mean + self.margin(alpha)?)
    }

    fn margin(&self, alpha: f64) -> Option<f64> {
        if self.count < MIN_FOR_MEANS {
            return None;
        }
        let t = self.count as f64;
        let tightest = -2.0 * alpha.ln() + (-2.0 * alpha.ln() + 1.0).ln();
        let rho2 = tightest / MEANS_TIGHTEST_AT;
        let grown = t * rho2 + 1.0;
        let deviation = (self.squares / t).sqrt();
        Some(deviation * (2.0 * grown / (t * t * rho2) * (1.0 + grown.sqrt() / (2.0 * alpha)).ln()).sqrt())
    }
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// The logarithm of the gamma function of a positive number, to 1e-12: Stirling's series, after the recurrence has made
/// the number large.
fn ln_gamma(x: f64) -> f64 {
    const LARGE: f64 = 10.0;
    let (mut x, mut product) = (x, 1.0);
    while x < LARGE {
        product *= x;
        x += 1.0;
    }
    let i = 1.0 / (x * x);
    let series = (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1_260.0 - i * (1.0 / 1_680.0 - i / 1_188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - product.ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_gamma_function_is_the_factorial() {
        let mut factorial = 1.0f64;
        for n in 1..60u32 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-11 * factorial.ln().max(1.0), "{n}");
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - PI.sqrt().ln()).abs() < 1e-12);
    }

    #[test]
    fn bounds_of_a_share_close_in_on_it() {
        let few = Count { yes: 5, of: 10 };
        let many = Count { yes: 5_000, of: 10_000 };
        assert!(few.at_least(0.01) < 0.15 && few.at_most(0.01) > 0.85);
        assert!(many.at_least(0.01) > 0.47 && many.at_most(0.01) < 0.53);
        assert_eq!((Count::default().at_least(0.01), Count::default().at_most(0.01)), (0.0, 1.0));
        let none = Count { yes: 0, of: 1_000 };
        assert_eq!(none.at_least(0.01), 0.0);
        assert!((0.005..0.011).contains(&none.at_most(0.01)), "{}", none.at_most(0.01));
    }

    #[test]
    fn a_mean_of_few_numbers_has_no_bound() {
        let mut mean = Mean::default();
        (1..MIN_FOR_MEANS).for_each(|_| mean.add(2.0));
        assert_eq!(mean.at_least(0.01), None);
        mean.add(4.0);
        let (low, high) = (mean.at_least(0.01).unwrap(), mean.at_most(0.01).unwrap());
        assert!(low < 2.04 && 2.04 < high && high - low < 0.6, "{low} to {high}");
    }

    proptest! {
        #[test]
        fn what_was_seen_is_between_its_bounds(of in 1u64..100_000, share in 0.0f64..=1.0, alpha in 0.0001f64..0.2) {
            let count = Count { yes: (of as f64 * share) as u64, of };
            let (low, high) = (count.at_least(alpha), count.at_most(alpha));
            prop_assert!(0.0 <= low && low <= count.share() && count.share() <= high && high <= 1.0);
            prop_assert!(low == 0.0 || count.refutes(low * 0.999, alpha));
            prop_assert!(!count.refutes(count.share(), alpha));
        }
    }
}
