//! Statistics over several worlds.

/// A number with the bounds that it lies within, 19 times of 20.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    /// The mean of the worlds.
    pub mean: f64,
    /// Lower bound of the mean, by Student's t.
    pub low: f64,
    /// Upper bound of the mean.
    pub high: f64,
}

impl Estimate {
    /// From one number of each world. Each world is a bootstrap of the evidence, so their spread is the estimate's error.
    pub(super) fn of(worlds: &[f64]) -> Self {
        let n = worlds.len() as f64;
        let mean = worlds.iter().fold(0.0, |sum, world| sum + world) / n.max(1.0);
        let squares = worlds.iter().fold(0.0, |sum, x| sum + (x - mean).powi(2));
        let spread = if worlds.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let reach = spread * student(worlds.len().saturating_sub(1));
        Self { mean, low: mean - reach, high: mean + reach }
    }

    /// Returns true if the bounds exclude zero.
    pub(super) fn is_not_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// The 97.5 % quantile of Student's t with so many degrees of freedom, to one part in a thousand.
fn student(freedom: usize) -> f64 {
    const FIRST: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        0 => 0.0,
        1..=10 => FIRST[freedom - 1],
        _ => {
            // Fisher and Cornish (1960), the first terms for z = 1.96.
            let (z, v) = (1.959_964_f64, freedom as f64);
            let g1 = (z * z * z + z) / 4.0;
            let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            z + g1 / v + g2 / (v * v)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_students_t() {
        assert!((student(19) - 2.093).abs() < 0.002 && (student(60) - 2.000).abs() < 0.002);
        let estimate = Estimate::of(&[9.0, 10.0, 11.0]);
        assert_eq!(estimate.mean, 10.0);
        assert!((estimate.high - 14.303).abs() < 1e-3 && (estimate.low - 5.697).abs() < 1e-3);
        assert!(estimate.is_not_zero());
        assert!(!Estimate::of(&[-1.0, 1.0]).is_not_zero() && !Estimate::of(&[0.0, 0.0]).is_not_zero());
        assert_eq!(Estimate::of(&[]).mean, 0.0);
    }
}
