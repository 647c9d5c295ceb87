//! The fleet: who is served when, told as short stories.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{BackendRow, Column, NONE, Operation, RowState};
use pointsman_core::fleet::{AttemptReport, Fleet, InitialState, Permit, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::random::seed_of_first;
use pointsman_core::rank::Rank;
use pointsman_core::table::{Backend, Dialect, Lane, Limits, Pattern, Route, Table, Tier};
use pointsman_core::time::Timestamp;
use pointsman_core::view::{View, Want};

fn backend(id: &str, tier: Tier, limits: Limits) -> Backend {
    Backend { tier, limits, ..Backend::new(id) }
}

fn fleet(backends: Vec<Backend>) -> (Fleet, Arc<View>, Want) {
    let mut fleet = Fleet::new(Settings::default(), 7);
    let view = fleet.adopt(Arc::new(Table::new(backends, Vec::new())), Settings::default());
    let want = view.want(&"m".into(), Operation::Chat, 100);
    (fleet, view, want)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn end(fleet: &mut Fleet, ms: u64, permit: Permit, kind: Kind, retry_after_ms: Option<u64>) {
    let outcome = Outcome { retry_after: retry_after_ms.map(Duration::from_millis), ..Outcome::new(kind, "") };
    fleet.settle(at(ms), permit, AttemptReport { outcome: &outcome, first_token: None, tokens_used: None });
}

fn one_slot() -> Limits {
    Limits { max_concurrency: Some(1), ..Limits::default() }
}

#[test]
fn waiters_are_served_in_order_as_slots_come_free() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, one_slot())]);
    let first = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    let tickets: Vec<_> = (0..3).map(|_| fleet.join(&view, &want, Lane::Primary).unwrap()).collect();
    let urgent = Want { rank: Rank::newcomer(5), ..want.clone() };
    let urgent = fleet.join(&view, &urgent, Lane::Primary).unwrap();
    assert!(fleet.serve_queue(at(1)).0.is_empty());
    end(&mut fleet, 2, first, Kind::Answered, None);
    let mut order = Vec::new();
    for ms in 3..7 {
        let (mut served, _) = fleet.serve_queue(at(ms));
        assert_eq!(served.len(), 1, "one slot, one waiter");
        let (ticket, permit) = served.pop().unwrap();
        order.push(ticket);
        end(&mut fleet, ms, permit, Kind::Answered, None);
    }
    assert_eq!(order, [urgent, tickets[0], tickets[1], tickets[2]]);
}

#[test]
fn after_a_cooldown_one_waiter_probes_and_the_others_follow_its_success() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 10, p, Kind::RateLimited, Some(2_000));
    for _ in 0..5 {
        fleet.join(&view, &want, Lane::Primary).unwrap();
    }
    let (served, look_again) = fleet.serve_queue(at(20));
    assert!(served.is_empty());
    assert_eq!(look_again, Some(at(2_010)), "the line is looked at again when the cooldown ends");
    let (mut served, look_again) = fleet.serve_queue(at(2_010));
    assert_eq!(served.len(), 1, "a single probe");
    assert_eq!(look_again, None, "only the probe's return can bring more");
    let (_, probe) = served.pop().unwrap();
    assert!(probe.is_probe());
    end(&mut fleet, 2_100, probe, Kind::Answered, None);
    assert_eq!(fleet.serve_queue(at(2_100)).0.len(), 2, "the ramp begins with two");
}

#[test]
fn a_failed_probe_holds_the_line_longer() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::RateLimited, None);
    fleet.join(&view, &want, Lane::Primary).unwrap();
    let (_, Some(again)) = fleet.serve_queue(at(1)) else { panic!("a cooldown has an end") };
    let (mut served, _) = fleet.serve_queue(again);
    end(&mut fleet, 1_300, served.pop().unwrap().1, Kind::RateLimited, None);
    let soonest = fleet.earliest_ready(at(1_300), &view, &want, Lane::Primary).unwrap();
    assert!(soonest >= Duration::from_secs(2), "{soonest:?}");
}

#[test]
fn a_failed_probe_has_the_line_looked_at_anew() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::RateLimited, Some(1_000));
    fleet.join(&view, &want, Lane::Primary).unwrap();
    fleet.join(&view, &want, Lane::Primary).unwrap();
    let (mut served, again) = fleet.serve_queue(at(1_000));
    assert_eq!((served.len(), again), (1, None), "while it is probed only its return tells");
    end(&mut fleet, 1_100, served.pop().unwrap().1, Kind::RateLimited, Some(3_000));
    let (served, again) = fleet.serve_queue(at(1_100));
    assert_eq!((served.len(), again), (0, Some(at(4_100))));
    let (served, _) = fleet.serve_queue(at(4_100));
    assert_eq!(served.len(), 1, "the next one probes");
    served.into_iter().for_each(|(_, p)| fleet.refund(p));
}

#[test]
fn whoever_holds_a_grant_sees_its_backend_ready_and_others_see_the_probe() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, one_slot())]);
    let held = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    let state = |rows: Vec<BackendRow>| rows[0].number(Column::State);
    assert_eq!(state(fleet.rows(at(0), &view, &want, Some(&held))), RowState::Ready as u32);
    assert_eq!(state(fleet.rows(at(0), &view, &want, None)), RowState::Throttled as u32);
    fleet.refund(held);
    assert_eq!(state(fleet.rows(at(0), &view, &want, None)), RowState::Ready as u32);
}

#[test]
fn a_rate_limit_cools_the_model_a_bad_key_the_backend() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let other = view.want(&"other".into(), Operation::Chat, 100);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::RateLimited, Some(5_000));
    assert!(fleet.acquire(at(1), &view, &want, Lane::Primary, None).is_err());
    let p = fleet.acquire(at(1), &view, &other, Lane::Primary, None).unwrap();
    end(&mut fleet, 1, p, Kind::Unauthorised, None);
    let denied = fleet.acquire(at(2), &view, &other, Lane::Primary, None).unwrap_err();
    assert_eq!(denied.state, RowState::Cooling);
    let rows = fleet.rows(at(2), &view, &other, None);
    assert_eq!(rows[0].number(Column::CooldownReason), Kind::Unauthorised.index());
    assert_eq!(rows[0].number(Column::EmergencyMs), NONE, "not even the emergency lane uses a refused key");
}

#[test]
fn a_refused_key_is_not_hidden_by_a_models_cooldown() {
    for asked_ms in [1_000, 3_000_000] {
        let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
        let [first, second, busy] = [(); 3].map(|()| fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap());
        for key in [first, second] {
            end(&mut fleet, 1, key, Kind::Unauthorised, None);
        }
        end(&mut fleet, 2, busy, Kind::RateLimited, Some(asked_ms));
        let rows = fleet.rows(at(3), &view, &want, None);
        assert!(rows[0].number(Column::CooldownMs) >= 899_000, "the longer of the two: {rows:?}");
        assert_eq!(rows[0].number(Column::EmergencyMs), NONE);
        assert!(fleet.acquire(at(3), &view, &want, Lane::Emergency, None).is_err());
    }
}

#[test]
fn all_that_is_left_of_a_minute_goes_at_once_and_no_more() {
    let limits = Limits { rpm: Some(20), ..Limits::default() };
    let (mut fleet, view, want) = fleet(["a", "b", "c"].map(|id| backend(id, Tier::Primary, limits)).into());
    let left = |fleet: &Fleet, ms| -> Vec<_> {
        let rows = fleet.rows(at(ms), &view, &want, None);
        rows.iter().map(|row| row.number(Column::RequestsLeft)).collect()
    };
    assert_eq!(left(&fleet, 0), [20; 3]);
    for _ in 0..60 {
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        end(&mut fleet, 0, p, Kind::Answered, None);
    }
    assert_eq!(left(&fleet, 0), [0; 3]);
    assert!(fleet.acquire(at(60_000), &view, &want, Lane::Primary, None).is_err());
    let soonest = fleet.earliest_ready(at(0), &view, &want, Lane::Primary).unwrap();
    assert_eq!(soonest, Duration::from_millis(60_500), "a minute, and half a second for what may arrive late");
    assert_eq!(left(&fleet, 60_500), [20; 3]);
}

#[test]
fn with_a_burst_the_rest_is_spaced() {
    let limits = Limits { rpm: Some(20), burst: Some(2), ..Limits::default() };
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, limits)]);
    for n in 0..6 {
        let p = fleet.acquire(at(n / 2 * 6_050), &view, &want, Lane::Primary, None).unwrap();
        end(&mut fleet, n / 2 * 6_050, p, Kind::Answered, None);
    }
    assert_eq!(fleet.earliest_ready(at(12_100), &view, &want, Lane::Primary), Some(Duration::from_millis(3_025)));
    assert_eq!(fleet.overview(at(15_125), &view)[0].requests_left, Some(1));
}

#[test]
fn a_new_limit_keeps_what_is_used() {
    let table = |rpm, tpm| {
        let limits = Limits { rpm: Some(rpm), tpm: Some(tpm), ..Limits::default() };
        Arc::new(Table::new(vec![backend("a", Tier::Primary, limits)], Vec::new()))
    };
    let mut fleet = Fleet::new(Settings::default(), 7);
    let view = fleet.adopt(table(10, 1_000), Settings::default());
    let want = view.want(&"m".into(), Operation::Chat, 100);
    for _ in 0..4 {
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        end(&mut fleet, 1, p, Kind::Answered, None);
    }
    for ((rpm, tpm), expected) in [((20, 500), (16, 100)), ((3, 50), (0, 0)), ((10, 1_000), (6, 600))] {
        let view = fleet.adopt(table(rpm, tpm), Settings::default());
        let found = &fleet.overview(at(2), &view)[0];
        assert_eq!((found.requests_left, found.tokens_left), (Some(expected.0), Some(expected.1)));
    }
}

/// All four at once would be tried at a backend that fails, at the very moment at which it fails; spaced, one of them is
/// there when it is well again.
#[test]
fn the_emergency_lane_uses_a_cooling_backend_at_its_own_small_rate() {
    let limits = Limits { rpm: Some(40), ..Limits::default() };
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, limits)]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::TimedOut, None);
    assert!(fleet.acquire(at(999), &view, &want, Lane::Emergency, None).is_err(), "not right after the failure");
    let p = fleet.acquire(at(1_000), &view, &want, Lane::Emergency, None).unwrap();
    end(&mut fleet, 1_001, p, Kind::TimedOut, None);
    assert!(fleet.acquire(at(2_002), &view, &want, Lane::Emergency, None).is_err());
    let next = fleet.earliest_ready(at(1_003), &view, &want, Lane::Emergency).unwrap();
    assert!(next > Duration::from_secs(14) && next <= Duration::from_secs(15), "4 a minute: {next:?}");
}

#[test]
fn the_emergency_lane_keeps_a_retry_after() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::RateLimited, Some(20_000));
    let soonest = fleet.earliest_ready(at(5_000), &view, &want, Lane::Emergency);
    assert_eq!(soonest, Some(Duration::from_secs(15)));
    assert!(fleet.acquire(at(19_999), &view, &want, Lane::Emergency, None).is_err());
    let p = fleet.acquire(at(20_000), &view, &want, Lane::Emergency, None).unwrap();
    fleet.refund(p);
}

#[test]
fn the_emergency_lane_keeps_the_backends_own_limits() {
    let limits = Limits { rpm: Some(1), tpm: Some(150), ..Limits::default() };
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, limits)]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 1, p, Kind::ServerError, None);
    assert!(fleet.acquire(at(2), &view, &want, Lane::Emergency, None).is_err(), "one a minute is one a minute");
    let soonest = fleet.earliest_ready(at(500), &view, &want, Lane::Emergency);
    assert_eq!(soonest, Some(Duration::from_secs(60)));
    let p = fleet.acquire(at(60_500), &view, &want, Lane::Emergency, None).unwrap();
    fleet.refund(p);
}

#[test]
fn a_new_configuration_keeps_the_state_of_the_backends_that_stay() {
    let (mut fleet, old, want) =
        fleet(vec![backend("a", Tier::Primary, one_slot()), backend("gone", Tier::Primary, Limits::default())]);
    let on_a = fleet.acquire(at(0), &old, &want, Lane::Primary, Some(0)).unwrap();
    let on_gone = fleet.acquire(at(0), &old, &want, Lane::Primary, Some(1)).unwrap();
    let table = vec![backend("new", Tier::Primary, one_slot()), backend("a", Tier::Primary, one_slot())];
    let new = fleet.adopt(Arc::new(Table::new(table, Vec::new())), Settings::default());
    let want = new.want(&"m".into(), Operation::Chat, 100);
    assert!(fleet.acquire(at(1), &new, &want, Lane::Primary, Some(1)).is_err(), "a's slot is still taken");
    end(&mut fleet, 2, on_a, Kind::Answered, None);
    end(&mut fleet, 2, on_gone, Kind::Answered, None);
    let p = fleet.acquire(at(3), &new, &want, Lane::Primary, Some(1)).unwrap();
    fleet.refund(p);
    drop(old);
    fleet.adopt(new.table.clone(), Settings::default());
    assert_eq!(fleet.overview(at(4), &new).len(), 2);
}

#[test]
fn cooldowns_survive_a_restart() {
    let (mut fleet_before, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet_before.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet_before, 0, p, Kind::RateLimited, Some(60_000));
    let kept = fleet_before.cooldowns(at(10));
    let (mut after, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    after.restore(at(20), &kept);
    let rows = after.rows(at(20), &view, &want, None);
    assert_eq!(rows[0].number(Column::CooldownMs), 59_980);
    assert!(after.acquire(at(59_999), &view, &want, Lane::Primary, None).is_err());
    assert!(after.acquire(at(60_000), &view, &want, Lane::Primary, None).unwrap().is_probe());
}

#[test]
fn a_backend_is_asked_only_for_what_it_serves() {
    let mut named = backend("named", Tier::Primary, Limits::default());
    named.routes = vec![Route { asked: Pattern::parse("llama").unwrap(), sent: "meta/llama".into() }];
    let mut anthropic = backend("anthropic", Tier::Fallback, Limits::default());
    anthropic.dialect = Dialect::ANTHROPIC;
    let (fleet, view, _) = fleet(vec![named, anthropic]);
    let candidates = |model: &str, op| view.want(&model.into(), op, 1).candidates.to_vec();
    assert_eq!(candidates("llama", Operation::Chat), [0]);
    assert_eq!(candidates("gpt", Operation::Chat), [] as [u32; 0]);
    assert_eq!(candidates("claude", Operation::Message), [1]);
    assert_eq!(candidates("unknown", Operation::Other), [0]);
    assert_eq!(candidates("unknown", Operation::AnthropicOther), [1]);
    assert_eq!(candidates("unknown", Operation::Plain), [] as [u32; 0]);
    let want = view.want(&"claude".into(), Operation::Message, 1);
    let rows = fleet.rows(at(0), &view, &want, None);
    assert_eq!(rows[0].number(Column::State), RowState::Unsuited as u32);
    assert_eq!(rows[1].number(Column::State), RowState::Ready as u32);
}

#[test]
fn a_backend_of_the_other_dialect_is_asked_by_name_and_after_the_native_ones() {
    let named = |id: &str, dialect, asked: &[&str]| {
        // A star sends what is asked.
        let sent = |asked: &str| if asked == "*" { "*".to_owned() } else { "x".to_owned() };
        let route = |asked: &&str| Route { asked: Pattern::parse(asked).unwrap(), sent: sent(asked) };
        Backend { dialect, routes: asked.iter().map(route).collect(), ..backend(id, Tier::Primary, one_slot()) }
    };
    let (mut fleet, view, _) = fleet(vec![
        named("claude", Dialect::ANTHROPIC, &["m", "claude-*", "*"]),
        named("gpt", Dialect::OPENAI, &["m", "*"]),
        named("plain", Dialect::PLAIN, &["m"]),
    ]);
    let across = |model: &str, op| {
        let want = view.want_across(&model.into(), op, 1);
        (want.candidates.to_vec(), want.foreign.to_vec())
    };
    assert_eq!(across("m", Operation::Chat), (vec![0, 1, 2], vec![0]));
    assert_eq!(across("m", Operation::Message), (vec![0, 1, 2], vec![1]));
    assert_eq!(across("claude-x", Operation::Chat), (vec![0, 1], vec![0]));
    assert_eq!(across("claude-x", Operation::Message), (vec![0], vec![]), "a star asks for nothing by name");
    for operation in [Operation::Completion, Operation::Response, Operation::Embedding, Operation::Other] {
        assert_eq!(across("m", operation).1, [] as [u32; 0]);
    }
    assert_eq!(view.want(&"m".into(), Operation::Chat, 1).candidates.to_vec(), [1, 2]);

    let want = Want { candidates: [0, 1].into(), ..view.want_across(&"m".into(), Operation::Chat, 1) };
    let states = |fleet: &Fleet| {
        let rows = fleet.rows(at(0), &view, &want, None);
        [0, 1].map(|i| rows[i].number(Column::State))
    };
    let [ready, throttled, unsuited] = [RowState::Ready, RowState::Throttled, RowState::Unsuited].map(|s| s as u32);
    assert_eq!(states(&fleet), [unsuited, ready]);
    let first = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    assert_eq!(states(&fleet), [ready, throttled]);
    let second = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    assert_eq!((first.backend, second.backend), (1, 0));
    end(&mut fleet, 1, first, Kind::Answered, None);
    end(&mut fleet, 1, second, Kind::Answered, None);
}

#[test]
fn concurrent_failures_of_one_moment_cool_once() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let permits: Vec<_> = (0..10).map(|_| fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap()).collect();
    for p in permits {
        end(&mut fleet, 5, p, Kind::RateLimited, None);
    }
    let soonest = fleet.earliest_ready(at(5), &view, &want, Lane::Primary).unwrap();
    assert!(soonest <= Duration::from_millis(1_250), "{soonest:?}");
}

#[test]
fn a_second_wait_begins_where_the_first_one_ended() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, one_slot())]);
    let held = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    let first = fleet.join(&view, &want, Lane::Primary).unwrap();
    let second = fleet.join(&view, &want, Lane::Primary).unwrap();
    assert!(fleet.leave(first));
    let again = Want { rank: first.rank(), ..want.clone() };
    let queued = |fleet: &Fleet, want: &Want| fleet.rows(at(1), &view, want, None)[0].number(Column::Queued);
    assert_eq!(queued(&fleet, &again), 0, "nobody is before it");
    assert_eq!(queued(&fleet, &want), 1, "a newcomer is behind all");
    let first = fleet.join(&view, &again, Lane::Primary).unwrap();
    assert!(first < second);
    end(&mut fleet, 2, held, Kind::Answered, None);
    let (served, _) = fleet.serve_queue(at(2));
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].0, first);
}

#[test]
fn the_queue_of_one_tier_is_not_that_of_the_other() {
    let (mut fleet, view, want) =
        fleet(vec![backend("a", Tier::Primary, one_slot()), backend("b", Tier::Fallback, one_slot())]);
    for _ in 0..2 {
        fleet.join(&view, &want, Lane::Fallback).unwrap();
    }
    fleet.join(&view, &want, Lane::Emergency).unwrap();
    let rows = fleet.rows(at(0), &view, &want, None);
    assert_eq!(rows[0].number(Column::Queued), 0);
    assert_eq!(rows[1].number(Column::Queued), 2);
}

#[test]
fn a_large_request_in_line_is_not_starved_by_small_ones() {
    let limits = Limits { tpm: Some(1_000), ..Limits::default() };
    let (mut fleet, view, small) = fleet(vec![backend("a", Tier::Primary, limits)]);
    let small = Want { tokens: 100, ..small };
    let large = Want { tokens: 900, ..small.clone() };
    let p = fleet.acquire(at(0), &view, &large, Lane::Primary, None).unwrap();
    let ticket = fleet.join(&view, &large, Lane::Primary).unwrap();
    let (served, Some(again)) = fleet.serve_queue(at(1)) else { panic!("there will be room") };
    assert!(served.is_empty());
    let denied = fleet.acquire(at(1), &view, &small, Lane::Primary, Some(0)).unwrap_err();
    assert_eq!(denied.state, RowState::Throttled);
    assert_eq!(fleet.rows(at(1), &view, &small, None)[0].number(Column::State), RowState::Throttled as u32);
    let other = Want { model: "other".into(), ..small.clone() };
    let elsewhere = fleet.acquire(at(1), &view, &other, Lane::Primary, None).unwrap();
    fleet.refund(elsewhere);
    let urgent = Want { rank: Rank::newcomer(1), ..small };
    let urgent = fleet.acquire(at(1), &view, &urgent, Lane::Primary, None).unwrap();
    fleet.refund(urgent);
    let (served, _) = fleet.serve_queue(again);
    assert_eq!(served[0].0, ticket);
    served.into_iter().for_each(|(_, p)| fleet.refund(p));
    end(&mut fleet, 9, p, Kind::Answered, None);
}

#[test]
fn who_waits_for_less_choice_does_not_make_the_line_spin() {
    let limits = Limits { tpm: Some(1_000), ..Limits::default() };
    let (mut fleet, view, want) =
        fleet(vec![backend("a", Tier::Primary, limits), backend("b", Tier::Primary, one_slot())]);
    let on_a = fleet.acquire(at(0), &view, &want, Lane::Primary, Some(0)).unwrap();
    let on_b = fleet.acquire(at(0), &view, &want, Lane::Primary, Some(1)).unwrap();
    let large = Want { candidates: [0].into(), tokens: 950, ..want.clone() };
    fleet.join(&view, &large, Lane::Primary).unwrap();
    fleet.join(&view, &Want { tokens: 1, ..want }, Lane::Primary).unwrap();
    let (served, again) = fleet.serve_queue(at(1_000));
    assert!(served.is_empty(), "a is kept for the large one, b is taken");
    assert!(again.unwrap() > at(2_000), "{again:?}");
    fleet.refund(on_a);
    fleet.refund(on_b);
}

#[test]
fn whatever_may_bring_capacity_has_the_line_looked_at_again() {
    let story = |bring: fn(&mut Fleet, Arc<View>, Permit)| {
        let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, one_slot())]);
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        fleet.join(&view, &want, Lane::Primary).unwrap();
        for ms in 1..3 {
            assert!(fleet.serve_queue(at(ms)).0.is_empty());
        }
        bring(&mut fleet, view, p);
        assert_eq!(fleet.serve_queue(at(3)).0.len(), 1);
    };
    story(|fleet, _, p| fleet.refund(p));
    story(|fleet, _, p| end(fleet, 3, p, Kind::Refused, None));
    story(|fleet, _, p| {
        end(fleet, 2, p, Kind::RateLimited, Some(5_000));
        assert!(fleet.serve_queue(at(2)).0.is_empty());
        fleet.clear_cooldown(at(1), "a");
    });
    story(|fleet, _, p| {
        fleet.set_drained(at(1), "a", true);
        end(fleet, 2, p, Kind::Answered, None);
        assert!(fleet.serve_queue(at(2)).0.is_empty());
        fleet.set_drained(at(1), "a", false);
    });
    story(|fleet, view, p| {
        let more = Backend { limits: Limits::default(), ..view.backend(0).clone() };
        fleet.adopt(Arc::new(Table::new(vec![more], Vec::new())), Settings::default());
        assert!(!p.is_probe());
    });
}

#[test]
fn a_row_says_why_its_backend_is_probed() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::ServerError, Some(1_000));
    let row = |fleet: &Fleet| {
        let rows = fleet.rows(at(1_000), &view, &want, None);
        (rows[0].number(Column::State), rows[0].number(Column::CooldownReason))
    };
    assert_eq!(row(&fleet), (RowState::Ready as u32, Kind::ServerError.index()));
    let probe = fleet.acquire(at(1_000), &view, &want, Lane::Primary, None).unwrap();
    assert_eq!(row(&fleet), (RowState::Probing as u32, Kind::ServerError.index()));
    end(&mut fleet, 1_001, probe, Kind::Answered, None);
    assert_eq!(row(&fleet), (RowState::Ready as u32, Kind::Answered.index()));
}

#[test]
fn an_attempt_from_before_the_cooldown_neither_ends_it_nor_the_probe() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let take = |fleet: &mut Fleet, ms| fleet.acquire(at(ms), &view, &want, Lane::Primary, None).unwrap();
    let old: Vec<_> = (0..3).map(|_| take(&mut fleet, 0)).collect();
    let p = take(&mut fleet, 1);
    end(&mut fleet, 2, p, Kind::Reset, None);
    let mut old = old.into_iter();
    end(&mut fleet, 3, old.next().unwrap(), Kind::Answered, None);
    assert!(fleet.acquire(at(4), &view, &want, Lane::Primary, None).is_err(), "still cooling");
    let probe = take(&mut fleet, 1_000);
    assert!(probe.is_probe());
    end(&mut fleet, 1_001, old.next().unwrap(), Kind::Reset, None);
    end(&mut fleet, 1_002, old.next().unwrap(), Kind::ClientGone, None);
    assert!(fleet.acquire(at(1_003), &view, &want, Lane::Primary, None).is_err(), "the probe is still under way");
    end(&mut fleet, 1_004, probe, Kind::Answered, None);
    let p = fleet.acquire(at(1_005), &view, &want, Lane::Primary, None).unwrap();
    fleet.refund(p);
}

#[test]
fn a_granted_emergency_may_be_used() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 0, p, Kind::TimedOut, None);
    let held = fleet.acquire(at(1_000), &view, &want, Lane::Emergency, None).unwrap();
    let row = |held| {
        let rows = fleet.rows(at(1_000), &view, &want, held);
        (rows[0].number(Column::State), rows[0].number(Column::EmergencyMs))
    };
    assert_eq!(row(Some(&held)), (RowState::Cooling as u32, 0));
    assert!(row(None).1 > 0, "for others its rate is used up");
    fleet.refund(held);
}

#[test]
fn a_learned_limit_ends_with_the_cap_or_the_operator() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    let in_a_day = at(86_400_000);
    fleet.learn(&p, Some((0, in_a_day)), Some((0, in_a_day)));
    end(&mut fleet, 1, p, Kind::Answered, None);
    assert_eq!(fleet.earliest_ready(at(0), &view, &want, Lane::Primary), Some(Duration::from_secs(3_600)));
    fleet.clear_cooldown(at(1), "a");
    let p = fleet.acquire(at(2), &view, &want, Lane::Primary, None).unwrap();
    fleet.refund(p);
}

#[test]
fn who_could_not_connect_gives_its_request_back() {
    let limits = Limits { rpm: Some(10), ..Limits::default() };
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, limits)]);
    let left = |fleet: &Fleet| fleet.overview(at(1), &view)[0].requests_left;
    for (kind, expected) in [(Kind::ConnectFailed, Some(10)), (Kind::Refused, Some(9))] {
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        end(&mut fleet, 1, p, kind, None);
        assert_eq!(left(&fleet), expected, "{kind:?}");
        fleet.clear_cooldown(at(1), "a");
    }
}

#[test]
fn a_new_key_ends_what_the_old_one_earned() {
    for (kind, is_ended) in [(Kind::Unauthorised, true), (Kind::OutOfCredit, true), (Kind::RateLimited, false)] {
        let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        end(&mut fleet, 0, p, kind, Some(60_000));
        assert!(fleet.forget_key_faults(at(1), "a"));
        assert!(!fleet.forget_key_faults(at(1), "nobody"));
        let got = fleet.acquire(at(1), &view, &want, Lane::Primary, None);
        assert_eq!(got.as_ref().is_ok_and(Permit::is_probe), is_ended, "{kind:?}");
        got.into_iter().for_each(|p| fleet.refund(p));
    }
}

#[test]
fn a_refused_key_is_tried_again_after_a_restart() {
    let (mut before, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let p = before.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    end(&mut before, 0, p, Kind::Unauthorised, None);
    let (mut after, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    after.restore(at(1), &before.cooldowns(at(1)));
    let p = after.acquire(at(1), &view, &want, Lane::Primary, None).unwrap();
    after.refund(p);
}

#[test]
fn equals_share_by_weight() {
    let weighing = |id, weight| Backend { weight, ..backend(id, Tier::Primary, Limits::default()) };
    let (mut fleet, view, want) = fleet(vec![weighing("a", 1), weighing("b", 2), weighing("c", 1)]);
    let mut shares = [0u32; 3];
    for _ in 0..4_000 {
        let p = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
        shares[p.backend as usize] += 1;
        fleet.refund(p);
    }
    for (share, expected) in shares.iter().zip([1_000, 2_000, 1_000]) {
        assert!(share.abs_diff(expected) < 150, "{shares:?}");
    }
}

#[test]
fn invented_model_names_never_take_the_backend_out() {
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, Limits::default())]);
    let missing = |fleet: &mut Fleet, ms: u64, name: String| {
        let want = view.want(&name.into(), Operation::Chat, 1);
        let p = fleet.acquire(at(ms), &view, &want, Lane::Primary, None).unwrap();
        end(fleet, ms, p, Kind::ModelMissing, Some(1_000_000 + ms));
    };
    for i in 0..1_500 {
        missing(&mut fleet, i, format!("invented-{i}"));
    }
    assert_eq!(fleet.cooldowns(at(1_500)).len(), 1_024, "bounded");
    let p = fleet.acquire(at(1_500), &view, &want, Lane::Primary, None).unwrap();
    end(&mut fleet, 1_500, p, Kind::RateLimited, Some(2_000));
    assert!(fleet.acquire(at(1_501), &view, &want, Lane::Primary, None).is_err(), "a real verdict finds room");
    let other = view.want(&"other".into(), Operation::Chat, 1);
    let p = fleet.acquire(at(1_501), &view, &other, Lane::Primary, None).unwrap();
    fleet.refund(p);
}

#[test]
fn the_line_of_many_models_is_served_in_order() {
    let limits = Limits { max_concurrency: Some(200), ..Limits::default() };
    let (mut fleet, view, _) = fleet(vec![backend("a", Tier::Primary, limits)]);
    fleet.set_drained(at(1), "a", true);
    let mut tickets = Vec::new();
    for i in 0..900 {
        let want = view.want(&format!("model-{}", i % 300).into(), Operation::Chat, 1);
        tickets.push(fleet.join(&view, &want, Lane::Primary).unwrap());
    }
    for gone in tickets.drain(..2) {
        assert!(fleet.leave(gone) && !fleet.leave(gone));
    }
    assert!(fleet.serve_queue(at(0)).0.is_empty());
    fleet.set_drained(at(1), "a", false);
    let mut order = Vec::new();
    for ms in 1..10 {
        let (served, _) = fleet.serve_queue(at(ms));
        for (ticket, permit) in served {
            order.push(ticket);
            fleet.refund(permit);
        }
    }
    assert_eq!(order, tickets[..]);
    assert_eq!(fleet.waiting(), 0);
}

#[test]
fn a_backend_may_begin_with_a_past() {
    let limits = Limits { rpm: Some(40), tpm: Some(10_000), ..Limits::default() };
    let (mut fleet, view, want) = fleet(vec![backend("a", Tier::Primary, limits)]);
    let ms = Duration::from_millis;
    let past = InitialState {
        cooldown: Some((ms(1_500), Kind::Unauthorised)),
        failures: 3,
        requests_left: Some(2),
        tokens_left: Some(500),
        emergency_in: Some(ms(700)),
        latency: ms(300),
        first_token: ms(80),
        errors: 0.25,
        ..InitialState::default()
    };
    assert!(fleet.set_initial_state(at(0), "a", &past) && !fleet.set_initial_state(at(0), "nobody", &past));
    let number = |fleet: &Fleet, now: u64, column: Column| fleet.rows(at(now), &view, &want, None)[0].number(column);
    for (column, expected) in [
        (Column::State, RowState::Cooling as u32),
        (Column::CooldownMs, 1_500),
        (Column::CooldownReason, Kind::Unauthorised.index()),
        (Column::Failures, 3),
        (Column::RequestsLeft, 2),
        (Column::TokensLeft, 500),
        (Column::LatencyMs, 300),
        (Column::FirstTokenMs, 80),
        (Column::ErrorPermille, 250),
    ] {
        assert_eq!(number(&fleet, 0, column), expected, "{column:?}");
    }
    fleet.set_initial_state(
        at(0),
        "a",
        &InitialState { cooldown: Some((ms(0), Kind::RateLimited)), failures: 1, ..InitialState::default() },
    );
    let probe = fleet.acquire(at(0), &view, &want, Lane::Primary, None).unwrap();
    assert!(probe.is_probe(), "its cooldown is over and nobody has tried it yet");
    fleet.refund(probe);
    fleet.set_initial_state(at(0), "a", &InitialState { full_for: Some(ms(400)), ..InitialState::default() });
    assert_eq!(
        (number(&fleet, 0, Column::State), number(&fleet, 0, Column::ReadyMs)),
        (RowState::Throttled as u32, 400)
    );
    fleet.set_initial_state(at(0), "a", &InitialState { drained: true, ..InitialState::default() });
    assert_eq!(number(&fleet, 500, Column::State), RowState::Drained as u32);
}

#[test]
fn the_seed_of_a_fleet_is_found_from_its_first_number() {
    for seed in [0, 1, 0x0006_6137_98e7_e15a, u64::MAX] {
        let first = Fleet::new(Settings::default(), seed).seed();
        assert_eq!(seed_of_first(first), seed);
    }
}
