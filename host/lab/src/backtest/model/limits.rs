//! A backend's rate limit, learned from its 429s: how much it had taken when it said no.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use pointsman_core::outcome::Kind;
use pointsman_core::time::Timestamp;

use crate::backtest::past::Try;

/// Unit and window of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Requests that were taken within the time before.
    RequestsWithin(Duration),
    /// Requests that were taken since the clock last showed a multiple of this.
    RequestsSince(Duration),
    /// Tokens of both ways, of the requests that were taken within the time before.
    TokensWithin(Duration),
    /// Requests under way at a time.
    UnderWay,
}

const S: Duration = Duration::from_secs(1);

/// Kinds of limits that are tried, the likeliest first: a later one has to explain clearly more.
const TRIED: [Counts; 14] = [
    Counts::RequestsWithin(Duration::from_secs(60)),
    Counts::RequestsSince(Duration::from_secs(60)),
    Counts::UnderWay,
    Counts::TokensWithin(Duration::from_secs(60)),
    Counts::RequestsWithin(S),
    Counts::RequestsSince(S),
    Counts::RequestsWithin(Duration::from_secs(2)),
    Counts::RequestsWithin(Duration::from_secs(5)),
    Counts::RequestsWithin(Duration::from_secs(10)),
    Counts::RequestsSince(Duration::from_secs(10)),
    Counts::RequestsWithin(Duration::from_secs(20)),
    Counts::RequestsWithin(Duration::from_secs(600)),
    Counts::RequestsWithin(Duration::from_secs(3_600)),
    Counts::RequestsSince(Duration::from_secs(86_400)),
];

/// A limit as it was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Unit and window of the limit.
    pub counts: Counts,
    /// The least that it may allow: so much was taken.
    pub least: u64,
    /// The most that it may allow: at so much it said no.
    pub most: u64,
    /// The share of requests that it took although there were more already, 0..1.
    pub lets_through: f64,
    /// Recorded 429s that were sent above this limit.
    pub explains: usize,
    /// All recorded 429s of the backend, explained or not.
    pub refusals: usize,
    /// Retry-After that its 429s carry.
    pub says: Says,
}

/// Retry-After of a limit's 429s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// As recorded near that time, or none.
    AsSeen,
    /// The time until the limit has room.
    UntilRoom {
        /// In whole seconds, rounded up.
        whole_seconds: bool,
    },
}

/// Fewer 429s prove no limit.
const MIN_REFUSALS: usize = 3;

/// A 429 at this share of the limit is the limit's too: what is sent at the same time does not arrive in the order in which it
/// was sent, and others may use the same key.
const NEAR: f64 = 0.9;

/// A limit that was found.
pub(crate) struct Found {
    pub limit: Limit,
    /// For each attempt, whether it is a 429 that the limit explains.
    pub explained: Vec<bool>,
    /// Attempts that it would have taken or refused otherwise.
    pub wrong: usize,
}

/// The limit that explains these attempts' 429s best; none where no limit explains most.
pub(crate) fn learn(tries: &[Try]) -> Option<Found> {
    let refusals = tries.iter().filter(|t| t.kind == Kind::RateLimited).count();
    if refusals < MIN_REFUSALS {
        return None;
    }
    let mut best: Option<(usize, Limit, Vec<u64>)> = None;
    for counts in TRIED {
        let levels = levels(tries, counts);
        let (wrong, limit) = threshold(tries, &levels, counts, refusals);
        if best.as_ref().is_none_or(|(least, _, _)| is_clearly_less(wrong, *least)) {
            best = Some((wrong, limit, levels));
        }
    }
    let (wrong, limit, levels) = best?;
    let is_clear = limit.explains * 2 >= refusals && wrong * 2 <= refusals + limit.explains;
    let is_near = |level: u64| level as f64 >= limit.least as f64 * NEAR;
    let explained = |(tried, level): (&Try, &u64)| tried.kind == Kind::RateLimited && is_near(*level);
    let explained: Vec<bool> = tries.iter().zip(&levels).map(explained).collect();
    let explains = explained.iter().filter(|is_so| **is_so).count();
    is_clear.then(|| {
        let limit = Limit { says: says(tries, &explained, &limit), explains, ..limit };
        Found { limit, explained, wrong }
    })
}

/// By more than chance might bring about?
pub(crate) fn is_clearly_less(wrong: usize, than: usize) -> bool {
    wrong * 10 + 20 < than * 9
}

/// Finds out whether most of the 429s give the time until the limit has room.
fn says(tries: &[Try], explained: &[bool], limit: &Limit) -> Says {
    let mut gauge = Gauge::new(limit.counts);
    let (mut told, mut right, mut whole_seconds) = (0, 0, true);
    for (tried, is_explained) in tries.iter().zip(explained) {
        gauge.level(tried.sent);
        if is_taken(tried.kind) {
            gauge.take(tried.sent, tried.sent + tried.took, tried.tokens());
        }
        let (true, Some(ms)) = (is_explained, tried.retry_after_ms) else { continue };
        let asked = Duration::from_millis(ms.into());
        whole_seconds &= ms % 1_000 == 0;
        told += 1;
        // Whole seconds are rounded; anything finer is meant as it is said.
        let room = gauge.room_in(tried.sent, limit.least);
        let grain = |room: Duration| if ms % 1_000 == 0 { S } else { (room / 20).max(Duration::from_millis(20)) };
        right += usize::from(room.is_some_and(|room| asked.abs_diff(room) <= grain(room)));
    }
    let is_so = told >= MIN_REFUSALS && right * 4 >= told * 3 && told * 10 >= limit.explains * 9;
    if is_so { Says::UntilRoom { whole_seconds } } else { Says::AsSeen }
}

/// Computes the level that each attempt met.
fn levels(tries: &[Try], counts: Counts) -> Vec<u64> {
    let mut gauge = Gauge::new(counts);
    let one = |tried: &Try| {
        let level = gauge.level(tried.sent);
        if is_taken(tried.kind) {
            gauge.take(tried.sent, tried.sent + tried.took, tried.tokens());
        }
        level
    };
    tries.iter().map(one).collect()
}

/// Returns true if an attempt with this outcome counts against the limit.
fn is_taken(kind: Kind) -> bool {
    !matches!(kind, Kind::RateLimited | Kind::ConnectFailed)
}

/// Finds the limit that misclassifies the fewest attempts, and their number.
fn threshold(tries: &[Try], levels: &[u64], counts: Counts, refusals: usize) -> (usize, Limit) {
    let mut sorted: Vec<(u64, bool)> =
        levels.iter().zip(tries).map(|(level, tried)| (*level, tried.kind == Kind::RateLimited)).collect();
    sorted.sort_unstable();
    // With the line below all: every attempt that was taken is on the wrong side.
    let mut wrong = sorted.len() - refusals;
    let (mut fewest, mut least, mut most) = (usize::MAX, 0, 0);
    let (mut taken_below, mut refused_below, mut at_best) = (0, 0, (0, 0));
    let mut previous: Option<u64> = None;
    let mut i = 0;
    while i < sorted.len() {
        let level = sorted[i].0;
        if wrong < fewest {
            (fewest, least, most, at_best) =
                (wrong, previous.map_or(0, |p| p + 1), level, (taken_below, refused_below));
        }
        while let Some((_, refused)) = sorted.get(i).filter(|(l, _)| *l == level) {
            if *refused {
                wrong += 1
            } else {
                wrong -= 1
            }
            refused_below += usize::from(*refused);
            taken_below += usize::from(!*refused);
            i += 1;
        }
        previous = Some(level);
    }
    let explains = refusals - at_best.1;
    let taken_above = sorted.len() - refusals - at_best.0;
    let lets_through = taken_above as f64 / (taken_above + explains).max(1) as f64;
    (fewest, Limit { counts, least, most, lets_through, explains, refusals, says: Says::AsSeen })
}

/// Counts what a limit counts, as time goes on.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    counts: Counts,
    taken: VecDeque<(Timestamp, u64)>,
    sum: u64,
    since: u128,
    under_way: BinaryHeap<Reverse<Timestamp>>,
}

impl Gauge {
    /// A count that begins at 0.
    pub(crate) fn new(counts: Counts) -> Self {
        Self { counts, taken: VecDeque::new(), sum: 0, since: 0, under_way: BinaryHeap::new() }
    }

    /// Returns what counts against the limit at `now`: requests or tokens.
    pub(crate) fn level(&mut self, now: Timestamp) -> u64 {
        match self.counts {
            Counts::RequestsWithin(span) | Counts::TokensWithin(span) => {
                while let Some((_, units)) = self.taken.front().copied().filter(|(at, _)| now.since(*at) >= span) {
                    self.sum -= units;
                    self.taken.pop_front();
                }
                self.sum
            }
            Counts::RequestsSince(span) => {
                let since = u128::from(now.as_micros()) / span.as_micros().max(1);
                if since != self.since {
                    (self.since, self.sum) = (since, 0);
                }
                self.sum
            }
            Counts::UnderWay => {
                while self.under_way.peek().is_some_and(|Reverse(end)| *end <= now) {
                    self.under_way.pop();
                }
                self.under_way.len() as u64
            }
        }
    }

    /// A request of so many tokens is taken that will be under way until then; [`Gauge::level`] was asked just before.
    pub(crate) fn take(&mut self, now: Timestamp, until: Timestamp, tokens: u64) {
        match self.counts {
            Counts::RequestsWithin(_) => self.add(now, 1),
            Counts::TokensWithin(_) => self.add(now, tokens),
            Counts::RequestsSince(_) => self.sum += 1,
            Counts::UnderWay => self.under_way.push(Reverse(until)),
        }
    }

    fn add(&mut self, now: Timestamp, units: u64) {
        self.taken.push_back((now, units));
        self.sum += units;
    }

    /// Returns the time until the level is below `limit`; `None` when unknown.
    pub(crate) fn room_in(&self, now: Timestamp, limit: u64) -> Option<Duration> {
        match self.counts {
            Counts::RequestsWithin(span) | Counts::TokensWithin(span) => {
                let mut left = self.sum;
                let last = self.taken.iter().find(|(_, units)| {
                    left -= units;
                    left < limit
                });
                last.map(|(at, _)| (*at + span).since(now))
            }
            Counts::RequestsSince(span) => {
                let span = u64::try_from(span.as_micros()).ok()?.max(1);
                Some(Duration::from_micros(span - now.as_micros() % span))
            }
            Counts::UnderWay => self.under_way.peek().map(|Reverse(end)| end.since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::model::tests::{T0, tried};
    use crate::dice::Dice;

    /// Attempts at random times that a limit takes or refuses; `storm` are refused whatever it is.
    fn tries(counts: Counts, limit: u64, mean_gap: Duration, storm: std::ops::Range<usize>) -> Vec<Try> {
        let (mut gauge, mut dice, mut now) = (Gauge::new(counts), Dice::new(7, 1), T0);
        let one = |n: usize| {
            now = now + dice.gap(mean_gap);
            let is_refused = gauge.level(now) >= limit || storm.contains(&n);
            let took = Duration::from_millis(dice.between(200, 4_000));
            let kind = if is_refused { Kind::RateLimited } else { Kind::Answered };
            let tried = Try { took, prompt: 100, output: dice.between(10, 900) as u32, ..tried(now, kind) };
            if !is_refused {
                gauge.take(now, now + took, tried.tokens());
            }
            tried
        };
        (0..3_000).map(one).collect()
    }

    #[test]
    fn every_kind_of_limit_is_found_again() {
        let minute = Duration::from_secs(60);
        for (counts, limit, gap_ms) in [
            (Counts::RequestsWithin(minute), 40, 1_200),
            (Counts::RequestsSince(minute), 40, 1_200),
            (Counts::TokensWithin(minute), 30_000, 900),
            (Counts::UnderWay, 4, 500),
            (Counts::RequestsWithin(S), 5, 150),
            (Counts::RequestsWithin(Duration::from_secs(3_600)), 1_500, 2_000),
        ] {
            let tries = tries(counts, limit, Duration::from_millis(gap_ms), 0..0);
            let Found { limit: found, explained, .. } =
                learn(&tries).unwrap_or_else(|| panic!("{counts:?} was not found"));
            assert_eq!(found.counts, counts);
            assert!((found.least..=found.most).contains(&limit), "{limit} is not within {found:?}");
            assert_eq!(found.explains, found.refusals);
            assert_eq!(explained.iter().filter(|e| **e).count(), found.refusals);
        }
    }

    #[test]
    fn a_provider_that_says_when_there_is_room_is_believed_in_its_manner() {
        let counts = Counts::RequestsWithin(Duration::from_secs(60));
        let mut all = tries(counts, 40, Duration::from_millis(1_200), 0..0);
        assert_eq!(learn(&all).unwrap().limit.says, Says::AsSeen, "it says nothing");
        let mut gauge = Gauge::new(counts);
        for tried in &mut all {
            gauge.level(tried.sent);
            match tried.kind {
                Kind::RateLimited => {
                    let room = gauge.room_in(tried.sent, 40).unwrap();
                    tried.retry_after_ms = Some((room.as_secs() as u32 + 1) * 1_000);
                }
                _ => gauge.take(tried.sent, tried.sent, 0),
            }
        }
        assert_eq!(learn(&all).unwrap().limit.says, Says::UntilRoom { whole_seconds: true });
        all.iter_mut().for_each(|t| t.retry_after_ms = t.retry_after_ms.map(|_| 5_000));
        assert_eq!(learn(&all).unwrap().limit.says, Says::AsSeen);
    }

    #[test]
    fn a_storm_of_refusals_is_not_taken_for_the_limit() {
        let counts = Counts::RequestsWithin(Duration::from_secs(60));
        let tries = tries(counts, 40, Duration::from_millis(1_400), 300..330);
        let Found { limit: found, explained, .. } = learn(&tries).expect("the limit is seen");
        assert!((found.least..=found.most).contains(&40), "{found:?}");
        assert!(found.explains < found.refusals && explained[300..330].iter().filter(|e| **e).count() < 8, "{found:?}");
    }

    #[test]
    fn refusals_at_random_are_no_limit() {
        let mut dice = Dice::new(3, 3);
        let mut all = tries(Counts::UnderWay, u64::MAX, Duration::from_millis(700), 0..0);
        all.iter_mut().for_each(|t| t.kind = if dice.one_in(20) { Kind::RateLimited } else { t.kind });
        assert!(learn(&all).is_none());
        assert!(learn(&all[..2]).is_none(), "and two of them prove nothing");
    }

    #[test]
    fn it_knows_when_there_is_room_again() {
        let mut gauge = Gauge::new(Counts::RequestsWithin(Duration::from_secs(60)));
        for second in [0, 10, 20] {
            let at = T0 + S * second;
            gauge.level(at);
            gauge.take(at, at, 0);
        }
        let now = T0 + S * 30;
        assert_eq!((gauge.level(now), gauge.room_in(now, 3), gauge.room_in(now, 2)), (3, Some(S * 30), Some(S * 40)));
    }
}
