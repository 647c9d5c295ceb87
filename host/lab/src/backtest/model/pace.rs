//! Durations of answers: by length, and by load where the attempts show that it matters.

use std::time::Duration;

use pointsman_core::outcome::Kind;

use crate::backtest::past::Try;

/// Speed of a backend, learned from its answered attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Fixed part of an answer that is not streamed, in ms.
    base_ms: f64,
    /// Time for each token of the answer, ms.
    per_token_ms: f64,
    /// True if answers take longer with more attempts under way.
    pub feels_load: bool,
}

/// With fewer answers nothing is said of the load.
const MIN_ANSWERS: usize = 200;

/// Learns from attempts in the order of their time.
pub(crate) fn learn(tries: &[Try]) -> Pace {
    let answered = || tries.iter().filter(|t| t.kind == Kind::Answered);
    let whole = answered().filter(|t| !t.stream).map(|t| (f64::from(t.output), ms(t.took)));
    let (base_ms, per_token_ms) = line(whole);
    let pace = Pace { base_ms, per_token_ms, feels_load: false };
    let usual = |t: &Try| match t.stream {
        true => f64::from(t.output.max(1)),
        false => (base_ms + per_token_ms * f64::from(t.output)).max(1.0),
    };
    let slowness = |t: &Try| match (t.stream, t.first_ms) {
        (true, Some(first)) => ((ms(t.took) - f64::from(first)).max(1.0) / usual(t)).ln(),
        (true, None) | (false, _) => (ms(t.took).max(1.0) / usual(t)).ln(),
    };
    let all: Vec<(f64, f64)> = answered().map(|t| (f64::from(t.in_flight), slowness(t))).collect();
    Pace { feels_load: all.len() >= MIN_ANSWERS && rises(&all), ..pace }
}

impl Pace {
    /// Scales the duration of an answer of `known` tokens to one of `tokens`.
    pub fn of_whole(&self, took: Duration, known: u32, tokens: u32) -> Duration {
        let usual = |n: u32| self.base_ms + self.per_token_ms * f64::from(n);
        let (was, is) = (usual(known), usual(tokens));
        if was <= 0.0 { took } else { took.mul_f64((is / was).clamp(0.02, 50.0)) }
    }
}

/// Scales the time after the first token of a stream to another length.
pub(crate) fn of_rest(rest: Duration, known: u32, tokens: u32) -> Duration {
    let gaps = |n: u32| f64::from(n.max(2) - 1);
    rest.mul_f64((gaps(tokens) / gaps(known)).clamp(0.002, 500.0))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The line through these points with the least squares that neither begins nor falls below zero: height at 0, and slope.
fn line(points: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (mut n, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (px, py) in points {
        (n, x, y, xx, xy) = (n + 1.0, x + px, y + py, xx + px * px, xy + px * py);
    }
    let spread: f64 = n * xx - x * x;
    let slope = if spread > 1e-9 { (n * xy - x * y) / spread } else { 0.0 };
    let height = if n > 0.0 { (y - slope * x) / n } else { 0.0 };
    if slope < 0.0 {
        return (if n > 0.0 { y / n } else { 0.0 }, 0.0);
    }
    if height < 0.0 {
        return (0.0, if xx > 0.0 { xy / xx } else { 0.0 });
    }
    (height, slope)
}

/// Returns true if the second value rises with the first, significantly and by more than a little. Slow and fast
/// periods do not matter: each point is compared with its neighbours.
fn rises(points: &[(f64, f64)]) -> bool {
    const NEIGHBOURS: usize = 16;
    let (mut xx, mut xy, mut yy, mut n) = (0.0, 0.0, 0.0, 0.0);
    for near in points.chunks(NEIGHBOURS) {
        let count = near.len() as f64;
        let (x, y) = near.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / count, y + p.1 / count));
        for (px, py) in near {
            let (dx, dy) = (px - x, py - y);
            (xx, xy, yy, n) = (xx + dx * dx, xy + dx * dy, yy + dy * dy, n + 1.0);
        }
    }
    let freedom = n - n / NEIGHBOURS as f64 - 1.0;
    let r: f64 = if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 };
    let t = r * (freedom.max(1.0) / (1.0 - r * r).max(1e-9)).sqrt();
    r > 0.15 && t > 4.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::model::tests::{T0, tried};
    use crate::dice::Dice;

    fn answers(took_ms: impl Fn(u32, u16, &mut Dice) -> f64) -> Vec<Try> {
        let mut dice = Dice::new(5, 5);
        let one = |n: u32| {
            let (output, in_flight) = (dice.between(10, 500) as u32, dice.below(20) as u16);
            let took = Duration::from_secs_f64(took_ms(output, in_flight, &mut dice) / 1e3);
            Try { output, in_flight, took, ..tried(T0 + Duration::from_secs(1) * n, Kind::Answered) }
        };
        (0..1_000).map(one).collect()
    }

    #[test]
    fn a_longer_answer_takes_as_much_longer_as_was_seen() {
        let pace = learn(&answers(|tokens, _, dice| (300.0 + 20.0 * f64::from(tokens)) * (0.8 + 0.4 * dice.unit())));
        let doubled = pace.of_whole(Duration::from_millis(2_300), 100, 200).as_millis();
        assert!((4_000..4_700).contains(&doubled), "{doubled}");
        assert!(!pace.feels_load);
        assert_eq!(of_rest(Duration::from_millis(990), 100, 199).as_millis(), 1_980);
    }

    #[test]
    fn load_matters_where_it_does() {
        let felt = learn(&answers(|_, load, dice| 500.0 * (1.0 + 0.05 * f64::from(load)) * (0.7 + 0.6 * dice.unit())));
        assert!(felt.feels_load);
        // Answers of few tokens, in good and in bad hours alike.
        assert_eq!(learn(&[]), Pace::default());
    }
}
