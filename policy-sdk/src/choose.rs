//! Ways to narrow candidates down and to choose one of them.

use crate::pick::mix;
use crate::query::{Query, Request};
use crate::roster::Candidate;
use crate::table::{Lane, Tier};
use crate::{Decision, Dice, Hold};

/// How long one exchange may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest single wait, in ms.
    pub longest_ms: u32,
    /// Waits in the whole exchange.
    pub waits: u32,
}

/// What can be done with the candidates of a query ([`crate::Roster::candidates`]). Nothing here allocates.
///
/// The first methods narrow down, the others choose. What is equal is drawn by the dice, so that a crowd spreads.
///
/// ```
/// use pointsman_sdk::testing::{case, fallback, primary};
/// use pointsman_sdk::{Choose, Outcome, Roster, Tier};
///
/// let slow = primary("slow").with("latency_ms", 900);
/// let quick = primary("quick").with("latency_ms", 300);
/// let resting = primary("resting").cooling(Outcome::RateLimited, 2_000);
/// let case = case([slow, quick, resting, fallback("dear").price(3.0, 9.0), fallback("cheap").price(0.1, 0.2)]);
/// let roster = Roster::new(&case.table());
/// case.query(|query| {
///     let (request, mut dice) = (&query.request, query.dice());
///     let ready = roster.candidates(query).ready();
///     let primaries = ready.clone().of(Tier::Primary);
///     assert_eq!(primaries.clone().count(), 2);
///     assert_eq!(primaries.clone().fastest(request, &mut dice).unwrap().id(), "quick");
///     assert_eq!(ready.of(Tier::Fallback).cheapest(request, &mut dice).unwrap().id(), "cheap");
///     assert!(primaries.clone().weighted(&mut dice).is_some());
///     assert!(primaries.two_choices(request, &mut dice).is_some());
/// });
/// ```
pub trait Choose<'a>: Iterator<Item = Candidate<'a>> + Clone {
    /// Those of this tier.
    fn of(self, tier: Tier) -> impl Iterator<Item = Candidate<'a>> + Clone {
        self.filter(move |c| c.tier() == tier)
    }

    /// Those that would be sent to at once.
    fn ready(self) -> impl Iterator<Item = Candidate<'a>> + Clone {
        self.filter(|c| c.row().is_ready())
    }

    /// Those that this exchange has tried least often: after a failure others go first, and come round again when all
    /// were tried.
    ///
    /// ```
    /// use pointsman_sdk::testing::{case, primary};
    /// use pointsman_sdk::{Choose, Outcome, Roster};
    ///
    /// let once = case([primary("a"), primary("b")]).after(0, Outcome::ServerError);
    /// let roster = Roster::new(&once.table());
    /// let left = |query: &pointsman_sdk::Query| roster.candidates(query).least_tried(query).count();
    /// assert_eq!(once.query(left), 1);
    /// assert_eq!(once.after(1, Outcome::ServerError).query(left), 2);
    /// ```
    fn least_tried(self, query: &'a Query<'a>) -> impl Iterator<Item = Candidate<'a>> + Clone {
        let least =
            if query.attempts.is_empty() { Some(0) } else { self.clone().map(|c| query.tries(c.index())).min() };
        self.filter(move |c| query.attempts.is_empty() || Some(query.tries(c.index())) == least)
    }

    /// Those whose lane has had at most this many attempts after its first in this exchange.
    fn with_retries_left(self, query: &Query, max_retries: u32) -> impl Iterator<Item = Candidate<'a>> + Clone {
        let left = |lane| query.attempts_in(lane) <= max_retries;
        let (primary, fallback) = (left(Lane::Primary), left(Lane::Fallback));
        self.filter(move |c| match c.tier() {
            Tier::Primary => primary,
            Tier::Fallback => fallback,
        })
    }

    /// The one with the smallest key.
    fn smallest<K: Ord>(self, dice: &mut Dice, key: impl Fn(&Candidate<'a>) -> K) -> Option<Candidate<'a>> {
        let mut best: Option<(K, Candidate<'a>)> = None;
        let mut equals = 0;
        for candidate in self {
            let here = key(&candidate);
            let order = best.as_ref().map_or(std::cmp::Ordering::Less, |(least, _)| here.cmp(least));
            equals = match order {
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => equals + 1,
                std::cmp::Ordering::Greater => continue,
            };
            // The n-th of equals takes the place of those before it once in n.
            if dice.below(equals) == 0 {
                best = Some((here, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }

    /// The one whose limits are least used up.
    fn least_loaded(self, dice: &mut Dice) -> Option<Candidate<'a>> {
        self.smallest(dice, Candidate::load_permille)
    }

    /// The better of two drawn at random, by errors, load and time to answer ([`crate::Load::cost`]): nearly as even as
    /// looking for the best of all, and without everybody finding the same one ("the power of two choices",
    /// Mitzenmacher 2001).
    fn two_choices(self, request: &Request, dice: &mut Dice) -> Option<Candidate<'a>> {
        let mut drawn: [Option<Candidate<'a>>; 2] = [None, None];
        for (before, candidate) in (0..).zip(self) {
            // One that comes later stays in a sample of two by a chance of 2 in those seen so far.
            let place = if before < 2 { before } else { dice.below(before + 1) };
            if let Some(place) = drawn.get_mut(place as usize) {
                *place = Some(candidate);
            }
        }
        drawn.into_iter().flatten().smallest(dice, |c| c.cost(request))
    }

    /// The cheapest for this request by [`Candidate::price_microusd`]; those without a price come last.
    fn cheapest(self, request: &Request, dice: &mut Dice) -> Option<Candidate<'a>> {
        self.smallest(dice, |c| c.price_microusd(request).unwrap_or(u64::MAX))
    }

    /// The fastest by [`Candidate::answer_ms`]; those of which nothing is known come last.
    fn fastest(self, request: &Request, dice: &mut Dice) -> Option<Candidate<'a>> {
        self.smallest(dice, |c| c.answer_ms(request).unwrap_or(u32::MAX))
    }

    /// One by the weights of the configuration.
    fn weighted(self, dice: &mut Dice) -> Option<Candidate<'a>> {
        let mut sum = 0u32;
        self.fold(None, |drawn, candidate| {
            sum = sum.saturating_add(candidate.weight());
            if dice.below(sum) < candidate.weight() { Some(candidate) } else { drawn }
        })
    }

    /// The one where this session belongs, by the weights of the configuration: always the same while the candidates
    /// are the same, and when one goes only its own sessions move (weighted rendezvous hashing, Thaler and
    /// Ravishankar 1996).
    ///
    /// ```
    /// use pointsman_sdk::testing::{case, primary};
    /// use pointsman_sdk::{Choose, Roster};
    ///
    /// let home = |names: &[&str], session| {
    ///     let case = case(names.iter().map(|name| primary(name)));
    ///     let roster = Roster::new(&case.table());
    ///     case.query(|query| roster.candidates(query).by_session(session).unwrap().id().to_owned())
    /// };
    /// let moved = (1..=1_000).filter(|&s| home(&["a", "b", "c", "d"], s) != home(&["d", "c", "a"], s));
    /// assert!(moved.clone().all(|s| home(&["a", "b", "c", "d"], s) == "b"));
    /// assert!(moved.count().abs_diff(250) < 50);
    /// ```
    fn by_session(self, session: u64) -> Option<Candidate<'a>> {
        let score = |c: &Candidate| {
            // In (0, 1]: the logarithm is finite and not positive.
            let chance = ((mix(session ^ mix(c.key())) >> 11) + 1) as f64 / (1u64 << 53) as f64;
            -chance.ln() / f64::from(c.weight())
        };
        self.map(|c| (score(&c), c)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, c)| c)
    }

    /// Waits, in the lane of the one to be ready first, until it is: when that is within one wait and the exchange's
    /// remaining time, and waits are left. Ready ones are taken to be turned down. The wait may be as long as patience
    /// allows, not just as long as is expected: the host ends it when there is capacity.
    ///
    /// ```
    /// use pointsman_sdk::testing::{case, primary};
    /// use pointsman_sdk::{Choose, Decision, Outcome, Patience, Roster};
    ///
    /// let case = case([primary("a").cooling(Outcome::RateLimited, 2_000)]);
    /// let roster = Roster::new(&case.table());
    /// let wait = |longest_ms, waits| {
    ///     case.query(|query| roster.candidates(query).wait(query, Patience { longest_ms, waits }))
    /// };
    /// assert_eq!(wait(5_000, 1), Some(Decision::wait_for_primary(5_000)));
    /// assert_eq!(wait(1_000, 1), None);
    /// assert_eq!(wait(5_000, 0), None);
    /// ```
    fn wait(self, query: &Query, patience: Patience) -> Option<Decision> {
        let longest_ms = patience.longest_ms.min(query.request.remaining_ms);
        if query.waits >= patience.waits || longest_ms == 0 {
            return None;
        }
        // Of one that is being probed nobody knows: it may be ready any moment.
        let expected_ms = |c: &Candidate| c.ready_ms().unwrap_or(longest_ms);
        let turned_down = |c: &Candidate| c.row().is_ready() || c.is_hopeless();
        let first = self.filter(|c| !turned_down(c)).min_by_key(expected_ms)?;
        (expected_ms(&first) <= longest_ms).then(|| Decision::Wait(Hold { max_ms: longest_ms, lane: first.lane() }))
    }

    /// The last resort: the emergency lane, to the one least tried and soonest to recover among those whose emergency
    /// rate allows it; at most three times in an exchange.
    fn emergency(self, query: &Query) -> Option<Decision> {
        const TIMES: u32 = 3;
        if query.attempts_in(Lane::Emergency) >= TIMES {
            return None;
        }
        let open = self.filter(|c| c.row().emergency_ms() == 0 && !c.is_hopeless());
        let first = open.smallest(&mut query.dice(), |c| (query.tries(c.index()), c.row().ready_ms()))?;
        Some(Decision::emergency(first.index()))
    }
}

impl<'a, I: Iterator<Item = Candidate<'a>> + Clone> Choose<'a> for I {}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, case, fallback, primary};
    use crate::{Candidate, Choose, Decision, Dice, Outcome, Query, Roster};

    /// How often each backend is chosen over a thousand seeds.
    fn shares(
        case: &Case,
        choose: impl for<'a> Fn(&'a Roster, &'a Query<'a>, &mut Dice) -> Option<Candidate<'a>>,
    ) -> Vec<u32> {
        let roster = Roster::new(&case.table());
        let mut shares = vec![0; case.backends.len()];
        for seed in 0..1_000 {
            let chosen = case.query(|query| choose(&roster, query, &mut Dice::new(seed)).map(|c| c.index()));
            chosen.into_iter().for_each(|index| shares[index] += 1);
        }
        shares
    }

    fn near(shares: &[u32], expected: &[u32]) {
        assert!(shares.iter().zip(expected).all(|(s, e)| s.abs_diff(*e) < 60), "{shares:?}, not {expected:?}");
    }

    #[test]
    fn equals_are_drawn_evenly() {
        let four = case([primary("a"), primary("b"), primary("full").with("in_flight", 99), primary("d")]);
        near(&shares(&four, |roster, query, dice| roster.candidates(query).least_loaded(dice)), &[333, 333, 0, 333]);
    }

    #[test]
    fn weights_are_shares() {
        let three = case([primary("a"), primary("b").weight(3), primary("c")]);
        near(&shares(&three, |roster, query, dice| roster.candidates(query).weighted(dice)), &[200, 600, 200]);
        let by_session = |roster: &Roster, session| {
            three.query(|query| roster.candidates(query).by_session(session).map(|c| c.index()))
        };
        let roster = Roster::new(&three.table());
        let at_b = (0..1_000).filter(|&session| by_session(&roster, session) == Some(1)).count();
        assert!(at_b.abs_diff(600) < 60, "{at_b}");
    }

    #[test]
    fn two_choices_never_take_the_worst_and_take_the_others_about_evenly() {
        let three = case([primary("worst").with("failures", 3), primary("a"), primary("b")]);
        let chosen = |case: &Case| {
            shares(case, |roster, query, dice| roster.candidates(query).two_choices(&query.request, dice))
        };
        let drawn = chosen(&three);
        assert_eq!(drawn[0], 0);
        assert!(drawn[1] > 350 && drawn[2] > 350, "{drawn:?}");
        near(&chosen(&case([primary("only")])), &[1_000]);
        near(&chosen(&case([])), &[]);
        // The first of four is one of the two drawn as often as any, and wins whenever it is.
        let best_first = case([primary("best").with("latency_ms", 10), primary("b"), primary("c"), primary("d")]);
        near(&chosen(&best_first)[..1], &[500]);
    }

    #[test]
    fn unknown_prices_and_times_come_last() {
        let two = case([fallback("unknown"), fallback("known").price(90.0, 90.0).with("latency_ms", 60_000)]);
        let cheapest = shares(&two, |roster, query, dice| roster.candidates(query).cheapest(&query.request, dice));
        let fastest = shares(&two, |roster, query, dice| roster.candidates(query).fastest(&query.request, dice));
        assert_eq!((cheapest, fastest), (vec![0, 1_000], vec![0, 1_000]));
    }

    #[test]
    fn what_said_its_last_word_is_no_candidate_any_more() {
        let both = case([primary("a"), primary("b")]);
        let roster = Roster::new(&both.table());
        let left = |case: &Case| case.query(|query| roster.candidates(query).count());
        assert_eq!(left(&both.clone().after(0, Outcome::ServerError)), 2);
        for last_word in [Outcome::TooLong, Outcome::ModelMissing, Outcome::Refused] {
            assert_eq!(left(&both.clone().after(0, last_word)), 1, "{last_word:?}");
        }
    }

    #[test]
    fn emergency_goes_to_the_least_tried_and_soonest_three_times() {
        let cooling = |name, ms| primary(name).cooling(Outcome::RateLimited, ms).with("emergency_ms", 0);
        let keyless = primary("keyless").cooling(Outcome::Unauthorised, 1).with("emergency_ms", 0);
        let mut three = case([cooling("late", 90_000), cooling("soon", 40_000), keyless]);
        let roster = Roster::new(&three.table());
        let mut order = Vec::new();
        while let Some(Decision::Emergency(sent)) = three.query(|query| roster.candidates(query).emergency(query)) {
            let index = sent.backend.unwrap() as usize;
            order.push(three.backends[index].backend.id.clone());
            three = three.after_in(crate::Lane::Emergency, index, Outcome::RateLimited);
        }
        assert_eq!(order, ["soon", "late", "soon"]);
    }
}
