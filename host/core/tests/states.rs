//! State of backends as operators see it: cooldowns where they belong, and each change of state once.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Operation, RowState};
use pointsman_core::fleet::state_change::{Change, MAX_REPORTS, REPORT_WINDOW, StateChange};
use pointsman_core::fleet::{AttemptReport, Fleet, MAX_MODEL_COOLDOWNS, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::table::{Backend, Lane, Pattern, Route, Table};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

/// A fleet of one backend `a`.
struct Story {
    fleet: Fleet,
    view: Arc<View>,
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

impl Story {
    fn new() -> Self {
        Self::with_routes(&[])
    }

    /// A fleet of one backend with these routes: model asked for, model sent.
    fn with_routes(routes: &[(&str, &str)]) -> Self {
        let route = |(asked, sent): &(&str, &str)| Route {
            asked: Pattern::parse(asked).expect("a pattern"),
            sent: (*sent).to_owned(),
        };
        let mut fleet = Fleet::new(Settings::default(), 7);
        let backend = Backend { routes: routes.iter().map(route).collect(), ..Backend::new("a") };
        let view = fleet.adopt(Arc::new(Table::new(vec![backend], Vec::new())), Settings::default());
        Self { fleet, view }
    }

    /// An attempt for a model that is sent and ends at `ms`.
    fn attempt(&mut self, ms: u64, model: &str, kind: Kind, retry_after_ms: Option<u64>) {
        let want = self.view.want(&model.into(), Operation::Chat, 1);
        let permit = self.fleet.acquire(at(ms), &self.view, &want, Lane::Primary, Some(0)).expect("it is ready");
        let outcome = Outcome { retry_after: retry_after_ms.map(Duration::from_millis), ..Outcome::new(kind, "") };
        let report = AttemptReport { outcome: &outcome, first_token: None, tokens_used: None };
        self.fleet.settle(at(ms + 1), permit, report);
    }

    fn changes(&mut self, ms: u64) -> Vec<StateChange> {
        self.fleet.take_changes(at(ms))
    }

    fn words(&mut self, ms: u64) -> Vec<(Option<String>, &'static str)> {
        let word = |c: StateChange| (c.model.map(|m| m.to_string()), c.change.as_str());
        self.changes(ms).into_iter().map(word).collect()
    }
}

#[test]
fn a_cooldown_of_a_model_is_not_the_backends() {
    let mut s = Story::new();
    s.attempt(0, "unknown-1", Kind::ModelMissing, None);
    s.attempt(1, "unknown-2", Kind::RateLimited, Some(3_000));
    let o = &s.fleet.overview(at(2), &s.view)[0];
    assert_eq!((o.state, o.cooldown, o.failures), (RowState::Ready, None, 0));
    let listed: Vec<_> = o.model_cooldowns.iter().map(|m| (&*m.model, m.reason, m.failures)).collect();
    assert_eq!(listed, [("unknown-1", Kind::ModelMissing, 1), ("unknown-2", Kind::RateLimited, 1)], "latest end first");
    let want = |model: &str| s.view.want(&model.into(), Operation::Chat, 1);
    assert_eq!(s.fleet.state_for(at(2), &s.view, &want("m"), 0), (RowState::Ready, None));
    let (state, cooldown) = s.fleet.state_for(at(2), &s.view, &want("unknown-1"), 0);
    assert_eq!((state, cooldown.map(|(_, reason)| reason)), (RowState::Cooling, Some(Kind::ModelMissing)));
}

#[test]
fn names_that_are_sent_as_one_model_cool_as_one_and_the_name_sent_is_told() {
    let mut s = Story::with_routes(&[("big", "p/big"), ("*", "p/small")]);
    s.attempt(0, "one", Kind::ModelMissing, None);
    let state = |s: &Story, model: &str| {
        let want = s.view.want(&model.into(), Operation::Chat, 1);
        s.fleet.state_for(at(2), &s.view, &want, 0).0
    };
    assert_eq!(state(&s, "another"), RowState::Cooling, "it is sent as the same model");
    assert_eq!(state(&s, "big"), RowState::Ready);
    assert_eq!(s.words(2), [(Some("p/small".to_owned()), "excluded")]);
    assert_eq!(&*s.fleet.overview(at(2), &s.view)[0].model_cooldowns[0].model, "p/small");
    assert_eq!(s.fleet.cooldowns(at(2))[0].model.as_deref(), Some("p/small"));
    let mut after = Story::with_routes(&[("big", "p/big"), ("*", "p/small")]);
    after.fleet.restore(at(10), &s.fleet.cooldowns(at(10)));
    assert_eq!((state(&after, "one"), state(&after, "big")), (RowState::Cooling, RowState::Ready), "over a restart");
}

#[test]
fn names_that_clients_invent_do_not_count_as_errors_of_the_backend() {
    let mut s = Story::new();
    for i in 0..20 {
        s.attempt(i, &format!("invented-{i}"), Kind::ModelMissing, None);
    }
    assert_eq!(s.fleet.overview(at(30), &s.view)[0].stats.errors, 0.0);
    s.attempt(40, "m", Kind::RateLimited, None);
    assert!(s.fleet.overview(at(50), &s.view)[0].stats.errors > 0.0);
}

#[test]
fn a_backends_own_cooldown_is_told_as_its_own() {
    let mut s = Story::new();
    s.attempt(0, "m", Kind::RateLimited, Some(60_000));
    s.attempt(1, "n", Kind::ConnectFailed, None);
    let o = &s.fleet.overview(at(2), &s.view)[0];
    assert_eq!((o.state, o.cooldown.map(|(_, reason)| reason)), (RowState::Cooling, Some(Kind::ConnectFailed)));
    assert_eq!((o.models_cooling, o.failures), (1, 1));
}

#[test]
fn the_list_of_cooling_models_is_bounded_and_their_number_is_told() {
    let mut s = Story::new();
    for i in 0..100 {
        s.attempt(i, &format!("invented-{i}"), Kind::ModelMissing, Some(10_000 + i * 1_000));
    }
    let o = &s.fleet.overview(at(200), &s.view)[0];
    assert_eq!((o.models_cooling, o.model_cooldowns.len()), (100, MAX_MODEL_COOLDOWNS));
    assert_eq!(&*o.model_cooldowns[0].model, "invented-99");
}

#[test]
fn a_short_cooldown_is_not_reported_and_a_long_one_is_once() {
    let mut s = Story::new();
    s.attempt(0, "m", Kind::RateLimited, Some(2_000));
    s.attempt(2_100, "m", Kind::Answered, None);
    assert_eq!(s.words(2_200), [], "the daily life of a rate-limited key");
    s.attempt(3_000, "m", Kind::RateLimited, Some(30_000));
    s.attempt(33_100, "m", Kind::RateLimited, Some(30_000));
    let changes = s.changes(33_200);
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!((&*changes[0].backend, changes[0].model.as_deref()), ("a", Some("m")));
    assert_eq!(changes[0].change.cooldown(), Some((at(33_001), Kind::RateLimited)));
    s.attempt(64_000, "m", Kind::Answered, None);
    let back = Change::Back { after: Duration::from_millis(61_000) };
    assert_eq!(s.changes(64_002).iter().map(|c| c.change).collect::<Vec<_>>(), [back]);
    s.attempt(64_100, "m", Kind::Answered, None);
    assert_eq!(s.words(64_200), [], "once");
}

#[test]
fn failures_that_each_cool_shortly_are_reported_when_they_last() {
    let mut s = Story::new();
    for ms in [0, 1_200, 2_400, 4_000] {
        s.attempt(ms, "m", Kind::ServerError, Some(1_100));
        assert_eq!(s.words(ms + 1).len(), usize::from(ms == 4_000), "5 s without an answer, at {ms}");
    }
}

#[test]
fn an_exclusion_is_reported_at_once_and_after_a_cooldown_again() {
    let mut s = Story::new();
    s.attempt(0, "m", Kind::ConnectFailed, Some(10_000));
    s.attempt(10_100, "m", Kind::Unauthorised, None);
    assert_eq!(s.words(10_200), [(None, "cooling"), (None, "excluded")]);
    s.fleet.forget_key_faults(at(10_300), "a");
    assert_eq!(s.words(10_300), [(None, "cleared")]);
    s.attempt(10_400, "m", Kind::Unauthorised, None);
    assert_eq!(s.words(10_500), [(None, "excluded")], "the new key is refused too");
    s.attempt(10_000_000, "unknown", Kind::ModelMissing, None);
    assert_eq!(s.words(10_000_002), [(Some("unknown".to_owned()), "excluded")]);
}

#[test]
fn a_drain_is_reported_when_it_changes_something() {
    let mut s = Story::new();
    for drained in [false, true, true, false] {
        assert!(s.fleet.set_drained(at(0), "a", drained));
    }
    assert_eq!(s.words(1), [(None, "drained"), (None, "resumed")]);
    s.fleet.clear_cooldown(at(1), "a");
    assert_eq!(s.words(1), [], "there was none");
}

#[test]
fn what_is_in_force_after_a_restart_is_reported() {
    let mut before = Story::new();
    before.attempt(0, "m", Kind::RateLimited, Some(60_000));
    before.attempt(1, "n", Kind::RateLimited, Some(1_000));
    let mut after = Story::new();
    after.fleet.restore(at(10), &before.fleet.cooldowns(at(10)));
    assert_eq!(after.words(10), [(Some("m".to_owned()), "cooling")]);
}

#[test]
fn a_flapping_backend_is_reported_so_often_a_minute() {
    let mut s = Story::new();
    for i in 0..50 {
        s.fleet.set_drained(at(i), "a", i.is_multiple_of(2));
    }
    assert_eq!(s.changes(50).len(), MAX_REPORTS as usize);
    let window = REPORT_WINDOW.as_millis() as u64;
    let last = s.changes(window + 1);
    assert_eq!(last.iter().map(|c| (c.change, c.left_out)).collect::<Vec<_>>(), [(Change::Resumed, 43)]);
}

#[test]
fn changes_that_nobody_takes_are_bounded() {
    let mut s = Story::new();
    for i in 0..10_000 {
        s.fleet.set_drained(at(i * 30_000), "a", i.is_multiple_of(2));
    }
    assert_eq!(s.changes(0).len(), 256);
}

#[test]
fn only_drained_and_excluded_backends_do_not_serve() {
    let mut s = Story::new();
    let serving = |s: &Story, ms| s.fleet.serving_counts(at(ms), &s.view).serving();
    s.attempt(0, "m", Kind::ModelMissing, None);
    s.attempt(1, "n", Kind::ConnectFailed, Some(10_000));
    assert_eq!(serving(&s, 2), 1, "it comes back by itself");
    s.attempt(10_100, "n", Kind::OutOfCredit, Some(20_000));
    let counts = s.fleet.serving_counts(at(10_200), &s.view);
    assert_eq!((counts.configured, counts.drained, counts.excluded, counts.serving()), (1, 0, 1, 0));
    assert_eq!(serving(&s, 31_000), 1, "a probe is due");
    s.fleet.set_drained(at(31_000), "a", true);
    assert_eq!(serving(&s, 31_000), 0);
}

#[test]
fn a_drain_is_kept_as_long_as_its_backend_is_configured() {
    let mut s = Story::new();
    assert!(s.fleet.drained().is_empty());
    s.fleet.set_drained(at(0), "a", true);
    assert_eq!(s.fleet.drained(), ["a".into()]);
    let others = Arc::new(Table::new(Vec::new(), Vec::new()));
    s.view = s.fleet.adopt(others, Settings::default());
    assert!(s.fleet.drained().is_empty(), "it is gone");
}
