//! The rules of the default policy, one scenario each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pointsman_policy_default::Default as DefaultPolicy;
use pointsman_sdk::host::{self, Host};
use pointsman_sdk::{
    Attempt, Backend, Decision, Hold, Lane, NONE, Operation, Outcome, Policy, Query, Request, Route, State, Table,
    TableParts, Tier,
};
use proptest::prelude::*;

const COLUMNS: [&str; 14] = [
    "state",
    "cooldown_ms",
    "cooldown_reason",
    "ready_ms",
    "requests_left",
    "tokens_left",
    "in_flight",
    "concurrency_left",
    "latency_ms",
    "first_token_ms",
    "error_permille",
    "failures",
    "emergency_ms",
    "queued",
];

/// One backend and its live numbers.
#[derive(Clone, Debug)]
struct Given {
    backend: Backend,
    numbers: BTreeMap<&'static str, u32>,
}

fn given(tier: Tier) -> Given {
    let backend = Backend {
        id: String::new(),
        tier,
        dialect: "openai".to_owned(),
        weight: 1,
        rpm: None,
        tpm: None,
        max_concurrency: None,
        routes: vec![Route { model: 0, sent: "m".to_owned(), input_per_mtok: None, output_per_mtok: None }],
        any_model: false,
        labels: Vec::new(),
        capabilities: Vec::new(),
        attributes: Vec::new(),
    };
    let numbers = BTreeMap::from([
        ("requests_left", NONE),
        ("tokens_left", NONE),
        ("concurrency_left", NONE),
        ("emergency_ms", NONE),
    ]);
    Given { backend, numbers }
}

fn primary() -> Given {
    given(Tier::Primary)
}

fn fallback() -> Given {
    given(Tier::Fallback)
}

impl Given {
    fn with(mut self, column: &'static str, number: u32) -> Self {
        assert!(COLUMNS.contains(&column));
        self.numbers.insert(column, number);
        self
    }

    fn cooling(self, reason: Outcome, ready_ms: u32) -> Self {
        let reason = Outcome::ALL.iter().position(|&o| o == reason).unwrap() as u32;
        self.with("state", 2).with("cooldown_ms", ready_ms).with("cooldown_reason", reason).with("ready_ms", ready_ms)
    }

    fn throttled(self, ready_ms: u32) -> Self {
        self.with("state", 1).with("ready_ms", ready_ms)
    }

    fn drained(self) -> Self {
        self.with("state", 4).with("ready_ms", NONE)
    }

    fn weight(mut self, weight: u32) -> Self {
        self.backend.weight = weight;
        self
    }

    fn rpm(mut self, rpm: u32) -> Self {
        self.backend.rpm = Some(rpm);
        self
    }

    fn price(mut self, input: f64, output: f64) -> Self {
        self.backend.routes[0].input_per_mtok = Some(input);
        self.backend.routes[0].output_per_mtok = Some(output);
        self
    }
}

/// A question in the making.
#[derive(Clone, Debug)]
struct Scenario {
    given: Vec<Given>,
    attempts: Vec<Attempt>,
    waits: u32,
    remaining_ms: u32,
    seed: u64,
    settings: &'static str,
}

fn scenario<const N: usize>(given: [Given; N]) -> Scenario {
    Scenario { given: given.to_vec(), attempts: Vec::new(), waits: 0, remaining_ms: 600_000, seed: 1, settings: "" }
}

impl Scenario {
    /// After an attempt on this backend in its tier's lane.
    fn after(self, backend: usize, outcome: Outcome) -> Self {
        let lane = match self.given[backend].backend.tier {
            Tier::Primary => Lane::Primary,
            Tier::Fallback => Lane::Fallback,
        };
        self.after_in(lane, backend, outcome)
    }

    fn after_in(mut self, lane: Lane, backend: usize, outcome: Outcome) -> Self {
        let waits_before = self.waits;
        self.attempts.push(Attempt { backend, lane, outcome, status: 0, elapsed_ms: 10, waits_before });
        self
    }

    fn after_times(mut self, times: usize, backend: usize, outcome: Outcome) -> Self {
        for _ in 0..times {
            self = self.after(backend, outcome);
        }
        self
    }

    fn after_waits(mut self, waits: u32) -> Self {
        self.waits += waits;
        self
    }

    fn remaining_ms(mut self, ms: u32) -> Self {
        self.remaining_ms = ms;
        self
    }

    fn settings(mut self, settings: &'static str) -> Self {
        self.settings = settings;
        self
    }

    fn table(&self) -> Table {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut backends: Vec<Backend> = self.given.iter().map(|g| g.backend.clone()).collect();
        for (i, backend) in backends.iter_mut().enumerate() {
            backend.id = format!("b{i}");
        }
        Table::new(TableParts {
            backends,
            models: words(&["m"]),
            columns: words(&COLUMNS),
            operations: words(&["chat"]),
            outcomes: Outcome::ALL.iter().map(|o| o.as_str().to_owned()).collect(),
            ..TableParts::default()
        })
    }

    fn ask(&self) -> (Decision, Vec<String>) {
        let table = self.table();
        let mut policy = DefaultPolicy::configure(self.settings, &table).unwrap();
        let row = |g: &Given| COLUMNS.map(|column| g.numbers.get(column).copied().unwrap_or(0));
        let rows: Vec<u32> = self.given.iter().flat_map(row).collect();
        let query = Query {
            now_ms: 1_000_000,
            seed: self.seed,
            request: Request {
                model: Some(0),
                operation: Operation::Chat,
                client: None,
                streaming: true,
                priority: 0,
                prompt_tokens: 1_000,
                max_tokens: 0,
                session: 0,
                elapsed_ms: 0,
                remaining_ms: self.remaining_ms,
            },
            attempts: &self.attempts,
            waits: self.waits,
            waited_ms: 0,
            rows: &rows,
            layout: table.layout(),
        };
        let ears = Ears::default();
        let notes = ears.0.clone();
        let (decision, _) = host::scope(ears, || policy.decide(&query));
        (decision, notes.take())
    }

    fn decision(&self) -> Decision {
        self.ask().0
    }

    /// How often each backend is chosen over many seeds.
    fn shares(&self) -> Vec<u32> {
        let mut shares = vec![0; self.given.len()];
        for seed in 0..1_000 {
            match (Scenario { seed, ..self.clone() }).decision() {
                Decision::Primary(d) | Decision::Fallback(d) | Decision::Emergency(d) => {
                    shares[d.backend.unwrap() as usize] += 1;
                }
                Decision::Wait(_) | Decision::Reject(_) => {}
            }
        }
        shares
    }
}

#[derive(Default)]
struct Ears(Rc<RefCell<Vec<String>>>);

impl Host for Ears {
    fn note(&mut self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }
}

fn wait(lane: Lane, max_ms: u32) -> Decision {
    Decision::Wait(Hold { max_ms, lane })
}

use Outcome::{ConnectFailed, ModelMissing, OutOfCredit, RateLimited, Refused, ServerError, TooLong, Unauthorised};

// --- choosing a primary

#[test]
fn a_ready_primary_is_chosen_without_a_note() {
    let (decision, notes) = scenario([fallback(), primary()]).ask();
    assert_eq!(decision, Decision::primary(1));
    assert!(notes.is_empty());
}

#[test]
fn equal_primaries_share_by_weight() {
    let shares = scenario([primary(), primary().weight(3), primary()]).shares();
    for (share, expected) in shares.iter().zip([200, 600, 200]) {
        assert!(share.abs_diff(expected) < 60, "{shares:?}");
    }
}

#[test]
fn what_makes_a_primary_worse_makes_it_avoided() {
    for worse in [
        primary().with("error_permille", 200),
        primary().with("failures", 1),
        primary().with("concurrency_left", 1).with("in_flight", 9),
        primary().rpm(100).with("requests_left", 5),
        primary().with("in_flight", 40),
        primary().with("first_token_ms", 20_000),
    ] {
        let numbers = worse.numbers.clone();
        let better = primary().with("first_token_ms", 500);
        assert_eq!(scenario([worse, better]).shares(), [0, 1_000], "{numbers:?}");
    }
}

#[test]
fn of_many_primaries_a_sick_one_is_rarely_chosen_and_shares_stay_by_weight() {
    let mut many = scenario([]);
    many.given = (0..40).map(|i| primary().weight(if i < 20 { 3 } else { 1 })).collect();
    let shares = many.shares();
    let heavy: u32 = shares[..20].iter().sum();
    assert!(heavy.abs_diff(750) < 80, "{heavy}");
    assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    many.given[0] = primary().weight(3).with("failures", 5);
    assert!(many.shares()[0] <= 1);
}

#[test]
fn the_only_ready_one_of_many_is_found() {
    let mut many = scenario([]);
    many.given = (0..200).map(|i| if i == 137 { primary() } else { primary().cooling(RateLimited, 9_000) }).collect();
    assert_eq!(many.shares()[137], 1_000);
}

#[test]
fn after_a_failure_another_primary_goes_first() {
    let s = scenario([primary(), primary()]).after(0, ServerError);
    assert_eq!(s.shares(), [0, 1_000]);
    assert_eq!(s.ask().1, ["primary b1: best of those ready"]);
}

#[test]
fn a_tried_primary_is_used_again_when_it_is_ready() {
    assert_eq!(scenario([primary()]).after(0, ServerError).decision(), Decision::primary(0));
}

#[test]
fn a_drained_or_unsuited_backend_is_never_used() {
    let unsuited = || primary().with("state", 5).with("emergency_ms", 0);
    let drained = || fallback().drained().with("emergency_ms", 0);
    assert_eq!(scenario([unsuited(), drained()]).decision(), Decision::exhausted());
}

// --- budgets

#[test]
fn the_pool_budget_ends_in_the_fallback() {
    let s = scenario([primary(), fallback()]);
    assert_eq!(s.clone().after_times(3, 0, ServerError).decision(), Decision::primary(0));
    assert_eq!(s.clone().after_times(4, 0, ServerError).decision(), Decision::fallback(1));
    let one_try = s.settings(r#"{"max_pool_retries": 0}"#);
    assert_eq!(one_try.after(0, ServerError).decision(), Decision::fallback(1));
}

#[test]
fn a_wait_renews_the_pool_budget_once() {
    let s = scenario([primary(), fallback()]).after_times(4, 0, ServerError).after_waits(1);
    assert_eq!(s.decision(), Decision::primary(0));
    let s = s.after_times(4, 0, ServerError).after_waits(1);
    assert_eq!(s.decision(), Decision::fallback(1), "twice the budget is all there is");
}

#[test]
fn a_refused_request_is_not_tried_again() {
    let Decision::Reject(rejection) = scenario([primary(), fallback()]).after(0, Refused).decision() else { panic!() };
    assert_eq!(rejection.status, 400);
}

#[test]
fn a_backend_without_the_model_or_the_room_is_not_asked_again() {
    for word in [TooLong, ModelMissing] {
        assert_eq!(scenario([primary(), fallback()]).after(0, word).decision(), Decision::fallback(1));
        let both = scenario([primary().with("emergency_ms", 0), fallback()]).after(0, word).after(1, word);
        assert_eq!(both.decision(), Decision::exhausted());
    }
}

// --- waiting for a primary

#[test]
fn it_waits_for_a_recovery_rather_than_spend() {
    let s = scenario([primary().cooling(RateLimited, 1_200), primary().throttled(3_000), fallback()]);
    assert_eq!(s.decision(), wait(Lane::Primary, 5_000));
    assert_eq!(s.ask().1.len(), 1);
}

#[test]
fn a_long_recovery_takes_several_waits() {
    let s = scenario([primary().cooling(RateLimited, 29_000), fallback()]);
    assert_eq!(s.decision(), wait(Lane::Primary, 5_000));
    assert_eq!(s.clone().after_waits(1).decision(), Decision::fallback(1), "five waits are left, six are needed");
    let longer = scenario([primary().cooling(RateLimited, 31_000), fallback()]);
    assert_eq!(longer.decision(), Decision::fallback(1), "it could not pay");
}

#[test]
fn waits_are_counted_and_bounded_by_the_settings() {
    let s = scenario([primary().cooling(RateLimited, 1_000), fallback()]);
    assert_eq!(s.clone().after_waits(5).decision(), wait(Lane::Primary, 5_000));
    assert_eq!(s.clone().after_waits(6).decision(), Decision::fallback(1));
    assert_eq!(s.clone().settings(r#"{"primary_wait_ms": 0}"#).decision(), Decision::fallback(1));
    assert_eq!(s.settings(r#"{"primary_wait_max_retries": 0}"#).decision(), Decision::fallback(1));
}

#[test]
fn it_never_waits_longer_than_the_client_does() {
    let s = scenario([primary().cooling(RateLimited, 3_000), fallback()]);
    assert_eq!(s.clone().remaining_ms(3_100).decision(), wait(Lane::Primary, 3_100));
    assert_eq!(s.remaining_ms(2_900).decision(), Decision::fallback(1));
}

#[test]
fn an_outage_is_no_hope_unless_it_is_about_to_be_tried() {
    let after = |reason, ready_ms, failures| {
        scenario([primary().cooling(reason, ready_ms).with("failures", failures), fallback()]).decision()
    };
    let spent = Decision::fallback(1);
    for reason in [ConnectFailed, Outcome::TimedOut, Outcome::Reset, Unauthorised, OutOfCredit, ModelMissing] {
        assert_eq!(after(reason, 4_000, 1), spent, "{reason:?}");
        assert_eq!(after(reason, 1_500, 3), spent, "{reason:?}");
        let probing = primary().cooling(reason, NONE).with("state", 3).with("failures", 2);
        assert_eq!(scenario([probing, fallback()]).decision(), wait(Lane::Primary, 5_000), "{reason:?}");
        assert_eq!(after(reason, 1_500, 2), wait(Lane::Primary, 5_000), "{reason:?}");
    }
    for reason in [ServerError, Outcome::Overloaded, Outcome::Malformed, Outcome::Cut, Outcome::Stalled] {
        assert_eq!(after(reason, 4_000, 2), wait(Lane::Primary, 5_000), "{reason:?}");
        assert_eq!(after(reason, 4_000, 3), spent, "{reason:?}");
    }
    assert_eq!(after(RateLimited, 4_000, 9), wait(Lane::Primary, 5_000));
}

#[test]
fn when_nobody_says_how_long_it_waits_one_whole_wait() {
    let probing = primary().with("state", 3).with("ready_ms", NONE);
    assert_eq!(scenario([probing, fallback()]).decision(), wait(Lane::Primary, 5_000));
    assert_eq!(scenario([primary().throttled(NONE), fallback()]).decision(), wait(Lane::Primary, 5_000));
}

#[test]
fn those_before_in_the_queue_count() {
    // 60 a minute: one a second, and two wait already.
    let busy = |queued| primary().rpm(60).throttled(1_000).with("queued", queued);
    assert_eq!(scenario([busy(2), fallback()]).decision(), wait(Lane::Primary, 5_000));
    assert_eq!(scenario([busy(2), busy(2), fallback()]).decision(), wait(Lane::Primary, 5_000), "two serve the queue");
    assert_eq!(scenario([busy(30), fallback()]).decision(), Decision::fallback(1), "too long a queue");
}

#[test]
fn it_does_not_wait_for_a_primary_that_it_may_not_use() {
    let s = scenario([primary().cooling(ModelMissing, 500), fallback()]).after(0, ModelMissing);
    assert_eq!(s.decision(), Decision::fallback(1));
}

// --- fallback

#[test]
fn the_cheapest_healthy_fallback_is_chosen() {
    let dear = || fallback().price(3.0, 15.0);
    let cheap = || fallback().price(0.1, 0.4);
    assert_eq!(scenario([dear(), cheap()]).shares(), [0, 1_000]);
    assert_eq!(scenario([dear(), cheap().with("failures", 1)]).shares(), [1_000, 0]);
    assert_eq!(scenario([fallback(), dear()]).shares(), [0, 1_000], "a known price before an unknown one");
    let shares = scenario([fallback(), fallback()]).shares();
    assert!(shares[0].abs_diff(500) < 60, "{shares:?}");
}

#[test]
fn a_fallback_is_tried_twice_and_the_pool_four_times() {
    let s = scenario([fallback(), fallback(), fallback()]);
    let two = s.clone().after_times(2, 0, ServerError);
    assert_eq!(two.shares()[0], 0);
    let four = two.after(1, ServerError).after(2, ServerError);
    assert_eq!(four.decision(), Decision::exhausted());
    assert_eq!(scenario([fallback()]).after_times(2, 0, ServerError).decision(), Decision::exhausted());
}

#[test]
fn a_throttled_fallback_is_waited_for_within_one_wait() {
    assert_eq!(scenario([fallback().throttled(2_000)]).decision(), wait(Lane::Fallback, 5_000));
    assert_eq!(scenario([fallback().throttled(6_000)]).decision(), Decision::exhausted());
    assert_eq!(scenario([fallback().cooling(RateLimited, 2_000)]).decision(), Decision::exhausted());
    assert_eq!(scenario([fallback().throttled(2_000)]).after_waits(6).decision(), Decision::exhausted());
}

// --- emergency

/// Too long gone to wait for.
fn lost(g: Given) -> Given {
    g.cooling(RateLimited, 90_000)
}

#[test]
fn emergency_uses_whatever_may_answer_not_the_same_twice_in_a_row() {
    let s = scenario([lost(primary()).with("emergency_ms", 0), lost(fallback()).with("emergency_ms", 0)]);
    let first = s.after_in(Lane::Emergency, 0, RateLimited);
    assert_eq!(first.decision(), Decision::emergency(1));
    assert_eq!(first.after_in(Lane::Emergency, 1, RateLimited).decision(), Decision::emergency(0));
}

#[test]
fn emergency_prefers_the_untried_then_the_soonest() {
    let soon = || primary().cooling(RateLimited, 40_000).with("emergency_ms", 0);
    let late = || lost(primary()).with("emergency_ms", 0);
    assert_eq!(scenario([late(), soon()]).decision(), Decision::emergency(1));
    let tried = scenario([late(), soon(), lost(fallback())]).after(1, RateLimited).after(2, RateLimited);
    assert_eq!(tried.decision(), Decision::emergency(0));
}

#[test]
fn emergency_ends_after_three_rounds() {
    let mut s = scenario([lost(primary()).with("emergency_ms", 0)]);
    for _ in 0..3 {
        assert_eq!(s.decision(), Decision::emergency(0));
        s = s.after_in(Lane::Emergency, 0, RateLimited);
    }
    assert_eq!(s.decision(), Decision::exhausted());
}

#[test]
fn emergency_does_not_bother_who_cannot_answer() {
    for reason in [Unauthorised, OutOfCredit, ModelMissing] {
        let s = scenario([primary().cooling(reason, 90_000).with("emergency_ms", 0)]);
        assert_eq!(s.decision(), Decision::exhausted(), "{reason:?}");
    }
}

#[test]
fn the_emergency_rate_is_waited_for_as_long_as_for_anything() {
    let s = scenario([lost(primary()).with("emergency_ms", 4_000)]);
    assert_eq!(s.decision(), wait(Lane::Emergency, 5_000));
    assert_eq!(s.clone().remaining_ms(4_500).decision(), wait(Lane::Emergency, 4_500));
    assert_eq!(scenario([lost(primary()).with("emergency_ms", 5_001)]).decision(), Decision::exhausted());
    assert_eq!(scenario([lost(primary()).with("emergency_ms", NONE)]).decision(), Decision::exhausted());
    assert_eq!(scenario([]).decision(), Decision::exhausted());
}

#[test]
fn emergency_has_three_waits_of_its_own() {
    let s = scenario([lost(primary()).with("emergency_ms", 4_000)]).after_waits(8);
    assert_eq!(s.decision(), wait(Lane::Emergency, 5_000), "six for primaries, and three");
    assert_eq!(s.clone().after_waits(1).decision(), Decision::exhausted());
    let after_one = s.after_in(Lane::Emergency, 0, RateLimited);
    assert_eq!(after_one.clone().after_waits(2).decision(), wait(Lane::Emergency, 5_000), "counted from the first one");
    assert_eq!(after_one.after_waits(3).decision(), Decision::exhausted());
    let none = scenario([lost(primary()).with("emergency_ms", 800)]).settings(r#"{"primary_wait_max_retries": 0}"#);
    assert_eq!(none.decision(), wait(Lane::Emergency, 5_000));
}

// --- whatever happens

fn any_given() -> impl Strategy<Value = Given> {
    let number = || prop_oneof![Just(0), Just(NONE), 0..10_000u32];
    let numbers = (0..7u32, 0..20u32, number(), number(), number(), number(), number(), number());
    (any::<bool>(), numbers, 0..5u32, number(), 0..100u32, prop::option::of(1..1_000u32)).prop_map(
        |(is_primary, n, failures, emergency, queued, rpm)| {
            let mut given = if is_primary { primary() } else { fallback() }
                .with("state", n.0)
                .with("cooldown_reason", n.1)
                .with("ready_ms", n.2)
                .with("requests_left", n.3)
                .with("tokens_left", n.4)
                .with("in_flight", n.5)
                .with("concurrency_left", n.6)
                .with("latency_ms", n.7)
                .with("failures", failures)
                .with("emergency_ms", emergency)
                .with("queued", queued);
            given.backend.rpm = rpm;
            given
        },
    )
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    let attempt = (any::<prop::sample::Index>(), 0..3usize, 0..Outcome::ALL.len(), 0..8u32);
    let attempts = prop::collection::vec(attempt, 0..12);
    (prop::collection::vec(any_given(), 0..24), attempts, 0..8u32, 0..20_000u32, any::<u64>()).prop_map(
        |(given, attempts, waits, remaining_ms, seed)| {
            let attempt = |(index, lane, outcome, waits_before): (prop::sample::Index, usize, usize, u32)| Attempt {
                backend: index.index(given.len().max(1)),
                lane: [Lane::Primary, Lane::Fallback, Lane::Emergency][lane],
                outcome: Outcome::ALL[outcome],
                status: 0,
                elapsed_ms: 1,
                waits_before,
            };
            let attempts = attempts.into_iter().map(attempt).collect();
            Scenario { given, attempts, waits, remaining_ms, seed, settings: "" }
        },
    )
}

proptest! {
    #[test]
    fn every_decision_can_be_carried_out(s in any_scenario()) {
        let state = |index: u32| match s.given[index as usize].numbers["state"] {
            0 => State::Ready,
            1..=3 => State::Cooling,
            _ => State::Drained,
        };
        let tier = |index: u32| s.given[index as usize].backend.tier;
        match s.decision() {
            Decision::Primary(d) => {
                let index = d.backend.unwrap();
                prop_assert_eq!((tier(index), state(index)), (Tier::Primary, State::Ready));
            }
            Decision::Fallback(d) => {
                let index = d.backend.unwrap();
                prop_assert_eq!((tier(index), state(index)), (Tier::Fallback, State::Ready));
            }
            Decision::Emergency(d) => {
                let index = d.backend.unwrap();
                prop_assert!(state(index) != State::Drained);
                prop_assert_eq!(s.given[index as usize].numbers["emergency_ms"], 0);
            }
            Decision::Wait(hold) => {
                let (longest_ms, waits) = if hold.lane == Lane::Emergency { (20_000, 9 + 8) } else { (5_000, 6) };
                prop_assert!(hold.max_ms > 0 && hold.max_ms <= longest_ms && hold.max_ms <= s.remaining_ms);
                prop_assert!(s.waits < waits);
            }
            Decision::Reject(_) => {}
        }
    }
}
