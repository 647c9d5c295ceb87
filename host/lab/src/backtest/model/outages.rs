//! Outages of a backend: good times with single failures, and times in which every attempt failed.
//!
//! A run of failures is an outage with a beginning and an end, both somewhere between the attempts around them. A failure
//! that stands alone is one of the good times, as likely again for any attempt near it.

use std::ops::Range;
use std::time::Duration;

use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;

use crate::backtest::past::Try;
use crate::dice::Dice;

/// Outages found in the attempts at a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outages {
    /// The attempts of good times, by their time.
    pub calm: Vec<Try>,
    /// Bad times, by their time.
    pub spells: Vec<Spell>,
    /// The attempts of bad times, by their time.
    pub bad: Vec<Try>,
}

/// A time in which every attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Spell {
    /// Its attempts, of [`Outages::bad`].
    pub tries: Range<usize>,
    /// The last good attempt before it and its first failed one: it began between them.
    pub begins: (Timestamp, Timestamp),
    /// Its last failed attempt and the first good one after it: it ended between them.
    pub ends: (Timestamp, Timestamp),
}

/// The fewest failures in a row that are no accident; more of them where failures are frequent.
const MIN_RUN: usize = 2;

/// A bad time that nobody saw the end of is taken to last at most so much longer, or as long again as was seen of it.
const UNSEEN: Duration = Duration::from_secs(60);

/// Returns true if this outcome is a failure of the backend.
fn is_bad(kind: Kind) -> bool {
    match kind {
        Kind::RateLimited
        | Kind::OutOfCredit
        | Kind::Overloaded
        | Kind::ServerError
        | Kind::ModelMissing
        | Kind::Unauthorised
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::TimedOut
        | Kind::Cut
        | Kind::Stalled
        | Kind::Malformed => true,
        Kind::Answered | Kind::Refused | Kind::TooLong | Kind::ClientGone | Kind::NotResumed => false,
    }
}

/// Returns true if this outcome tells anything about the backend.
fn is_evidence(kind: Kind) -> bool {
    is_bad(kind) || kind == Kind::Answered
}

/// Finds outages in attempts sorted by time; those that a limit explains are left out by the caller.
pub(crate) fn learn(tries: impl Iterator<Item = Try>) -> Outages {
    let tries: Vec<Try> = tries.filter(|t| is_evidence(t.kind)).collect();
    let outages = split(&tries, MIN_RUN);
    match no_accident(&outages.calm) {
        MIN_RUN => outages,
        longer => split(&tries, longer),
    }
}

/// Returns the number of failures in a row that is not expected even once by chance, given their frequency in good
/// times.
fn no_accident(calm: &[Try]) -> usize {
    const MAX_RUN: usize = 12;
    let failed = calm.iter().filter(|t| is_bad(t.kind)).count();
    // Only lone ones are left in there: of independent failures of share p, p (1 - p) to each answer.
    let to_each_answer = failed as f64 / (calm.len() - failed).max(1) as f64;
    let share = (1.0 - (1.0 - 4.0 * to_each_answer).max(0.0).sqrt()) / 2.0;
    let by_chance = |run: &usize| calm.len() as f64 * share.powi(i32::try_from(*run).unwrap_or(i32::MAX));
    (MIN_RUN..MAX_RUN).find(|run| by_chance(run) < 1.0).unwrap_or(MAX_RUN)
}

/// Runs of at least so many failures are bad times.
fn split(tries: &[Try], min_run: usize) -> Outages {
    let mut outages = Outages::default();
    let mut from = 0;
    while from < tries.len() {
        let run = tries[from..].iter().take_while(|t| is_bad(t.kind)).count();
        if run < min_run {
            outages.calm.extend_from_slice(&tries[from..from + run.max(1)]);
            from += run.max(1);
            continue;
        }
        let (first, last) = (tries[from], tries[from + run - 1]);
        let most = UNSEEN.max((last.sent).since(first.sent));
        let before = from.checked_sub(1).map(|i| tries[i].sent);
        let after = tries.get(from + run).map(|t| t.sent);
        let known = outages.bad.len();
        outages.bad.extend_from_slice(&tries[from..from + run]);
        outages.spells.push(Spell {
            tries: known..known + run,
            begins: (before.unwrap_or(first.sent).max(first.sent - most), first.sent),
            ends: (last.sent, after.unwrap_or(last.sent + most).min(last.sent + most)),
        });
        from += run;
    }
    outages
}

impl Spell {
    /// Its beginning and end in one world.
    pub fn drawn(&self, dice: &mut Dice) -> Range<Timestamp> {
        let mut between = |(from, to): (Timestamp, Timestamp)| from + to.since(from).mul_f64(dice.unit());
        between(self.begins)..between(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::model::tests::{T0, tried};

    const S: Duration = Duration::from_secs(1);

    fn seen(all: &[(u32, Kind)]) -> Outages {
        learn(all.iter().map(|(second, kind)| tried(T0 + S * *second, *kind)))
    }

    #[test]
    fn a_run_of_failures_is_an_outage_and_a_lone_one_an_accident() {
        let outages = seen(&[
            (0, Kind::Answered),
            (5, Kind::ServerError),
            (9, Kind::Answered),
            (20, Kind::ConnectFailed),
            (21, Kind::TimedOut),
            (40, Kind::ConnectFailed),
            (50, Kind::Answered),
        ]);
        assert_eq!(outages.calm.len(), 4);
        let [spell] = &outages.spells[..] else { panic!("one outage: {outages:?}") };
        assert_eq!(spell.begins, (T0 + S * 9, T0 + S * 20));
        assert_eq!(spell.ends, (T0 + S * 40, T0 + S * 50));
        assert_eq!(outages.bad[spell.tries.clone()].len(), 3);
        for seed in 0..100 {
            let drawn = spell.drawn(&mut Dice::new(seed, 1));
            assert!(drawn.start >= T0 + S * 9 && drawn.start <= T0 + S * 20, "{drawn:?}");
            assert!(drawn.end >= T0 + S * 40 && drawn.end <= T0 + S * 50, "{drawn:?}");
        }
    }

    #[test]
    fn where_failures_are_frequent_two_in_a_row_are_no_outage() {
        let mut dice = Dice::new(4, 4);
        let mut kind = |n: u32| match dice.one_in(5) || (700..730).contains(&n) {
            true => Kind::ServerError,
            false => Kind::Answered,
        };
        let all: Vec<(u32, Kind)> = (0..2_000).map(|n| (n, kind(n))).collect();
        let outages = seen(&all);
        assert!(outages.spells.len() <= 3, "{:?}", outages.spells);
        assert!(outages.spells.iter().any(|s| s.tries.len() >= 30), "the outage is seen");
    }

    #[test]
    fn what_says_nothing_about_the_backend_is_no_evidence() {
        let outages = seen(&[(0, Kind::Reset), (1, Kind::ClientGone), (2, Kind::Refused), (3, Kind::Reset)]);
        assert_eq!((outages.calm.len(), outages.spells.len()), (0, 1));
    }

    #[test]
    fn an_outage_whose_end_nobody_saw_does_not_last_for_ever() {
        let outages = seen(&[(0, Kind::Reset), (10, Kind::Reset), (7_200, Kind::Answered)]);
        assert_eq!(outages.spells[0].ends, (T0 + S * 10, T0 + S * 70));
    }
}
