//! Blame: only the smallest part that explains a failure is held back, and what one request brings about is not held
//! against a backend.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pointsman_core::contract::{Commit, Decision, Dispatch, Operation, Rejection, Resume, RowState};
use pointsman_core::exchange::{Action, Budgets, Ended, Event, Exchange, Facts, StreamDefaults};
use pointsman_core::fleet::{AttemptReport, Fleet, Settings};
use pointsman_core::origin::{Endpoint, Size};
use pointsman_core::outcome::{Kind, Outcome, Scope};
use pointsman_core::table::{Backend, Lane, Table};
use pointsman_core::time::Timestamp;
use pointsman_core::view::{View, Want};
use proptest::prelude::*;

fn backend(id: &str) -> Backend {
    Backend::new(id)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

/// A fleet of two backends.
struct Story {
    fleet: Fleet,
    view: Arc<View>,
}

impl Story {
    fn new() -> Self {
        let mut fleet = Fleet::new(Settings::default(), 7);
        let table = Arc::new(Table::new(vec![backend("a"), backend("b")], Vec::new()));
        let view = fleet.adopt(table, Settings::default());
        Self { fleet, view }
    }

    fn want(&self, request: u64, model: &str) -> Want {
        let mut want = self.view.want(&model.into(), Operation::Chat, 1);
        want.origin.request = request;
        want
    }

    /// An attempt of this request at a backend, ready or not, that is sent and ends at `ms`.
    fn attempt(&mut self, ms: u64, want: &Want, backend: u32, outcome: &Outcome) {
        let lane = [Lane::Primary, Lane::Emergency];
        let mut permits =
            lane.into_iter().filter_map(|lane| self.fleet.acquire(at(ms), &self.view, want, lane, Some(backend)).ok());
        let permit = permits.next().unwrap_or_else(|| panic!("{ms}: {backend} takes nothing"));
        drop(permits);
        let report = AttemptReport { outcome, first_token: None, tokens_used: None };
        self.fleet.settle(at(ms), permit, report);
    }

    fn state(&self, ms: u64, want: &Want, backend: u32) -> RowState {
        self.fleet.state_for(at(ms), &self.view, want, backend).0
    }

    fn is_ready(&self, ms: u64, want: &Want, backend: u32) -> bool {
        self.state(ms, want, backend) == RowState::Ready
    }
}

fn scoped(kind: Kind, scope: Scope) -> Outcome {
    Outcome { scope, ..Outcome::new(kind, "") }
}

#[test]
fn a_refusal_holds_back_the_part_it_is_about_and_no_other() {
    let files = Endpoint::new(Operation::Other, &Method::GET, "/v1/files");
    for (scope, same_model, other_model, other_endpoint) in [
        (Scope::Request, true, true, true),
        (Scope::RequestHere, true, true, true),
        (Scope::Headers, true, true, true),
        (Scope::AnswerSize, true, true, true),
        (Scope::Model, false, true, false),
        (Scope::Operation, false, false, true),
        (Scope::Backend, false, false, false),
    ] {
        for kind in [Kind::Unauthorised, Kind::OutOfCredit] {
            let mut s = Story::new();
            let culprit = s.want(1, "m");
            s.attempt(0, &culprit, 0, &scoped(kind, scope));
            let elsewhere = |endpoint: &Endpoint| {
                let mut want = s.want(3, "m");
                want.origin.endpoint = endpoint.clone();
                want
            };
            assert_eq!(s.is_ready(2, &s.want(3, "m"), 0), same_model, "{kind:?} {scope:?}: the same model");
            assert_eq!(s.is_ready(2, &s.want(3, "n"), 0), other_model, "{kind:?} {scope:?}: another model");
            assert_eq!(s.is_ready(2, &elsewhere(&files), 0), other_endpoint, "{kind:?} {scope:?}: another operation");
            assert!(s.is_ready(2, &s.want(3, "m"), 1), "the other backend has nothing to do with it");
            assert!(!s.is_ready(2, &culprit, 0), "{kind:?} {scope:?}: the request itself is not sent there again");
        }
    }
}

#[test]
fn the_same_request_failing_alike_at_two_backends_is_to_blame_itself() {
    for (kind, status) in [
        (Kind::ServerError, 500),
        (Kind::TimedOut, 0),
        (Kind::Cut, 200),
        (Kind::Malformed, 200),
        (Kind::Reset, 0),
        (Kind::Unauthorised, 401),
        (Kind::OutOfCredit, 402),
    ] {
        let mut s = Story::new();
        let (poison, other) = (s.want(1, "m"), s.want(2, "m"));
        let failed = Outcome { status: Some(status).filter(|s| *s > 0), ..Outcome::new(kind, "") };
        s.attempt(0, &poison, 0, &failed);
        assert!(!s.is_ready(1, &other, 0), "{kind:?}: it may be the backend");
        s.attempt(2, &poison, 1, &failed);
        assert!(s.fleet.is_blamed(at(3), 1) && !s.fleet.is_blamed(at(3), 2));
        for backend in [0, 1] {
            assert!(s.is_ready(3, &other, backend), "{kind:?} at {backend}: undone");
            assert!(!s.is_ready(3, &poison, backend), "{kind:?} at {backend}: its own way is closed");
        }
        // The client sends it again and again.
        for ms in [40_000, 130_000, 290_000] {
            for backend in [0, 1] {
                s.attempt(ms, &poison, backend, &failed);
                assert!(s.is_ready(ms, &other, backend), "{kind:?} at {ms}");
            }
        }
    }
}

#[test]
fn an_outage_is_no_requests_fault() {
    let mut s = Story::new();
    let failed = Outcome { status: Some(500), ..Outcome::new(Kind::ServerError, "") };
    for request in [1, 2] {
        let want = s.want(request, "m");
        for backend in [0, 1] {
            s.attempt(0, &want, backend, &failed);
        }
    }
    let other = s.want(3, "m");
    assert!([0, 1].into_iter().all(|backend| !s.is_ready(1, &other, backend)), "nobody was answered");
}

#[test]
fn a_refused_key_is_confirmed_by_another_request_or_not_at_all() {
    let refused = Outcome { status: Some(401), ..Outcome::new(Kind::Unauthorised, "") };
    let mut s = Story::new();
    let (first, second, third) = (s.want(1, "m"), s.want(2, "m"), s.want(3, "m"));
    s.attempt(0, &first, 0, &refused);
    assert!(!s.is_ready(1, &third, 0) && s.state(1_300, &third, 0) == RowState::Ready, "a second or so");
    s.attempt(1_300, &second, 0, &Outcome::answered(200));
    assert!(s.is_ready(1_301, &third, 0), "another request has shown that the key is well");
    s.attempt(1_400, &first, 1, &refused);
    s.attempt(3_000, &second, 1, &refused);
    assert!(!s.is_ready(600_000, &third, 1), "two different ones: minutes");
}

#[test]
fn what_is_too_large_goes_elsewhere_and_smaller_ones_are_served() {
    let mut s = Story::new();
    let sized = |s: &Story, request, prompt_tokens| {
        let mut want = s.want(request, "m");
        want.origin.size = Size { body_bytes: prompt_tokens * 4, prompt_tokens, answer_tokens: 0 };
        want
    };
    let (large, larger, small) = (sized(&s, 1, 50_000), sized(&s, 2, 60_000), sized(&s, 3, 1_000));
    s.attempt(0, &large, 0, &scoped(Kind::TooLong, Scope::PromptSize));
    let picks = |s: &mut Story, want: &Want| {
        let mut seen = [false; 2];
        for _ in 0..50 {
            let permit = s.fleet.acquire(at(10), &s.view, want, Lane::Primary, None).expect("one is ready");
            seen[permit.backend as usize] = true;
            s.fleet.refund(permit);
        }
        seen
    };
    assert_eq!(picks(&mut s, &larger), [false, true]);
    assert_eq!(picks(&mut s, &small), [true, true]);
    let unsuited = |s: &Story, want: &Want| s.fleet.rows(at(10), &s.view, want, None)[0].is(RowState::Unsuited);
    assert!(unsuited(&s, &larger) && !unsuited(&s, &small));
    s.fleet.set_drained(at(11), "b", true);
    assert!(!unsuited(&s, &larger), "where nobody else is, it may be tried");
    s.attempt(700_000, &larger, 0, &Outcome::answered(200));
    s.fleet.set_drained(at(700_001), "b", false);
    assert!(!unsuited(&s, &large));
}

#[test]
fn who_waits_with_a_cooldown_of_its_own_keeps_nobody_waiting() {
    let mut s = Story::new();
    s.fleet.set_drained(at(0), "b", true);
    let (poison, other) = (s.want(1, "m"), s.want(2, "m"));
    for ms in [0, 600, 2_000] {
        s.attempt(ms, &poison, 0, &Outcome::new(Kind::ServerError, ""));
    }
    let first = s.fleet.join(&s.view, &poison, Lane::Primary).expect("there is room");
    let second = s.fleet.join(&s.view, &other, Lane::Primary).expect("there is room");
    let (served, again) = s.fleet.serve_queue(at(2_700));
    assert_eq!(served.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [second], "the other is the probe");
    for (_, permit) in served {
        let report = AttemptReport { outcome: &Outcome::answered(200), first_token: None, tokens_used: None };
        s.fleet.settle(at(2_800), permit, report);
    }
    let (served, _) = s.fleet.serve_queue(again.unwrap_or(at(0)).max(at(4_100)));
    assert_eq!(served.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [first], "its own time has come");
    served.into_iter().for_each(|(_, permit)| s.fleet.refund(permit));
}

/// An exchange whose attempts at both backends end so, and then the policy has nothing left to try.
fn exhausted(ends: [Outcome; 2]) -> Action {
    let mut s = Story::new();
    let facts = Facts {
        operation: Operation::Chat,
        streaming: false,
        priority: 0,
        prompt_tokens: 10,
        max_tokens: 0,
        client: u32::MAX,
        session: 0,
        translatable: false,
        idempotent: true,
    };
    let streams = StreamDefaults { commit: Commit::FirstContent, resume: Resume::None };
    let mut exchange = Exchange::new(at(0), s.view.clone(), &"m".into(), facts, Budgets::default(), streams);
    exchange.step(&mut s.fleet, at(0), Event::Arrived);
    for (backend, outcome) in (0..).zip(ends) {
        let dispatch = Dispatch { backend: Some(backend), ..Dispatch::default() };
        exchange.step(&mut s.fleet, at(1), Event::Decided(Decision::Primary(dispatch)));
        exchange.step(&mut s.fleet, at(2), Event::Ended(Ended::failed(outcome)));
    }
    exchange.step(&mut s.fleet, at(3), Event::Decided(Decision::Reject(Rejection::default())))
}

#[test]
fn a_request_that_is_to_blame_is_told_what_the_providers_say() {
    let failed = |kind, status| Outcome { status: Some(status), ..Outcome::new(kind, "") };
    let too_much = || Outcome { scope: Scope::AnswerSize, ..failed(Kind::OutOfCredit, 402) };
    for (ends, is_passed_on) in [
        ([failed(Kind::ServerError, 500), failed(Kind::ServerError, 500)], true),
        ([too_much(), too_much()], true),
        ([failed(Kind::ServerError, 500), failed(Kind::ServerError, 502)], false),
        ([failed(Kind::ServerError, 500), failed(Kind::RateLimited, 429)], false),
        ([Outcome::new(Kind::Cut, ""), Outcome::new(Kind::Cut, "")], false),
    ] {
        let action = exhausted(ends.clone());
        assert_eq!(matches!(action, Action::PassOn), is_passed_on, "{ends:?}: {action:?}");
    }
}

#[test]
fn a_tiny_request_that_is_refused_for_its_size_keeps_no_other_away() {
    for (kind, scope) in
        [(Kind::TooLong, Scope::PromptSize), (Kind::Refused, Scope::BodySize), (Kind::OutOfCredit, Scope::AnswerSize)]
    {
        let mut s = Story::new();
        let sized = |s: &Story, request, size| {
            let mut want = s.want(request, "m");
            want.origin.size = size;
            want
        };
        let tiny = sized(&s, 1, Size { body_bytes: 60, prompt_tokens: 5, answer_tokens: 0 });
        s.attempt(0, &tiny, 0, &scoped(kind, scope));
        for answer_tokens in [0, 900] {
            let ordinary = sized(&s, 2, Size { body_bytes: 4_000, prompt_tokens: 900, answer_tokens });
            let row = s.fleet.rows(at(10), &s.view, &ordinary, None)[0];
            assert!(row.is(RowState::Ready), "{kind:?} {scope:?}");
        }
    }
}

proptest! {
    /// Whatever one request meets at whatever backends, another one is never kept waiting for longer than 5 s (and jitter)
    /// by it, though a provider asks for an hour.
    #[test]
    fn one_request_keeps_no_other_waiting(
        steps in prop::collection::vec((0u64..4_000, 0u32..2, prop::sample::select(vec![
            (Kind::ServerError, 500), (Kind::Unauthorised, 401), (Kind::OutOfCredit, 402), (Kind::Cut, 200),
            (Kind::Malformed, 200), (Kind::TimedOut, 0), (Kind::Reset, 0), (Kind::TooLong, 429), (Kind::Refused, 403),
        ])), 1..40),
    ) {
        let mut s = Story::new();
        let (poison, other) = (s.want(1, "m"), s.want(2, "m"));
        let mut now = 0;
        for (gap, backend, (kind, status)) in steps {
            now += gap;
            let retry_after = (status % 2 == 0).then_some(Duration::from_secs(3_600));
            let status = Some(status).filter(|s| *s > 0);
            let outcome = Outcome { status, retry_after, ..Outcome::new(kind, "") };
            let Ok(permit) = s.fleet.acquire(at(now), &s.view, &poison, Lane::Primary, Some(backend)) else { continue };
            let report = AttemptReport { outcome: &outcome, first_token: None, tokens_used: None };
            s.fleet.settle(at(now), permit, report);
            let soonest = s.fleet.earliest_ready(at(now), &s.view, &other, Lane::Primary);
            prop_assert!(soonest.is_some_and(|wait| wait <= Duration::from_secs(6)), "{soonest:?} after {kind:?}");
        }
    }
}
