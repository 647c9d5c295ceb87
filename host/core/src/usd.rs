//! Amounts of money as people read them.

use std::fmt;

/// An amount of USD with three significant digits, or whole cents from a dollar on: `$0.0000142`, `$0.25`, `$12.30`. What is
/// not zero never looks like zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usd(pub f64);

/// Smaller amounts have this many digits after the point, and no more.
const MOST_DIGITS: i32 = 15;

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0.0 { "-" } else { "" };
        let amount = self.0.abs();
        if amount >= 1.0 || !amount.is_finite() {
            return write!(f, "{sign}${amount:.2}");
        }
        if amount == 0.0 {
            return f.write_str("$0");
        }
        let digits = (2 - amount.log10().floor() as i32).clamp(2, MOST_DIGITS) as usize;
        let text = format!("{amount:.digits$}");
        write!(f, "{sign}${}", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The sum of amounts of money. The standard library's sum of no `f64` is -0.0, which people and JSON then read.
pub fn total_usd(amounts: impl IntoIterator<Item = f64>) -> f64 {
    amounts.into_iter().fold(0.0, |sum, amount| sum + amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_amounts_keep_their_significant_digits() {
        for (amount, text) in [
            (0.0, "$0"),
            (-0.0, "$0"),
            (0.000_014_23, "$0.0000142"),
            (4.0e-7, "$0.0000004"),
            (0.25, "$0.25"),
            (0.1, "$0.1"),
            (0.999_9, "$1"),
            (12.3, "$12.30"),
            (-0.002, "-$0.002"),
        ] {
            assert_eq!(Usd(amount).to_string(), text);
        }
    }

    #[test]
    fn the_total_of_nothing_is_zero_without_a_sign() {
        assert!(total_usd([]).is_sign_positive());
        assert_eq!(total_usd([0.25, 0.5]), 0.75);
    }
}
