//! Exchanges that find nobody: who is not asked again, whether anybody is faster, and what all backends say alike.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{
    Column, Commit, Decision, Dispatch, Hold, Operation, Query, Rejection, Resume, RowState,
};
use pointsman_core::exchange::{
    Action, Budgets, Ended, Event, Exchange, ExhaustedStatus, Facts, Reason, Refusal, StreamDefaults,
};
use pointsman_core::exhaustion::Repetition;
use pointsman_core::fleet::{Fleet, Settings};
use pointsman_core::outcome::{Kind, Outcome, Scope};
use pointsman_core::overdue::{Bet, Overdue};
use pointsman_core::table::{Backend, Lane, Limits, Pattern, Route, Table};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn backend(i: usize) -> Backend {
    Backend::new(format!("b{i}"))
}

/// It says that it has the model.
fn listing(i: usize) -> Backend {
    let route = Route { asked: Pattern::parse("m").expect("a pattern"), sent: "m".to_owned() };
    Backend { routes: vec![route], ..backend(i) }
}

fn facts() -> Facts {
    Facts {
        operation: Operation::Chat,
        streaming: true,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        client: u32::MAX,
        session: 0,
        translatable: false,
        idempotent: true,
    }
}

struct Story {
    fleet: Fleet,
    view: Arc<View>,
    exchange: Exchange,
    now: Timestamp,
}

impl Story {
    fn of(backends: Vec<Backend>) -> Self {
        let mut fleet = Fleet::new(Settings::default(), 3);
        let view = fleet.adopt(Arc::new(Table::new(backends, Vec::new())), Settings::default());
        let exchange = exchange(START, &view, facts());
        Self { fleet, view, exchange, now: START }
    }

    fn begin(&mut self) {
        self.again(|exchange| exchange);
    }

    /// Another exchange.
    fn again(&mut self, with: impl FnOnce(Exchange) -> Exchange) -> Action {
        self.exchange = with(exchange(self.now, &self.view, facts()));
        self.step(Event::Arrived)
    }

    fn step(&mut self, event: Event) -> Action {
        self.exchange.step(&mut self.fleet, self.now, event)
    }

    fn send(&mut self, backend: u32) {
        let dispatch = Dispatch { backend: Some(backend), ..Dispatch::default() };
        let action = self.step(Event::Decided(Decision::Primary(dispatch)));
        assert!(matches!(action, Action::Send(_)), "{action:?}");
    }

    fn fails(&mut self, kind: Kind, status: u16) -> Action {
        self.step(Event::Ended(ended(kind, status)))
    }

    /// It fails so at another request.
    fn has_failed(&mut self, backend: u32, kind: Kind, status: u16) {
        self.begin();
        self.send(backend);
        self.fails(kind, status);
    }

    /// It answers 429 with this Retry-After to another request.
    fn is_limited(&mut self, backend: u32, retry_after: Duration) {
        self.begin();
        self.send(backend);
        let limited = Outcome { retry_after: Some(retry_after), ..Outcome::new(Kind::RateLimited, "") };
        self.step(Event::Ended(Ended::failed(limited)));
    }

    /// An attempt at each of the backends, in order; then the policy gives up.
    fn all_fail(&mut self, with: &[(Kind, u16)]) -> Action {
        for (backend, (kind, status)) in (0..).zip(with) {
            self.send(backend);
            self.fails(*kind, *status);
        }
        self.gives_up()
    }

    fn gives_up(&mut self) -> Action {
        self.step(Event::Decided(Decision::Reject(Rejection::default())))
    }

    fn overdue(&mut self, can_resume: bool) -> Option<Duration> {
        let overdue = Overdue { bet: Bet::FirstByte, limit: 30 * SECOND };
        self.exchange.overdue(&mut self.fleet, self.now, overdue, can_resume).map(|until| until.since(self.now))
    }
}

/// A repetition that may try.
const fn trying(until: Timestamp) -> Repetition {
    Repetition { until, may_try: true }
}

fn ended(kind: Kind, status: u16) -> Ended {
    let status = Some(status).filter(|status| *status > 0);
    Ended::failed(Outcome { status, ..Outcome::new(kind, "as it says") })
}

fn exchange(now: Timestamp, view: &Arc<View>, facts: Facts) -> Exchange {
    let streams = StreamDefaults { commit: Commit::FirstContent, resume: Resume::Splice };
    Exchange::new(now, view.clone(), &"m".into(), facts, Budgets::default(), streams)
}

fn refusal(action: Action) -> Refusal {
    match action {
        Action::Reject(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn question(action: Action) -> Query {
    match action {
        Action::Ask(query) => query,
        other => panic!("{other:?}"),
    }
}

fn state(query: &Query, backend: usize) -> u32 {
    query.rows.number(backend, Column::State)
}

// --- time limits

#[test]
fn a_limit_ends_an_attempt_only_where_somebody_else_is_ready_or_soon_will_be() {
    let mut s = Story::of(vec![backend(0)]);
    s.begin();
    s.send(0);
    assert_eq!(s.overdue(true), Some(5 * SECOND), "nobody else");
    assert_eq!(s.overdue(true), Some(5 * SECOND));
    let warnings = s.exchange.take_warnings();
    assert_eq!(warnings.len(), 1, "once for an attempt: {warnings:?}");
    assert!(warnings[0].starts_with("b0: no response head within 30s (timeouts.first_byte_ms)"), "{}", warnings[0]);

    let mut s = Story::of(vec![backend(0), backend(1)]);
    s.begin();
    s.send(0);
    assert_eq!(s.overdue(true), None, "b1 is ready");
    s.fleet.set_drained(s.now, "b1", true);
    assert_eq!(s.overdue(true), Some(5 * SECOND));
    s.fleet.set_drained(s.now, "b1", false);
    let limited = Outcome { retry_after: Some(4 * SECOND), ..Outcome::new(Kind::RateLimited, "") };
    s.step(Event::Ended(Ended::failed(limited)));
    s.send(1);
    assert_eq!(s.overdue(true), Some(3 * SECOND), "b0 is ready in 4 s");
    s.now = s.now + 3 * SECOND;
    assert_eq!(s.overdue(true), None, "and soon is soon enough");
}

#[test]
fn a_backend_that_would_not_answer_is_nobody_else() {
    use Kind::{ConnectFailed, ModelMissing, Overloaded, RateLimited, Refused, ServerError, TooLong};
    for (kind, status) in [(TooLong, 400), (Refused, 404), (Refused, 413), (ModelMissing, 404)] {
        let mut s = Story::begun();
        s.send(0);
        question(s.fails(kind, status));
        s.send(1);
        assert_eq!(s.overdue(true), Some(5 * SECOND), "b0 said {kind:?}, {status}");
    }
    for (kind, failures, is_somebody) in [
        (ConnectFailed, 1, false),
        (ServerError, 1, true),
        (ServerError, 2, false),
        (Overloaded, 2, false),
        (RateLimited, 2, true),
    ] {
        let mut s = Story::begun();
        for _ in 0..failures {
            s.has_failed(0, kind, 0);
            s.now = s.now + 30 * SECOND;
        }
        assert_eq!(s.state_for_another(0), RowState::Ready, "its cooldown is over");
        s.begin();
        s.send(1);
        assert_eq!(s.overdue(true).is_none(), is_somebody, "{failures} times {kind:?}");
    }
}

#[test]
fn a_slot_that_others_wait_for_is_nobody_else() {
    let limits = Limits { max_concurrency: Some(1), ..Limits::default() };
    let mut s = Story::of(vec![Backend { limits, ..backend(0) }, backend(1)]);
    s.begin();
    s.send(0);
    let holding = std::mem::replace(&mut s.exchange, exchange(s.now, &s.view, facts()));
    s.begin();
    assert!(matches!(s.waits(), Action::Wait { .. }), "for b0");
    let waiting = std::mem::replace(&mut s.exchange, holding);
    s.step(Event::ClientGone);
    s.begin();
    s.send(1);
    assert_eq!(s.overdue(true), Some(5 * SECOND), "b0's slot is for who waits");
    drop(waiting);
}

#[test]
fn a_limit_ends_nothing_that_may_not_be_sent_again() {
    let mut s = Story::of(vec![backend(0), backend(1)]);
    s.exchange = exchange(s.now, &s.view, Facts { idempotent: false, ..facts() });
    s.step(Event::Arrived);
    s.send(0);
    assert_eq!(s.overdue(true), Some(5 * SECOND));
    let mut s = Story::of(vec![backend(0), backend(1)]);
    s.begin();
    s.send(0);
    s.step(Event::Committed);
    assert_eq!(s.overdue(false), Some(5 * SECOND), "what was delivered cannot be continued");
    assert_eq!(s.overdue(true), None);
}

#[test]
fn a_backend_that_hung_is_not_asked_again_in_the_exchange_it_hung() {
    for kind in [Kind::TimedOut, Kind::Stalled] {
        let mut s = Story::of(vec![backend(0), backend(1)]);
        s.begin();
        s.send(0);
        s.now = s.now + 30 * SECOND;
        let query = question(s.fails(kind, 0));
        assert_eq!(state(&query, 0), RowState::Unsuited as u32);
        assert_eq!(state(&query, 1), RowState::Ready as u32);
        s.now = s.now + 60 * SECOND;
        s.send(1);
        assert_eq!(s.overdue(true), Some(5 * SECOND), "nor is it somebody else");
        let query = question(s.fails(Kind::ServerError, 500));
        assert_eq!(state(&query, 0), RowState::Unsuited as u32);
        let told = refusal(s.gives_up()).message;
        assert!(told.contains(&format!("b0 failed this request ({})", kind.as_str())), "{told}");
        s.begin();
        s.send(0);
    }
}

#[test]
fn time_lost_in_attempts_counts_against_the_time_to_wait() {
    let mut s = Story::of(vec![backend(0), backend(1)]);
    s.begin();
    for (backend, lost) in [(0, 70), (1, 40)] {
        s.send(backend);
        s.now = s.now + lost * SECOND;
        s.fails(Kind::RateLimited, 429);
    }
    let hold = pointsman_core::contract::Hold { max: 60 * SECOND, lane: pointsman_core::table::Lane::Primary };
    let Action::Wait { max, .. } = s.step(Event::Decided(Decision::Wait(hold))) else { panic!("it waits") };
    assert_eq!(max, 10 * SECOND, "of the 120 s");
}

// --- what all say alike

#[test]
fn what_all_have_in_common_is_what_the_client_is_told() {
    use Kind::{ModelMissing, OutOfCredit, RateLimited, Refused, ServerError, TooLong, Unauthorised};
    let came_to = |with: [(Kind, u16); 2]| Story::begun().all_fail(&with);
    for alike in [
        [(Unauthorised, 401), (Unauthorised, 401)],
        [(Unauthorised, 403), (Unauthorised, 403)],
        [(Refused, 404), (Refused, 404)],
        [(Refused, 404), (ModelMissing, 404)],
        [(Refused, 413), (TooLong, 413)],
    ] {
        assert!(matches!(came_to(alike), Action::PassOn), "{alike:?}");
    }
    for (mixed, words) in [
        ([(Unauthorised, 401), (RateLimited, 429)], ["unauthorised", "rate_limited"]),
        ([(Unauthorised, 401), (Unauthorised, 403)], ["unauthorised", "unauthorised"]),
        ([(Refused, 413), (RateLimited, 429)], ["refused, 413", "rate_limited"]),
        ([(ModelMissing, 404), (RateLimited, 429)], ["model_missing", "rate_limited"]),
        ([(ServerError, 500), (OutOfCredit, 402)], ["server_error", "out_of_credit"]),
        ([(ModelMissing, 404), (ServerError, 500)], ["model_missing", "server_error"]),
        ([(Kind::ConnectFailed, 0), (Refused, 404)], ["connect_failed", "refused"]),
        ([(OutOfCredit, 402), (ModelMissing, 404)], ["out_of_credit", "model_missing"]),
    ] {
        let told = refusal(came_to(mixed));
        assert!(words.iter().all(|word| told.message.contains(word)), "{mixed:?}: {}", told.message);
        let is_keys = mixed.iter().all(|(kind, _)| *kind == Unauthorised);
        let expected = if is_keys { Reason::KeysRefused } else { Reason::Exhausted };
        assert_eq!((told.reason, told.retry_after.is_some()), (expected, !is_keys), "{mixed:?}");
    }
}

impl Story {
    fn begun() -> Self {
        let mut s = Self::of(vec![backend(0), backend(1)]);
        s.begin();
        s
    }
}

#[test]
fn an_unknown_model_is_told_at_once_though_a_backend_breaks() {
    let mut s = Story::begun();
    s.has_failed(0, Kind::ServerError, 500);
    s.now = s.now + 5 * SECOND;
    s.begin();
    s.send(0);
    let query = question(s.fails(Kind::ServerError, 500));
    assert_eq!(state(&query, 0), RowState::Cooling as u32);
    s.send(1);
    let query = question(s.fails(Kind::ModelMissing, 404));
    assert_eq!(state(&query, 0), RowState::Unsuited as u32, "to ask it once more would find out nothing");
    assert!(matches!(s.gives_up(), Action::PassOn));
    // The next one finds it known.
    let query = question(s.again(|exchange| exchange));
    assert_eq!(query.attempts.len(), 0);
    assert_eq!(refusal(s.gives_up()).reason, Reason::ModelMissing);
}

#[test]
fn a_model_that_the_broken_backend_is_known_to_have_is_not_missing() {
    let mut s = Story::of(vec![listing(0), backend(1)]);
    s.begin();
    assert_eq!(refusal(s.all_fail(&[(Kind::ServerError, 500), (Kind::ModelMissing, 404)])).reason, Reason::Exhausted);
    let mut s = Story::begun();
    s.send(0);
    s.step(Event::Ended(Ended::failed(Outcome::answered(200))));
    s.begin();
    let told = refusal(s.all_fail(&[(Kind::ServerError, 500), (Kind::ModelMissing, 404)]));
    assert_eq!(told.reason, Reason::Exhausted, "it answered for it before: {}", told.message);
}

#[test]
fn exhaustion_by_limits_is_a_rate_limit_error_where_that_is_asked_for() {
    let limited = [(Kind::RateLimited, 429), (Kind::RateLimited, 429)];
    let told = |status, with: &[(Kind, u16)]| {
        let mut s = Story::of(vec![backend(0), backend(1)]);
        s.again(|exchange| exchange.with_exhausted_status(status));
        refusal(s.all_fail(with))
    };
    let unavailable = told(ExhaustedStatus::Unavailable, &limited);
    assert_eq!((unavailable.reason.status(), unavailable.reason), (503, Reason::Exhausted));
    let common = told(ExhaustedStatus::Common, &limited);
    assert_eq!((common.reason.status(), common.reason), (429, Reason::Limits));
    assert!(common.retry_after.is_some_and(|after| after >= SECOND));
    let mixed = told(ExhaustedStatus::Common, &[(Kind::RateLimited, 429), (Kind::ServerError, 500)]);
    assert_eq!(mixed.reason.status(), 503);
}

#[test]
fn a_refusal_that_may_be_peculiar_to_a_backend_is_put_to_the_next() {
    for status in [404, 405, 413] {
        let mut s = Story::begun();
        s.send(0);
        question(s.fails(Kind::Refused, status));
    }
    for status in [400, 403, 422] {
        let mut s = Story::begun();
        s.send(0);
        assert!(matches!(s.fails(Kind::Refused, status), Action::PassOn), "a verdict is not gone around: {status}");
    }
}

#[test]
fn what_one_backend_refuses_is_not_what_another_says_that_could_not_be_asked() {
    use Kind::{ModelMissing, OutOfCredit, Refused, TooLong};
    let of_size = Outcome { scope: Scope::AnswerSize, status: Some(402), ..Outcome::new(OutOfCredit, "") };
    for outcome in [
        ended(TooLong, 400).outcome,
        ended(Refused, 404).outcome,
        ended(Refused, 405).outcome,
        ended(Refused, 413).outcome,
        ended(ModelMissing, 404).outcome,
        of_size,
    ] {
        let mut s = Story::of(vec![backend(0), backend(1)]);
        s.is_limited(1, 60 * SECOND);
        s.begin();
        s.send(0);
        s.step(Event::Ended(Ended::failed(outcome.clone())));
        let told = refusal(s.gives_up());
        assert_eq!((&told.reason, told.retry_after), (&Reason::Exhausted, Some(60 * SECOND)), "{outcome:?}");
        assert!(told.message.contains("b0") && told.message.contains("rate_limited"), "{}", told.message);
        // Out of service is another thing: it will not come to answer.
        s.fleet.set_drained(s.now, "b1", true);
        s.now = s.now + 60 * SECOND;
        s.begin();
        if matches!(outcome.kind, TooLong) {
            s.send(0);
            s.step(Event::Ended(Ended::failed(outcome.clone())));
            assert!(matches!(s.gives_up(), Action::PassOn), "{outcome:?}");
        }
    }
}

#[test]
fn keys_refused_with_another_status_are_told_as_such_each_time() {
    let mut s = Story::begun();
    for _ in 0..2 {
        let told = refusal(s.all_fail(&[(Kind::Unauthorised, 400), (Kind::Unauthorised, 400)]));
        assert_eq!((told.reason.status(), told.retry_after), (401, None), "{}", told.message);
        s.now = s.now + 5 * SECOND;
        s.begin();
    }
}

#[test]
fn a_model_is_not_missing_for_one_hiccup_of_who_may_have_it() {
    let mut s = Story::begun();
    s.send(0);
    question(s.fails(Kind::ServerError, 500));
    s.send(1);
    let query = question(s.fails(Kind::ModelMissing, 404));
    assert_eq!(state(&query, 0), RowState::Cooling as u32, "it may be asked again");
    s.now = s.now + 5 * SECOND;
    s.send(0);
    assert!(matches!(s.fails(Kind::ServerError, 500), Action::PassOn), "and fails again");
    // It sends every name as one that it has.
    let route = Route { asked: Pattern::parse("*").expect("a pattern"), sent: "n".to_owned() };
    let mut s = Story::of(vec![Backend { routes: vec![route], ..backend(0) }, backend(1)]);
    for _ in 0..3 {
        s.has_failed(0, Kind::ConnectFailed, 0);
        s.now = s.now + 30 * SECOND;
    }
    s.begin();
    let told = refusal(s.all_fail(&[(Kind::ConnectFailed, 0), (Kind::ModelMissing, 404)]));
    assert_eq!(told.reason, Reason::Exhausted, "{}", told.message);
}

#[test]
fn exhaustion_by_limits_is_found_whatever_state_the_limited_are_in() {
    let common = |exchange: Exchange| exchange.with_exhausted_status(ExhaustedStatus::Common);
    let limited = || {
        let mut s = Story::of(vec![backend(0), backend(1)]);
        s.is_limited(0, SECOND);
        s.is_limited(1, 60 * SECOND);
        s.now = s.now + 2 * SECOND;
        s
    };
    let mut s = limited();
    s.again(common);
    assert_eq!(refusal(s.gives_up()).reason, Reason::Limits, "its probe is due");
    s.begin();
    s.send(0);
    let probe = std::mem::replace(&mut s.exchange, exchange(s.now, &s.view, facts()));
    s.again(common);
    assert_eq!(refusal(s.gives_up()).reason, Reason::Limits, "another request probes it");
    drop(probe);
    let mut s = limited();
    s.fleet.set_drained(s.now, "b0", true);
    s.again(common);
    assert_eq!(refusal(s.gives_up()).reason, Reason::Limits, "it is out of service");
}

// --- repeated requests

#[test]
fn a_request_that_was_just_found_exhausted_is_told_so_again_without_an_attempt() {
    let mut s = Story::begun();
    let told = refusal(s.all_fail(&[(Kind::RateLimited, 429), (Kind::RateLimited, 429)]));
    let until = s.exchange.exhausted_until().expect("it was exhausted");
    assert_eq!(until.since(s.now), told.retry_after.expect("it is told when"));
    s.now = s.now + Duration::from_millis(300);
    let again = refusal(s.again(|exchange| exchange.after_exhaustion(trying(until))));
    assert_eq!(again.reason, Reason::Exhausted);
    assert!(again.message.contains("rate_limited"), "{}", again.message);
    assert_eq!(s.exchange.attempts().len(), 0);
    assert!(s.exchange.exhausted_until().is_some(), "and so is the next");
    // The operator knows better.
    s.fleet.clear_cooldown(s.now, "b1");
    question(s.again(|exchange| exchange.after_exhaustion(trying(until))));
}

#[test]
fn after_the_recovery_a_repetition_has_one_try_in_all_at_those_that_have_failed() {
    let mut s = Story::begun();
    s.all_fail(&[(Kind::RateLimited, 429), (Kind::RateLimited, 429)]);
    let until = s.exchange.exhausted_until().expect("it was exhausted");
    s.now = s.now + 10 * SECOND;
    question(s.again(|exchange| exchange.after_exhaustion(trying(until))));
    s.send(0);
    let told = refusal(s.fails(Kind::ServerError, 500));
    assert_eq!((told.reason, s.exchange.attempts().len()), (Reason::Exhausted, 1));
    s.now = s.now + 30 * SECOND;
    let told = refusal(s.again(|exchange| exchange.after_exhaustion(Repetition { until, may_try: false })));
    assert_eq!((told.reason, s.exchange.attempts().len()), (Reason::Exhausted, 0), "not even that");
}

#[test]
fn a_repetition_asks_who_has_answered_others_since() {
    for may_try in [false, true] {
        let mut s = Story::begun();
        s.all_fail(&[(Kind::RateLimited, 429), (Kind::RateLimited, 429)]);
        let until = s.exchange.exhausted_until().expect("it was exhausted");
        s.now = s.now + 10 * SECOND;
        s.begin();
        s.send(1);
        s.step(Event::Ended(ended(Kind::Answered, 200)));
        s.now = s.now + SECOND;
        let query = question(s.again(|exchange| exchange.after_exhaustion(Repetition { until, may_try })));
        assert_eq!(state(&query, 1), RowState::Ready as u32, "{may_try}");
        assert_eq!(state(&query, 0) == RowState::Unsuited as u32, !may_try, "it may have a try left for the other");
        s.send(1);
        refusal(s.fails(Kind::ServerError, 500));
    }
}

#[test]
fn a_client_that_left_while_all_that_was_tried_had_failed_goes_on_with_the_same_run() {
    let mut s = Story::begun();
    s.send(0);
    s.fails(Kind::RateLimited, 429);
    s.send(1);
    s.fails(Kind::RateLimited, 429);
    assert!(matches!(s.waits(), Action::Wait { .. }));
    s.step(Event::ClientGone);
    assert!(s.exchange.exhausted_until().is_some());
    // Who only waited has failed at nothing.
    s.begin();
    assert!(matches!(s.waits(), Action::Wait { .. }));
    s.step(Event::ClientGone);
    assert!(s.exchange.exhausted_until().is_none());
}

/// Fails at each backend that the exchange may send to, the first before the second, for a minute; how often.
fn tries(backends: usize, kind: Kind, announces: bool) -> usize {
    let mut s = Story::of((0..backends).map(backend).collect());
    let mut action = s.again(|exchange| exchange.announcing_retries(announces));
    for _ in 0..600 {
        s.now = s.now + Duration::from_millis(100);
        let Action::Ask(query) = action else { break };
        let is_ready = |index: &usize| state(&query, *index) == RowState::Ready as u32;
        action = match (0..backends).find(is_ready) {
            Some(index) => {
                s.send(index as u32);
                s.fails(kind, 429)
            }
            None => match s.waits() {
                Action::Wait { .. } => {
                    s.now = s.now + SECOND;
                    s.step(Event::WaitOver)
                }
                other => other,
            },
        };
    }
    s.exchange.attempts().len()
}

#[test]
fn an_exchange_tries_as_often_as_its_client_would_and_each_backend_once_at_least() {
    use Kind::{RateLimited, ServerError};
    for (backends, kind, announces, most) in [
        (1, ServerError, true, 2),
        (1, RateLimited, true, 2),
        (2, ServerError, false, 3),
        (2, ServerError, true, 3),
        (2, RateLimited, true, 3),
        (3, ServerError, false, 4),
        (5, ServerError, true, 6),
    ] {
        assert_eq!(tries(backends, kind, announces), most, "{backends} {kind:?}, announced: {announces}");
    }
    // Who waits for a limit without a word of coming again is woken when it lets others pass.
    assert!(tries(1, RateLimited, false) >= 3 && tries(2, RateLimited, false) >= 4);
}

#[test]
fn a_repetition_waits_once_after_the_recovery_and_not_before() {
    let mut s = Story::begun();
    s.all_fail(&[(Kind::RateLimited, 429), (Kind::RateLimited, 429)]);
    let until = s.exchange.exhausted_until().expect("it was exhausted");
    s.fleet.clear_cooldown(s.now, "b1");
    question(s.again(|exchange| exchange.after_exhaustion(trying(until))));
    assert!(matches!(s.waits(), Action::Ask(_)), "b0 cools");
    s.step(Event::ClientGone);
    s.now = until + SECOND;
    // Its probe is under way.
    s.begin();
    s.send(0);
    let probing = std::mem::replace(&mut s.exchange, exchange(s.now, &s.view, facts()));
    question(s.again(|exchange| exchange.after_exhaustion(trying(until))));
    let Action::Wait { max, .. } = s.waits() else { panic!("it may have a moment's patience") };
    assert_eq!(max, 10 * SECOND);
    s.now = s.now + max;
    question(s.step(Event::WaitOver));
    assert!(matches!(s.waits(), Action::Ask(_)), "once");
    drop(probing);
}

#[test]
fn a_repetition_resumes_where_its_answer_broke() {
    let mut s = Story::begun();
    s.all_fail(&[(Kind::RateLimited, 429), (Kind::RateLimited, 429)]);
    let until = s.exchange.exhausted_until().expect("it was exhausted");
    s.now = s.now + 10 * SECOND;
    s.again(|exchange| exchange.after_exhaustion(trying(until)));
    s.send(0);
    s.step(Event::Committed);
    let query = question(s.step(Event::Broke(ended(Kind::Cut, 200))));
    assert_ne!(state(&query, 0), RowState::Unsuited as u32, "it may go on there");
    s.send(1);
    let query = question(s.fails(Kind::NotResumed, 200));
    assert_eq!(state(&query, 1), RowState::Ready as u32, "nor is it a failure that it cannot join");
}

// --- probes

/// b0 is the only backend; its cooldown is over, and an attempt probes it.
fn probing() -> Story {
    let mut s = Story::of(vec![backend(0)]);
    s.has_failed(0, Kind::RateLimited, 429);
    s.now = s.now + 10 * SECOND;
    s.begin();
    s.send(0);
    assert_eq!(s.state_for_another(0), RowState::Probing);
    s
}

impl Story {
    fn state_for_another(&self, backend: u32) -> RowState {
        let want = self.view.want(&"m".into(), Operation::Chat, 1);
        self.fleet.state_for(self.now, &self.view, &want, backend).0
    }

    fn waits(&mut self) -> Action {
        let hold = pointsman_core::contract::Hold { max: 60 * SECOND, lane: pointsman_core::table::Lane::Primary };
        self.step(Event::Decided(Decision::Wait(hold)))
    }
}

#[test]
fn a_long_answer_to_a_probe_keeps_nobody_waiting() {
    let mut s = probing();
    s.step(Event::Committed);
    assert_eq!(s.state_for_another(0), RowState::Ready, "it has begun to answer");
    let first = std::mem::replace(&mut s.exchange, exchange(s.now, &s.view, facts()));
    s.begin();
    s.send(0);
    assert_eq!(s.state_for_another(0), RowState::Probing, "one at a time");
    let mut second = std::mem::replace(&mut s.exchange, first);
    s.now = s.now + SECOND;
    s.step(Event::Ended(Ended::failed(Outcome::answered(200))));
    assert_eq!(s.state_for_another(0), RowState::Ready, "it is well");
    second.step(&mut s.fleet, s.now, Event::Ended(Ended::failed(Outcome::answered(200))));
    assert_eq!(s.fleet.overview(s.now, &s.view)[0].in_flight, 0);
}

#[test]
fn a_probe_that_hangs_while_its_limit_is_put_off_keeps_nobody_waiting() {
    let mut s = probing();
    assert_eq!(s.overdue(true), Some(5 * SECOND), "nobody else");
    assert_eq!(s.state_for_another(0), RowState::Ready, "the next one may find out");
    s.step(Event::ClientGone);
}

// --- tries of one exchange

impl Story {
    /// Time until a backend is ready for this exchange.
    fn ready_in(&self, query: &Query, backend: usize) -> u32 {
        query.rows.number(backend, Column::ReadyMs)
    }

    /// The policy waits so long, which brings nothing, until the time has passed.
    fn waits_for(&mut self, ms: u64) {
        let hold = Hold { max: Duration::from_millis(ms), lane: Lane::Primary };
        let action = self.step(Event::Decided(Decision::Wait(hold)));
        assert!(matches!(action, Action::Wait { .. }), "{action:?}");
        self.now = self.now + Duration::from_millis(ms);
        question(self.step(Event::WaitOver));
    }
}

#[test]
fn an_exchange_pauses_where_it_failed_again_and_others_do_not() {
    for (kind, status, second) in
        [(Kind::ServerError, 500, 2_000), (Kind::Cut, 0, 2_000), (Kind::RateLimited, 429, 5_000)]
    {
        let mut s = Story::of(vec![backend(0)]);
        s.begin();
        s.send(0);
        let query = question(s.fails(kind, status));
        assert!(s.ready_in(&query, 0) <= 1_200, "a hiccup: {kind:?}");
        s.waits_for(5_000);
        s.send(0);
        let query = question(s.fails(kind, status));
        assert!((second..=second + 500).contains(&s.ready_in(&query, 0)), "{kind:?}: {}", s.ready_in(&query, 0));
        s.waits_for(6_000);
        s.send(0);
        let query = question(s.fails(kind, status));
        assert_eq!(s.ready_in(&query, 0), 30_000, "{kind:?}");
        assert!(query.rows.number(0, Column::EmergencyMs) >= 30_000, "nor in an emergency: {kind:?}");
        let told = refusal(s.gives_up());
        assert!(told.retry_after.is_some_and(|after| after < 10 * SECOND), "the backend's own: {:?}", told.retry_after);
        let query = question(s.again(|exchange| exchange));
        assert!(s.ready_in(&query, 0) < 10_000, "another exchange: {kind:?}");
    }
}

#[test]
fn what_failed_twice_is_not_asked_a_third_time_while_another_is_ready() {
    let mut s = Story::begun();
    s.send(0);
    question(s.fails(Kind::ServerError, 500));
    s.now = s.now + SECOND;
    s.send(0);
    let query = question(s.fails(Kind::ServerError, 500));
    assert_eq!(s.ready_in(&query, 0), 30_000);
    // A limit is waited out before money is spent, and a fault after it is the first of its sort.
    let mut s = Story::begun();
    s.send(0);
    question(s.fails(Kind::RateLimited, 429));
    s.now = s.now + 2 * SECOND;
    s.send(0);
    let query = question(s.fails(Kind::ServerError, 500));
    assert_eq!(s.ready_in(&query, 0), 2_000);
}

#[test]
fn an_answer_to_another_ends_the_pause_for_a_limit_and_not_for_a_fault() {
    for (kind, is_over) in [(Kind::RateLimited, true), (Kind::ServerError, false)] {
        let mut s = Story::of(vec![backend(0)]);
        s.begin();
        for _ in 0..3 {
            s.send(0);
            question(s.fails(kind, 0));
            s.now = s.now + 10 * SECOND;
        }
        let paused = std::mem::replace(&mut s.exchange, exchange(s.now, &s.view, facts()));
        s.step(Event::Arrived);
        s.send(0);
        s.step(Event::Ended(Ended::failed(Outcome::answered(200))));
        s.exchange = paused;
        let query = question(s.step(Event::Decided(Decision::Wait(Hold { max: SECOND, lane: Lane::Fallback }))));
        assert_eq!(state(&query, 0) == RowState::Ready as u32, is_over, "{kind:?}");
    }
}
