//! Each rule can be broken: the judge is told of what must not happen, and of its like that may.

use std::time::Duration;

use pointsman_core::clients::Spending;
use pointsman_core::contract::{
    BackendRow, Commit, Decision, Dispatch, Hold, NONE, Operation, Query, RequestFacts, Resume, RowState,
};
use pointsman_core::exchange::Sending;
use pointsman_core::outcome::Kind;
use pointsman_core::record::{End, Usage};
use pointsman_core::table::Timeouts;
use pointsman_engine::{Texts, Verdict};

use super::*;
use crate::world::Ask;

const TABLE: &str = "[limits]\nmax_attempts = 2\nmax_waits = 1\nmax_wait_ms = 1000\nmax_exchange_ms = 9000000\n\
                     [[client]]\nname = \"c\"\nkey = \"env:K\"\nbudget_usd_per_day = 1.0\nmax_concurrency = 1\n\
                     [[backend]]\nid = \"a\"\nbase_url = \"http://x\"\nmodels = [\"m\"]\nrpm = 3\n\
                     price = { m = { input_per_mtok = 1.0, output_per_mtok = 2.0 } }\n\
                     [[backend]]\nid = \"b\"\nbase_url = \"http://x\"\nmodels = [\"m\"]\nmax_concurrency = 1\ntpm = 10000\n";

/// A judge, and a fleet that knows nothing of what the judge is told.
struct Court {
    judge: Judge,
    fleet: Fleet,
    view: Arc<View>,
    arrived: u64,
}

impl Court {
    fn new() -> Self {
        let config = pointsman_config::parse(TABLE, "p.toml", &[("K", "k")]).unwrap().config;
        let mut fleet = Fleet::new(config.fleet_settings(), 1);
        let view = fleet.adopt(Arc::new(config.table()), config.fleet_settings());
        Self { judge: Judge::new(&config), fleet, view, arrived: 0 }
    }

    fn see(&mut self, ms: u64, exchange: u64, sight: &EventKind<'_>) {
        let scene = Scene { now: at(ms), exchange, fleet: &self.fleet, view: &self.view };
        self.judge.saw(&scene, sight);
    }

    fn arrive_of(&mut self, ms: u64, client: u32, priority: i32) -> u64 {
        self.arrive_told(ms, client, priority, Spending::default())
    }

    fn arrive_told(&mut self, ms: u64, client: u32, priority: i32, spending: Spending) -> u64 {
        let facts = Facts {
            operation: Operation::Chat,
            streaming: false,
            priority,
            prompt_tokens: 100,
            max_tokens: 10,
            client,
            session: 0,
            translatable: false,
            idempotent: true,
        };
        let number = self.arrived;
        self.arrived += 1;
        let ask =
            Ask { model: "m".into(), facts, texts: Arc::new(Texts { spending, ..Texts::default() }), patience: None };
        self.see(ms, number, &EventKind::Arrived(&ask));
        number
    }

    fn arrive(&mut self, ms: u64) -> u64 {
        self.arrive_of(ms, NONE, 0)
    }

    fn send(&mut self, ms: u64, exchange: u64, backend: u32, lane: Lane, probe: bool) {
        let limit = Duration::from_secs(1);
        let timeouts = Timeouts {
            connect: limit,
            first_byte: limit,
            first_token: limit,
            idle: limit,
            total: limit,
            stream_total: None,
        };
        let (commit, resume) = (Commit::Headers, Resume::None);
        let sending = Sending { backend, lane, model: "m".to_owned(), timeouts, commit, resume, join: None };
        self.see(ms, exchange, &EventKind::Sent { sending: &sending, probe, model: "m".into() });
    }

    fn end(&mut self, ms: u64, exchange: u64, kind: Kind, asked: Option<Duration>) -> AttemptRecord {
        let mut record = attempt("a", kind);
        record.retry_after = asked;
        self.see(ms, exchange, &EventKind::Ended(&record));
        record
    }

    /// One whole attempt of a new exchange.
    fn attempt(&mut self, ms: u64, backend: u32, kind: Kind, asked: Option<Duration>) {
        let exchange = self.arrive(ms);
        self.send(ms, exchange, backend, Lane::Primary, false);
        self.end(ms + 1, exchange, kind, asked);
    }

    fn wait(&mut self, ms: u64, exchange: u64, lane: Lane) {
        let request = RequestFacts {
            model: 0,
            operation: Operation::Chat,
            client: NONE,
            streaming: false,
            priority: 0,
            prompt_tokens: 100,
            max_tokens: 10,
            session: 0,
            elapsed_ms: 0,
            remaining_ms: 1_000,
        };
        // Both cool, so that both are waited for.
        let rows = [BackendRow::new(RowState::Cooling); 2].into_iter().collect();
        let query = Query { now_ms: 0, seed: 0, request, attempts: Vec::new(), waits: 0, waited_ms: 0, rows };
        self.see(ms, exchange, &EventKind::Asked(&query));
        let max = Duration::from_secs(1);
        let verdict = Verdict::of(Decision::Wait(Hold { max, lane }));
        self.see(ms, exchange, &EventKind::Decided(&verdict));
        self.see(ms, exchange, &EventKind::Waits { max, model: "m".into() });
    }

    fn finish(&mut self, ms: u64, exchange: u64, took_ms: u64, waits: (u32, u64), attempts: &[AttemptRecord]) {
        let finished = Finished {
            end: End::Delivered,
            status: 200,
            by: Some((Lane::Primary, 0)),
            error: None,
            took: Duration::from_millis(took_ms),
            attempts,
            waits: (waits.0, Duration::from_millis(waits.1)),
        };
        self.see(ms, exchange, &EventKind::Finished(&finished));
    }

    fn broken(&self) -> Option<Rule> {
        self.judge.breach.as_ref().map(|breach| breach.rule)
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_767_571_200_000 + ms)
}

fn attempt(backend: &str, kind: Kind) -> AttemptRecord {
    AttemptRecord {
        backend: backend.into(),
        lane: Lane::Primary,
        model_sent: "m".to_owned(),
        started: at(0),
        elapsed: Duration::ZERO,
        first_byte: None,
        first_token: None,
        scope: kind.usual_scope(),
        outcome: kind,
        status: 0,
        retry_after: None,
        message: String::new(),
        upstream_id: None,
        usage: Usage::default(),
        cost_usd: 0.0,
    }
}

#[test]
fn an_exchange_beyond_its_budgets_is_found() {
    for (took_ms, waits, attempts, expected) in [
        (100, (1, 1_000), 2, None),
        (9_000_001, (1, 1_000), 2, Some(Rule::Budget)),
        (100, (2, 1_000), 2, Some(Rule::Budget)),
        (100, (1, 1_001), 2, Some(Rule::Budget)),
        (100, (1, 1_000), 3, Some(Rule::Budget)),
    ] {
        let mut court = Court::new();
        let exchange = court.arrive(0);
        let records: Vec<_> = (0..attempts)
            .map(|n| {
                court.send(n, exchange, 0, Lane::Primary, false);
                court.end(n, exchange, Kind::Refused, None)
            })
            .collect();
        court.finish(10, exchange, took_ms, waits, &records);
        assert_eq!(court.broken(), expected, "{took_ms} ms, {waits:?}, {attempts} attempts");
    }
}

#[test]
fn an_exchange_that_goes_on_after_its_end_or_never_ends_is_found() {
    let mut court = Court::new();
    let exchange = court.arrive(0);
    let verdict = court.judge.all_is_over(&court.fleet, &court.view, at(1));
    assert!(matches!(verdict, Err((Rule::Budget, _))), "it never ended");
    court.finish(1, exchange, 1, (0, 0), &[]);
    assert!(court.judge.all_is_over(&court.fleet, &court.view, at(1)).is_ok());
    court.send(2, exchange, 0, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Budget));
}

#[test]
fn an_attempt_during_a_cooldown_is_found() {
    let asked = Some(Duration::from_secs(5));
    for (kind, ms, lane, expected) in [
        (Kind::RateLimited, 4_999, Lane::Primary, Some(Rule::Cooldown)),
        (Kind::RateLimited, 4_999, Lane::Emergency, None),
        (Kind::RateLimited, 5_001, Lane::Primary, None),
        (Kind::Unauthorised, 4_999, Lane::Emergency, Some(Rule::Cooldown)),
    ] {
        let mut court = Court::new();
        // The second, because a refused key is believed when another request confirms it.
        let both = [court.arrive(0), court.arrive(0)];
        both.iter().for_each(|exchange| court.send(0, *exchange, 0, Lane::Primary, false));
        for exchange in both {
            court.end(0, exchange, kind, asked);
        }
        let exchange = court.arrive(ms);
        court.send(ms, exchange, 0, lane, true);
        assert_eq!(court.broken(), expected, "{kind:?} at {ms} ms in {lane:?}");
    }
}

#[test]
fn an_answer_does_not_shorten_what_was_asked_for() {
    let mut court = Court::new();
    court.attempt(0, 0, Kind::RateLimited, Some(Duration::from_secs(5)));
    let emergency = court.arrive(10);
    court.send(10, emergency, 0, Lane::Emergency, false);
    court.end(20, emergency, Kind::Answered, None);
    let exchange = court.arrive(30);
    court.send(30, exchange, 0, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Cooldown));
}

#[test]
fn a_second_probe_and_one_that_is_none_are_found() {
    let mut court = Court::new();
    court.attempt(0, 0, Kind::Overloaded, None);
    let exchange = court.arrive(10_000);
    court.send(10_000, exchange, 0, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Probe), "it is no probe");

    let mut court = Court::new();
    court.attempt(0, 0, Kind::Overloaded, None);
    let [one, other] = [court.arrive(10_000), court.arrive(10_000)];
    court.send(10_000, one, 0, Lane::Primary, true);
    assert_eq!(court.broken(), None);
    court.send(10_001, other, 0, Lane::Primary, true);
    assert_eq!(court.broken(), Some(Rule::Probe), "it is the second");
}

#[test]
fn rates_above_the_limits_are_found() {
    // Three a minute are allowed; whom the provider never saw does not count.
    for (kind, fourth_ms, expected) in [
        (Kind::Answered, 59_999, Some(Rule::Rate)),
        (Kind::Answered, 60_000, None),
        (Kind::ConnectFailed, 59_999, None),
    ] {
        let mut court = Court::new();
        court.attempt(0, 0, kind, None);
        for ms in [30_000, 40_000] {
            let exchange = court.arrive(ms);
            court.send(ms, exchange, 0, Lane::Primary, true);
            court.end(ms, exchange, Kind::Answered, None);
        }
        court.attempt(fourth_ms, 0, Kind::Answered, None);
        assert_eq!(court.broken(), expected, "{kind:?}, {fourth_ms}");
    }
    let mut court = Court::new();
    let [one, other] = [court.arrive(0), court.arrive(0)];
    court.send(0, one, 1, Lane::Primary, false);
    court.send(1, other, 1, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Rate), "one at a time");

    let mut court = Court::new();
    for n in 0..100 {
        // Each is charged 110 tokens of 10000, and its answer does not say what it used.
        court.attempt(n * 10, 1, Kind::Answered, None);
        assert_eq!(court.broken(), (n >= 90).then_some(Rule::Rate), "{n}");
    }
}

#[test]
fn emergencies_have_a_rate_of_their_own() {
    let mut court = Court::new();
    for (ms, expected) in [(0, None), (1_000, Some(Rule::Rate))] {
        let exchange = court.arrive(ms);
        court.send(ms, exchange, 0, Lane::Emergency, false);
        court.end(ms, exchange, Kind::Answered, None);
        assert_eq!(court.broken(), expected);
    }
}

#[test]
fn a_client_key_above_its_limits_is_found() {
    let mut court = Court::new();
    court.arrive_of(0, 0, 0);
    assert_eq!(court.broken(), None);
    court.arrive_of(1, 0, 0);
    assert_eq!(court.broken(), Some(Rule::Rate));
}

#[test]
fn whoever_is_passed_over_is_found() {
    for (priority, lane, expected) in
        [(0, Lane::Primary, Some(Rule::Order)), (1, Lane::Primary, None), (0, Lane::Emergency, None)]
    {
        let mut court = Court::new();
        let [one, other] = [court.arrive(0), court.arrive_of(0, NONE, priority)];
        court.wait(0, one, Lane::Primary);
        court.wait(1, other, lane);
        court.see(5, other, &EventKind::Granted { backend: 0 });
        assert_eq!(court.broken(), expected, "priority {priority}, {lane:?}");
    }
    let mut court = Court::new();
    let [one, newcomer] = [court.arrive(0), court.arrive(0)];
    court.wait(0, one, Lane::Primary);
    court.send(5, newcomer, 0, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Order), "who arrives is not served before who waits");

    let mut court = Court::new();
    let [one, newcomer] = [court.arrive(0), court.arrive(0)];
    court.wait(0, one, Lane::Primary);
    court.see(5, one, &EventKind::Waited { granted: None });
    let verdict = Verdict::of(Decision::Primary(Dispatch::default()));
    court.see(5, newcomer, &EventKind::Decided(&verdict));
    court.send(5, newcomer, 0, Lane::Primary, false);
    assert_eq!(court.broken(), None, "nobody waits any more");
}

#[test]
fn a_leaked_permit_is_found() {
    let mut court = Court::new();
    let want = court.view.want(&"m".into(), Operation::Chat, 10);
    let permit = court.fleet.acquire(at(0), &court.view, &want, Lane::Primary, Some(0)).unwrap();
    let verdict = court.judge.all_is_over(&court.fleet, &court.view, at(1));
    assert!(matches!(verdict, Err((Rule::Permit, _))));
    court.fleet.refund(permit);
    assert!(court.judge.all_is_over(&court.fleet, &court.view, at(1)).is_ok());

    let exchange = court.arrive(0);
    court.send(0, exchange, 0, Lane::Primary, false);
    court.send(1, exchange, 1, Lane::Primary, false);
    assert_eq!(court.broken(), Some(Rule::Permit), "two attempts at a time");
}

#[test]
fn money_that_does_not_add_up_is_found() {
    let usage = Usage { input_tokens: 1_000_000, output_tokens: 100_000, ..Usage::default() };
    for (kind, cost_usd, expected) in [
        (Kind::Answered, 1.2, None),
        (Kind::Answered, 1.3, Some(Rule::Spend)),
        (Kind::RateLimited, 1.2, Some(Rule::Spend)),
    ] {
        let mut court = Court::new();
        let exchange = court.arrive_of(0, 0, 0);
        court.send(0, exchange, 0, Lane::Primary, false);
        court.end(1, exchange, kind, None);
        court.finish(2, exchange, 2, (0, 0), &[AttemptRecord { usage, cost_usd, ..attempt("a", kind) }]);
        assert_eq!(court.broken(), expected, "{kind:?} for {cost_usd}");
        if expected.is_none() {
            court.arrive_of(3, 0, 0);
            assert_eq!(court.broken(), Some(Rule::Spend), "its budget was spent, and it was told nothing of it");
        }
    }
}

#[test]
fn money_beyond_a_spent_budget_is_found() {
    for (tokens, expected) in [(0, None), (10, Some(Rule::Spend))] {
        let mut court = Court::new();
        for (usage, spent) in [(1_100_000, 0), (tokens, 1_100_000)] {
            let spending = Spending { today_microusd: spent, budget_microusd: Some(1_000_000) };
            let exchange = court.arrive_told(spent, 0, 0, spending);
            court.send(spent, exchange, 0, Lane::Primary, false);
            court.end(spent + 1, exchange, Kind::Answered, None);
            let usage = Usage { input_tokens: usage, ..Usage::default() };
            let cost_usd = usage.input_tokens as f64 / 1e6;
            let record = AttemptRecord { usage, cost_usd, ..attempt("a", Kind::Answered) };
            court.finish(spent + 2, exchange, 2, (0, 0), &[record]);
        }
        assert_eq!(court.broken(), expected, "{tokens} tokens over the budget");
    }
}
