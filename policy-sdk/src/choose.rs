//! Ways to narrow candidates down and to choose one of them.

use crate::dice::{Dice, mix};
use crate::query::{Query, Request};
use crate::roster::Candidate;
use crate::table::{Lane, Tier};
use crate::{Decision, Hold};

/// Limits on the waiting of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The longest single wait, in ms.
    pub longest_ms: u32,
    /// Waits in the whole exchange.
    pub waits: u32,
}

/// Operations on the candidates of a query ([`crate::Roster::candidates`]). Nothing here allocates.
///
/// The first methods narrow down, those that return one candidate choose. What is equal is drawn by the weights of the
/// configuration, so that a crowd spreads.
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
///     let cheapest = ready.of(Tier::Fallback).cheapest(request);
///     assert_eq!(cheapest.two_choices(request, &mut dice).unwrap().id(), "cheap");
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
        self.least_by(|c| query.tries(c.index()))
    }

    /// The cheapest for this request by [`Candidate::price_microusd`]; those without a price only when none has one.
    fn cheapest(self, request: &'a Request) -> impl Iterator<Item = Candidate<'a>> + Clone {
        self.least_by(|c| c.price_microusd(request).unwrap_or(u64::MAX))
    }

    /// Those with the smallest key.
    fn least_by<K: Ord + Clone>(
        self,
        key: impl Fn(&Candidate<'a>) -> K + Clone,
    ) -> impl Iterator<Item = Candidate<'a>> + Clone {
        let least = self.clone().map(|c| key(&c)).min();
        self.filter(move |c| least.as_ref() == Some(&key(c)))
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

    /// The one whose limits are least used up.
    fn least_loaded(self, dice: &mut Dice) -> Option<Candidate<'a>> {
        self.least_by(Candidate::load_permille).weighted(dice)
    }

    /// One of two drawn by weight: the first, unless the second is better by a quarter, by errors, load and time to answer
    /// ([`crate::Load::cost`]). Nearly as even as looking for the best of all, and without everybody finding the same
    /// one ("the power of two choices", Mitzenmacher 2001).
    fn two_choices(self, request: &Request, dice: &mut Dice) -> Option<Candidate<'a>> {
        let first = self.clone().weighted(dice)?;
        let second = self.filter(|c| c.index() != first.index()).weighted(dice);
        let is_better = |c: &Candidate| c.cost(request).saturating_mul(5) < first.cost(request).saturating_mul(4);
        second.filter(is_better).or(Some(first))
    }

    /// The fastest by [`Candidate::answer_ms`]; those of which nothing is known come last.
    fn fastest(self, request: &Request, dice: &mut Dice) -> Option<Candidate<'a>> {
        self.least_by(|c| c.answer_ms(request).unwrap_or(u32::MAX)).weighted(dice)
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

    /// Waits, in the lane of the one to be ready first, when that is expected, those before in the queue included, within
    /// the waits left and the exchange's remaining time. Ready ones are taken to be turned down. Each wait is as long as
    /// patience allows: the host ends it when there is capacity.
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
    /// assert_eq!(wait(1_000, 2), Some(Decision::wait_for_primary(1_000)), "two waits are as long as it takes");
    /// assert_eq!(wait(1_000, 1), None);
    /// assert_eq!(wait(5_000, 0), None);
    /// ```
    fn wait(self, query: &Query, patience: Patience) -> Option<Decision> {
        let waits_left = patience.waits.saturating_sub(query.waits);
        let most_ms = u64::from(patience.longest_ms) * u64::from(waits_left);
        // Of one that is being probed nobody knows: it may be ready any moment.
        let ready_ms = |c: &Candidate| c.ready_ms().unwrap_or(0);
        let turned_down = |c: &Candidate| c.row().is_ready() || c.is_hopeless();
        let hoped_for = self.filter(move |c| !turned_down(c));
        let first = hoped_for.clone().min_by_key(ready_ms)?;
        let expected_ms = u64::from(ready_ms(&first)) + queue_ms(hoped_for.of(first.tier()));
        let most_ms = most_ms.min(query.request.remaining_ms.into());
        (expected_ms <= most_ms).then(|| hold(query, first.lane(), patience)).flatten()
    }

    /// The last resort: the emergency lane, to the one least tried and soonest to recover among those whose emergency
    /// rate allows it, at most three times in an exchange; a wait for that rate when it allows one within one wait. These
    /// waits are three more than patience has.
    fn emergency(self, query: &Query, patience: Patience) -> Option<Decision> {
        const TIMES: u32 = 3;
        if query.attempts_in(Lane::Emergency) >= TIMES {
            return None;
        }
        let hoped_for = self.filter(|c| !c.is_hopeless());
        let open = hoped_for.clone().filter(|c| c.row().emergency_ms() == 0);
        let first = open.least_by(|c| (query.tries(c.index()), c.row().ready_ms())).weighted(&mut query.dice());
        if let Some(first) = first {
            return Some(Decision::emergency(first.index()));
        }
        let soonest_ms = hoped_for.map(|c| c.row().emergency_ms()).min()?;
        let is_worth_it = soonest_ms <= patience.longest_ms && query.waits < patience.waits.saturating_add(TIMES);
        is_worth_it.then(|| hold(query, Lane::Emergency, patience)).flatten()
    }
}

/// As long as may be; none where the exchange has no time left.
fn hold(query: &Query, lane: Lane, patience: Patience) -> Option<Decision> {
    let max_ms = patience.longest_ms.min(query.request.remaining_ms);
    (max_ms > 0).then_some(Decision::Wait(Hold { max_ms, lane }))
}

/// The time that those who wait already take at the pace of all these together.
fn queue_ms<'a>(candidates: impl Choose<'a>) -> u64 {
    let queued = candidates.clone().map(|c| c.row().queued()).max().unwrap_or(0);
    let rpm: Option<u64> = candidates.map(|c| c.backend().rpm.map(u64::from)).sum();
    rpm.map_or(0, |rpm| u64::from(queued) * 60_000 / rpm.max(1))
}

impl<'a, I: Iterator<Item = Candidate<'a>> + Clone> Choose<'a> for I {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, Given, case, fallback, primary};
    use crate::{NONE, Outcome, Roster};

    /// Counts how often each backend is chosen over a thousand seeds.
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
    fn two_choices_never_take_the_worst_and_share_the_rest_by_weight() {
        let chosen = |case: &Case| {
            shares(case, |roster, query, dice| roster.candidates(query).two_choices(&query.request, dice))
        };
        near(&chosen(&case([primary("worst").with("failures", 3), primary("a"), primary("b")])), &[0, 500, 500]);
        near(&chosen(&case([primary("a").weight(3), primary("b")])), &[750, 250]);
        // One that nobody has asked yet is not worse for it.
        near(&chosen(&case([primary("known").with("first_token_ms", 300), primary("new")])), &[500, 500]);
        near(&chosen(&case([primary("only")])), &[1_000]);
        near(&chosen(&case([])), &[]);
        // The first of four is one of the two drawn as often as any, and wins whenever it is.
        let best_first = case([primary("best").with("latency_ms", 10), primary("b"), primary("c"), primary("d")]);
        near(&chosen(&best_first)[..1], &[500]);
    }

    #[test]
    fn unknown_prices_and_times_come_last() {
        let two = case([fallback("unknown"), fallback("known").price(90.0, 90.0).with("latency_ms", 60_000)]);
        let cheapest =
            shares(&two, |roster, query, dice| roster.candidates(query).cheapest(&query.request).weighted(dice));
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

    const NO_PATIENCE: Patience = Patience { longest_ms: 0, waits: 0 };

    #[test]
    fn those_before_in_the_queue_count() {
        let patience = Patience { longest_ms: 5_000, waits: 2 };
        let waits = |backends: Vec<Given>| {
            let case = case(backends);
            let roster = Roster::new(&case.table());
            case.query(|query| roster.candidates(query).wait(query, patience).is_some())
        };
        let busy = |queued| primary("a").rpm(60).throttled(1_000).with("queued", queued);
        assert!(waits(vec![busy(9)]), "one a second: ten seconds");
        assert!(!waits(vec![busy(10)]));
        assert!(waits(vec![busy(10), busy(10)]), "two serve the queue");
        assert!(waits(vec![busy(10), primary("b").throttled(2_000)]), "who has no limit serves any queue");
        let probing = primary("a").with("state", 3).with("ready_ms", NONE);
        assert!(waits(vec![probing]));
        assert!(!waits(vec![primary("a"), primary("b").cooling(Outcome::Unauthorised, 10)]), "nothing to hope for");
    }

    #[test]
    fn the_emergency_rate_is_waited_for_three_times_more() {
        let patience = Patience { longest_ms: 5_000, waits: 2 };
        let after = |waits, emergency_ms| {
            let lost = primary("a").cooling(Outcome::RateLimited, 90_000).with("emergency_ms", emergency_ms);
            let case = case([lost]).after_waits(waits);
            let roster = Roster::new(&case.table());
            case.query(|query| roster.candidates(query).emergency(query, patience))
        };
        let waiting = Some(Decision::Wait(Hold { max_ms: 5_000, lane: Lane::Emergency }));
        assert_eq!((after(0, 5_000), after(4, 900)), (waiting.clone(), waiting));
        assert_eq!((after(5, 900), after(0, 5_001), after(0, NONE)), (None, None, None));
    }

    #[test]
    fn emergency_goes_to_the_least_tried_and_soonest_three_times() {
        let cooling = |name, ms| primary(name).cooling(Outcome::RateLimited, ms).with("emergency_ms", 0);
        let keyless = primary("keyless").cooling(Outcome::Unauthorised, 1).with("emergency_ms", 0);
        let mut three = case([cooling("late", 90_000), cooling("soon", 40_000), keyless]);
        let roster = Roster::new(&three.table());
        let mut order = Vec::new();
        while let Some(Decision::Emergency(sent)) =
            three.query(|query| roster.candidates(query).emergency(query, NO_PATIENCE))
        {
            let index = sent.backend.unwrap() as usize;
            order.push(three.backends[index].backend.id.clone());
            three = three.after_in(crate::Lane::Emergency, index, Outcome::RateLimited);
        }
        assert_eq!(order, ["soon", "late", "soon"]);
    }
}
