//! Properties of the exchange over its whole event space: a world that answers at random, with a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Column, Commit, Decision, Dispatch, Hold, Operation, Rejection, Resume, RowState};
use pointsman_core::exchange::{
    Action, Budgets, Ended, Event, Exchange, Facts, Join, Only, Reason, Sending, StreamDefaults,
};
use pointsman_core::fleet::Ticket;
use pointsman_core::fleet::{AttemptReport, Fleet, Permit, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::record::{End, Usage};
use pointsman_core::table::{Backend, Lane, Limits, Price, Table, Tier};
use pointsman_core::time::Timestamp;
use pointsman_core::view::{View, Want};
use proptest::prelude::*;

fn backend(i: usize, tier: Tier, limits: Limits) -> Backend {
    Backend { tier, limits, ..Backend::new(format!("b{i}")) }
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

const STREAMS: StreamDefaults = StreamDefaults { commit: Commit::FirstContent, resume: Resume::None };

/// One exchange under test, with what it was seen to do.
struct Run {
    exchange: Exchange,
    next: Option<Event>,
    ticket: Option<Ticket>,
    deadline: Option<Timestamp>,
    granted: Option<Permit>,
    sends: u32,
    committed: bool,
    /// The committed attempt broke, and what was delivered can be continued.
    broke: bool,
    resumes: bool,
    ended: Option<&'static str>,
}

impl Run {
    fn sends(&mut self, sending: &Sending, max_attempts: u32, cooling: &[bool]) {
        assert!(!self.committed || self.broke && self.resumes, "sent after the commit, and not as a resume");
        assert_eq!(sending.join.is_some(), self.committed, "what follows a commit joins it, and nothing else does");
        assert_ne!(sending.join, Some(Join::Prefill), "none of these backends can be prefilled");
        self.sends += 1;
        assert!(self.sends <= max_attempts, "over the attempts budget");
        if sending.lane != Lane::Emergency {
            assert!(!cooling[sending.backend as usize], "sent to a backend in cooldown");
        }
    }
}

struct World {
    fleet: Fleet,
    now: Timestamp,
    runs: Vec<Run>,
    budgets: Budgets,
}

impl World {
    fn new(limits: &[(Tier, Limits)], exchanges: usize, budgets: Budgets, streams: StreamDefaults, seed: u64) -> Self {
        let backends = limits.iter().enumerate().map(|(i, (tier, l))| backend(i, *tier, *l)).collect();
        let mut fleet = Fleet::new(Settings::default(), seed);
        let view = fleet
            .adopt(Arc::new(Table::new(backends, Vec::new())), Settings { queue_length: 3, ..Settings::default() });
        let now = Timestamp::from_millis(1_700_000_000_000);
        let run = |_| Run {
            exchange: Exchange::new(now, view.clone(), &"m".into(), facts(), budgets, streams),
            next: Some(Event::Arrived),
            ticket: None,
            deadline: None,
            granted: None,
            sends: 0,
            committed: false,
            broke: false,
            resumes: streams.resume != Resume::None,
            ended: None,
        };
        let runs = (0..exchanges).map(run).collect();
        Self { fleet, now, runs, budgets }
    }

    fn serve_line(&mut self) {
        let (served, _) = self.fleet.serve_queue(self.now);
        for (ticket, permit) in served {
            let run = self.runs.iter_mut().find(|r| r.ticket == Some(ticket)).expect("only who waits is served");
            run.granted = Some(permit);
        }
    }

    /// One step of exchange `i`, with `dice` for everything that is up to the world.
    fn step(&mut self, i: usize, dice: &mut impl FnMut(u32) -> u32) {
        self.serve_line();
        let run = &mut self.runs[i];
        if run.ended.is_some() {
            return;
        }
        let event = match run.next.take() {
            Some(event) => event,
            None => match (run.granted.take(), run.ticket) {
                (Some(permit), _) => Event::Granted(permit),
                (None, Some(_)) => Event::WaitOver,
                (None, None) => unreachable!("a run that is not over has something next"),
            },
        };
        if !matches!(event, Event::Arrived) && dice(40) == 0 && !matches!(event, Event::Granted(_)) {
            // The client may leave at any moment.
            run.next = None;
            self.act(i, Event::ClientGone, dice);
        } else {
            self.act(i, event, dice);
        }
    }

    fn act(&mut self, i: usize, event: Event, dice: &mut impl FnMut(u32) -> u32) {
        let cooling: Vec<bool> = {
            let view = self.runs[i].exchange.view().clone();
            self.fleet.overview(self.now, &view).iter().map(|o| o.state == RowState::Cooling).collect()
        };
        let run = &mut self.runs[i];
        let held_before = run.exchange.permit().is_some();
        if let Event::Broke(_) = &event {
            run.broke = true;
        }
        run.ticket = None;
        run.deadline = None;
        let action = run.exchange.step(&mut self.fleet, self.now, event);
        match action {
            Action::Ask(query) => {
                assert_eq!(query.attempts.len() as u32, run.sends, "every attempt is told");
                run.next = Some(Event::Decided(decision(dice)));
            }
            Action::Send(sending) => {
                assert!(!held_before);
                run.sends(&sending, self.budgets.max_attempts, &cooling);
                run.next = Some(if dice(3) == 0 { Event::Committed } else { ended(dice) });
            }
            Action::Wait { ticket, max } => {
                assert!(max <= self.budgets.max_wait);
                run.ticket = Some(ticket);
                run.deadline = Some(self.now + max);
            }
            Action::Relay => {
                assert!(!run.committed || run.broke, "committed twice");
                run.committed = true;
                run.broke = false;
                run.next = Some(match (ended(dice), dice(2)) {
                    (Event::Ended(ended), 0) => Event::Broke(ended),
                    (event, _) => event,
                });
            }
            Action::PassOn => {
                assert!(!run.committed, "a refusal cannot follow an answer");
                run.ended = Some("passed on");
            }
            Action::Reject(_) => run.ended = Some("rejected"),
            Action::Finish(end) => {
                run.ended = Some(match end {
                    End::Delivered => "delivered",
                    End::Broken => "broken",
                    End::ClientGone => "gone",
                    End::Refused | End::Rejected | End::Denied => "other",
                });
            }
        }
        let (waits, waited) = run.exchange.waits();
        assert!(waits <= self.budgets.max_waits, "over the waits budget");
        assert!(waited <= self.budgets.max_wait, "waited {waited:?}");
        if run.ended.is_some() {
            assert!(run.exchange.is_done());
            assert!(run.exchange.permit().is_none());
        }
    }
}

fn decision(dice: &mut impl FnMut(u32) -> u32) -> Decision {
    let backend = match dice(4) {
        0 => None,
        n => Some(n + dice(2) * 100),
    };
    let dispatch = Dispatch { backend, ..Dispatch::default() };
    let lane = Lane::ALL[dice(3) as usize];
    match dice(8) {
        0..=2 => Decision::Primary(dispatch),
        3 => Decision::Fallback(dispatch),
        4 => Decision::Emergency(dispatch),
        5..=6 => Decision::Wait(Hold { max: Duration::from_millis(u64::from(dice(10_000))), lane }),
        _ if dice(4) == 0 => Decision::Reject(Rejection { status: dice(2) as u16 * 429, ..Rejection::default() }),
        _ => Decision::Primary(Dispatch::default()),
    }
}

fn ended(dice: &mut impl FnMut(u32) -> u32) -> Event {
    let kind = Kind::ALL[dice(Kind::ALL.len() as u32) as usize];
    let retry_after = (dice(2) == 0).then(|| Duration::from_millis(u64::from(dice(8_000))));
    let outcome = Outcome { retry_after, ..Outcome::new(kind, "as the dice say") };
    let usage = Usage { input_tokens: u64::from(dice(5_000)), output_tokens: 5, ..Usage::default() };
    Event::Ended(Ended { outcome, usage, first_byte: None, first_token: None, upstream_id: None })
}

fn limits() -> impl Strategy<Value = (Tier, Limits)> {
    let limit = |most: u32| prop::option::of(1..most);
    let limits = (limit(100), limit(10), limit(100_000), limit(4));
    (prop::bool::ANY, limits).prop_map(|(primary, (rpm, burst, tpm, max_concurrency))| {
        (
            if primary { Tier::Primary } else { Tier::Fallback },
            Limits { rpm, burst, tpm, max_concurrency, ..Limits::default() },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_exchange_ends_within_its_budgets_and_leaks_nothing(
        backends in prop::collection::vec(limits(), 1..5),
        exchanges in 1usize..6,
        max_attempts in 1u32..6,
        max_waits in 0u32..6,
        resume in prop::sample::select(vec![Resume::None, Resume::Splice, Resume::Prefill]),
        seed: u64,
    ) {
        let budgets = Budgets { max_attempts, max_waits, max_wait: Duration::from_secs(30), ..Budgets::default() };
        let mut world = World::new(&backends, exchanges, budgets, StreamDefaults { resume, ..STREAMS }, seed);
        let mut state = seed;
        let mut dice = move |sides: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % u64::from(sides)) as u32
        };
        // Besides attempts and waits, 64 empty waits and 3 lost races.
        let most_steps = exchanges as u32 * (3 * (max_attempts + max_waits + 64 + 3) + 8) * 4;
        let mut steps = 0;
        while world.runs.iter().any(|r| r.ended.is_none()) {
            steps += 1;
            prop_assert!(steps <= most_steps * 4, "an exchange does not end");
            let due = world.runs.iter().enumerate().filter_map(|(i, r)| Some((r.deadline?, i))).min();
            let later = world.now + Duration::from_millis(u64::from(dice(3_000)));
            let i = match due {
                Some((deadline, i)) if deadline <= later => {
                    world.now = deadline.max(world.now);
                    i
                }
                _ => {
                    world.now = later;
                    dice(exchanges as u32) as usize
                }
            };
            world.step(i, &mut dice);
        }
        let view = world.runs[0].exchange.view().clone();
        for o in world.fleet.overview(world.now, &view) {
            prop_assert_eq!(o.in_flight, 0, "a permit leaked on {}", o.id);
        }
        prop_assert_eq!(world.fleet.waiting(), 0);
    }

    /// A policy that names one backend, whatever it is shown, is given that backend for as long as there is time to wait.
    #[test]
    fn no_exchange_is_exhausted_while_the_backend_it_names_would_be_ready_in_time(
        backends in prop::collection::vec(limits(), 1..4),
        cooldowns_ms in prop::collection::vec(prop::option::of(1u64..40_000), 3),
        drained in prop::option::weighted(0.1, 0usize..3),
        others in 0usize..6,
        max_waits in 1u32..6,
        lane in prop::sample::select(Lane::ALL.to_vec()),
        seed: u64,
    ) {
        let budgets = Budgets { max_waits, max_wait: Duration::from_secs(30), ..Budgets::default() };
        let mut s = Story::new(&backends, budgets, 9);
        let named = (seed % backends.len() as u64) as u32;
        // As large as the exchange's own, for which a token limit may have no room when it has some for less.
        let want = s.view.want(&"m".into(), Operation::Chat, 10 + 1_024);
        s.refuse_others(&want, &cooldowns_ms[..backends.len()]);
        let mut held = s.send_others(&want, others, seed);
        if let Some(i) = drained {
            s.fleet.set_drained(s.now, &format!("b{i}"), true);
        }
        let dispatch = Dispatch { backend: Some(named), ..Dispatch::default() };
        let decision = match lane {
            Lane::Primary => Decision::Primary(dispatch),
            Lane::Fallback => Decision::Fallback(dispatch),
            Lane::Emergency => Decision::Emergency(dispatch),
        };
        let mut action = s.step(Event::Arrived);
        loop {
            action = match action {
                Action::Ask(_) => s.says(decision.clone()),
                Action::Wait { max, .. } => {
                    let permit = s.wait_beside(&mut held, max);
                    s.step(permit.map_or(Event::WaitOver, Event::Granted))
                }
                Action::Send(sending) => {
                    prop_assert_eq!((sending.backend, sending.lane), (named, lane));
                    break;
                }
                Action::Reject(_) => {
                    let (waits, waited) = s.exchange.waits();
                    let left = budgets.max_wait.saturating_sub(waited);
                    let could = s.fleet.may_be_ready_within(s.now, &s.view, &want, lane, named, left);
                    prop_assert!(!could || left.is_zero() || waits >= max_waits, "{left:?} left after {waits} waits");
                    break;
                }
                other => panic!("{other:?}"),
            };
        }
        s.step(Event::ClientGone);
        held.into_iter().for_each(|(_, permit)| s.fleet.refund(permit));
        for o in s.fleet.overview(s.now, &s.view) {
            prop_assert_eq!(o.in_flight, 0, "a permit leaked on {}", o.id);
        }
    }

    #[test]
    fn any_event_at_any_time_ends_or_continues_and_leaks_nothing(seed: u64, events in prop::collection::vec(0u32..8, 1..30)) {
        let limits = [(Tier::Primary, Limits::default()), (Tier::Fallback, Limits { max_concurrency: Some(1), ..Limits::default() })];
        let mut world = World::new(&limits, 1, Budgets::default(), StreamDefaults { resume: Resume::Splice, ..STREAMS }, seed);
        let mut state = seed;
        let mut dice = move |sides: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            ((state >> 33) % u64::from(sides)) as u32
        };
        for which in events {
            let exchange = &mut world.runs[0].exchange;
            let event = match which {
                0 => Event::Arrived,
                1 => Event::Decided(decision(&mut dice)),
                2 => Event::WaitOver,
                3 => Event::Committed,
                4 => ended(&mut dice),
                5 => match ended(&mut dice) {
                    Event::Ended(ended) => Event::Broke(ended),
                    event => event,
                },
                6 => {
                    let view = exchange.view().clone();
                    let want = view.want(&"m".into(), Operation::Chat, 1);
                    match world.fleet.acquire(world.now, &view, &want, Lane::Emergency, None) {
                        Ok(permit) => Event::Granted(permit),
                        Err(_) => Event::WaitOver,
                    }
                }
                _ => Event::NotSent("no descriptor is left".into()),
            };
            exchange.step(&mut world.fleet, world.now, event);
            world.fleet.serve_queue(world.now).0.into_iter().for_each(|(_, p)| world.fleet.refund(p));
        }
        world.runs[0].exchange.step(&mut world.fleet, world.now, Event::ClientGone);
        let view = world.runs[0].exchange.view().clone();
        prop_assert!(world.runs[0].exchange.is_done());
        for o in world.fleet.overview(world.now, &view) {
            prop_assert_eq!(o.in_flight, 0);
        }
        prop_assert_eq!(world.fleet.waiting(), 0);
    }
}

/// One exchange told as a story: the test is the policy.
struct Story {
    fleet: Fleet,
    view: Arc<View>,
    exchange: Exchange,
    budgets: Budgets,
    now: Timestamp,
}

impl Story {
    /// Others' attempts, refused with these cooldowns or answered.
    fn refuse_others(&mut self, want: &Want, cooldowns_ms: &[Option<u64>]) {
        for (i, cooldown) in (0..).zip(cooldowns_ms) {
            let Ok(permit) = self.fleet.acquire(self.now, &self.view, want, Lane::Emergency, Some(i)) else { continue };
            let retry_after = cooldown.map(Duration::from_millis);
            let refused = Outcome { retry_after, ..Outcome::new(Kind::RateLimited, "") };
            let outcome = if retry_after.is_some() { refused } else { Outcome::answered(200) };
            self.fleet.settle(
                self.now,
                permit,
                AttemptReport { outcome: &outcome, first_token: None, tokens_used: None },
            );
        }
    }

    /// Others' attempts that go on for a while: when each ends, and its permit.
    fn send_others(&mut self, want: &Want, others: usize, seed: u64) -> Vec<(Timestamp, Permit)> {
        let mut held = Vec::new();
        for i in 0..others as u64 {
            let index = ((seed >> 8).wrapping_add(i) % self.view.table.backends.len() as u64) as u32;
            let lane = if self.view.backend(index).tier == Tier::Primary { Lane::Primary } else { Lane::Fallback };
            if let Ok(permit) = self.fleet.acquire(self.now, &self.view, want, lane, Some(index)) {
                held.push((self.now + Duration::from_millis(1 + (seed >> (8 * i)) % 20_000), permit));
            }
        }
        held
    }

    /// Waits while the attempts of others end, each at its time; none: the wait is over without a permit.
    fn wait_beside(&mut self, held: &mut Vec<(Timestamp, Permit)>, max: Duration) -> Option<Permit> {
        let deadline = self.now + max;
        loop {
            let (served, again) = self.fleet.serve_queue(self.now);
            if let Some((_, permit)) = served.into_iter().next() {
                return Some(permit);
            }
            if self.now >= deadline {
                return None;
            }
            let next = held.iter().map(|(until, _)| *until).chain(again).chain([deadline]).min();
            self.now = next.expect("there is a deadline");
            let (over, still): (Vec<_>, Vec<_>) =
                std::mem::take(held).into_iter().partition(|(until, _)| *until <= self.now);
            *held = still;
            over.into_iter().for_each(|(_, permit)| self.fleet.refund(permit));
        }
    }

    fn new(backends: &[(Tier, Limits)], budgets: Budgets, queue_length: usize) -> Self {
        let backends = backends.iter().enumerate().map(|(i, (tier, l))| backend(i, *tier, *l)).collect();
        Self::of(backends, budgets, STREAMS, queue_length)
    }

    fn of(backends: Vec<Backend>, budgets: Budgets, streams: StreamDefaults, queue_length: usize) -> Self {
        let settings = Settings { queue_length, ..Settings::default() };
        let mut fleet = Fleet::new(settings, 1);
        let view = fleet.adopt(Arc::new(Table::new(backends, Vec::new())), settings);
        let now = Timestamp::from_millis(1_700_000_000_000);
        let exchange = Exchange::new(now, view.clone(), &"m".into(), facts(), budgets, streams);
        Self { fleet, view, exchange, budgets, now }
    }

    fn step(&mut self, event: Event) -> Action {
        self.exchange.step(&mut self.fleet, self.now, event)
    }

    fn says(&mut self, decision: Decision) -> Action {
        self.step(Event::Decided(decision))
    }

    fn ended(&mut self, kind: Kind, retry_after_ms: u64) -> Action {
        let retry_after = Some(Duration::from_millis(retry_after_ms)).filter(|d| !d.is_zero());
        self.step(Event::Ended(Ended::failed(Outcome { retry_after, ..Outcome::new(kind, "") })))
    }

    /// Somebody else takes this backend.
    fn other(&mut self, backend: u32) -> Permit {
        let want = self.view.want(&"m".into(), Operation::Chat, 1);
        let lane = match self.view.backend(backend).tier {
            Tier::Primary => Lane::Primary,
            Tier::Fallback => Lane::Fallback,
        };
        self.fleet.acquire(self.now, &self.view, &want, lane, Some(backend)).expect("it is free")
    }

    fn in_flight(&self) -> Vec<u32> {
        self.fleet.overview(self.now, &self.view).iter().map(|o| o.in_flight).collect()
    }
}

fn primary(backend: u32) -> Decision {
    Decision::Primary(Dispatch { backend: Some(backend), ..Dispatch::default() })
}

fn fallback(backend: u32) -> Decision {
    Decision::Fallback(Dispatch { backend: Some(backend), ..Dispatch::default() })
}

fn hold(lane: Lane) -> Decision {
    Decision::Wait(Hold { max: Duration::from_secs(5), lane })
}

fn one_slot() -> Limits {
    Limits { max_concurrency: Some(1), ..Limits::default() }
}

#[test]
fn a_wait_is_not_granted_what_the_policy_turned_down() {
    let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], Budgets::default(), 9);
    s.step(Event::Arrived);
    s.says(primary(1));
    s.ended(Kind::RateLimited, 2_000);
    s.says(primary(0));
    s.ended(Kind::TooLong, 0);
    let Action::Wait { ticket, .. } = s.says(hold(Lane::Primary)) else { panic!("b1 is worth waiting for") };
    let (served, again) = s.fleet.serve_queue(s.now);
    assert!(served.is_empty(), "b0 is ready, but was turned down");
    s.now = again.expect("b1's cooldown ends");
    let (mut served, _) = s.fleet.serve_queue(s.now);
    let (granted, permit) = served.pop().expect("b1 is free again");
    assert_eq!((granted, permit.backend), (ticket, 1));
    let Action::Ask(query) = s.step(Event::Granted(permit)) else { panic!("asked again") };
    assert_eq!(query.waits, 1);
    s.step(Event::ClientGone);
    assert_eq!(s.in_flight(), [0, 0]);
}

#[test]
fn an_attempt_begins_when_it_is_sent_and_not_when_its_waiter_was_given_the_permit() {
    let mut s = Story::new(&[(Tier::Primary, one_slot())], Budgets::default(), 9);
    let taken = s.other(0);
    s.step(Event::Arrived);
    s.says(hold(Lane::Primary));
    s.fleet.refund(taken);
    let (mut served, _) = s.fleet.serve_queue(s.now);
    let (_, permit) = served.pop().expect("b0 is free");
    s.now = s.now + Duration::from_millis(7);
    s.step(Event::Granted(permit));
    s.now = s.now + Duration::from_millis(2);
    let sent_at = s.now;
    assert!(matches!(s.says(primary(0)), Action::Send(_)));
    s.now = s.now + Duration::from_micros(2_400);
    let Action::Ask(query) = s.ended(Kind::ServerError, 0) else { panic!("asked again") };
    assert_eq!(query.attempts[0].elapsed_ms, 3);
    let attempt = &s.exchange.attempts()[0];
    assert_eq!((attempt.started, attempt.elapsed), (sent_at, Duration::from_micros(2_400)));
}

#[test]
fn an_attempt_that_could_not_be_sent_never_was_one() {
    let limits = Limits { rpm: Some(1), ..one_slot() };
    let mut s = Story::new(&[(Tier::Primary, limits)], Budgets::default(), 9);
    s.step(Event::Arrived);
    assert!(matches!(s.says(primary(0)), Action::Send(_)));
    let Action::Reject(refusal) = s.step(Event::NotSent("no descriptor is left".into())) else { panic!("refused") };
    assert_eq!((refusal.reason.clone(), refusal.reason.status()), (Reason::OwnShortage, 503));
    assert_eq!((&*refusal.message, refusal.retry_after), ("no descriptor is left", Some(Duration::from_secs(1))));
    assert!(s.exchange.is_done() && s.exchange.attempts().is_empty());
    assert_eq!(s.in_flight(), [0]);
    assert_eq!(s.fleet.overview(s.now, &s.view)[0].state, RowState::Ready, "nothing is held against it");
    let permit = s.other(0);
    s.fleet.refund(permit);
}

#[test]
fn an_exchange_keeps_its_place_over_its_waits() {
    let mut s = Story::new(&[(Tier::Primary, one_slot())], Budgets::default(), 9);
    let taken = s.other(0);
    s.step(Event::Arrived);
    s.says(hold(Lane::Primary));
    let later = s.view.want(&"m".into(), Operation::Chat, 1);
    s.fleet.join(&s.view, &later, Lane::Primary).expect("there is room");
    let Action::Ask(query) = s.step(Event::WaitOver) else { panic!("asked again") };
    assert_eq!(query.rows.number(0, Column::Queued), 0, "nobody came before");
    let Action::Wait { ticket, .. } = s.says(hold(Lane::Primary)) else { panic!("a second wait") };
    s.fleet.refund(taken);
    let (served, _) = s.fleet.serve_queue(s.now);
    assert_eq!(served.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [ticket]);
    served.into_iter().for_each(|(_, p)| s.fleet.refund(p));
}

#[test]
fn a_wait_for_nobody_is_over_at_once() {
    let mut s = Story::new(&[(Tier::Primary, Limits::default())], Budgets::default(), 9);
    s.step(Event::Arrived);
    for waits in 1..=64 {
        let Action::Ask(query) = s.says(hold(Lane::Primary)) else { panic!("asked again") };
        assert_eq!(query.waits, waits, "the policy sees it as a wait");
    }
    let Action::Reject(refusal) = s.says(hold(Lane::Primary)) else { panic!("enough is enough") };
    assert_eq!(refusal.reason, Reason::Exhausted);
    assert!(refusal.message.ends_with("b0 is ready, but the policy did not choose it"), "{}", refusal.message);
    assert_eq!(s.exchange.waits().0, 0, "the record does not");
}

#[test]
fn a_full_line_or_spent_waits_do_not_hide_a_ready_fallback() {
    let no_waits = Budgets { max_waits: 0, ..Budgets::default() };
    let no_time = Budgets { max_wait: Duration::ZERO, ..Budgets::default() };
    for (budgets, queue_length) in [(Budgets::default(), 0), (no_waits, 9), (no_time, 9)] {
        let mut s = Story::new(&[(Tier::Primary, one_slot()), (Tier::Fallback, one_slot())], budgets, queue_length);
        let taken = s.other(0);
        s.step(Event::Arrived);
        let Action::Ask(query) = s.says(hold(Lane::Primary)) else { panic!("asked again") };
        assert_eq!(query.waits, 1);
        assert!(matches!(s.says(fallback(1)), Action::Send(_)));
        s.fleet.refund(taken);
    }
}

#[test]
fn a_full_line_is_named_when_nothing_else_is_left() {
    let mut s = Story::new(&[(Tier::Primary, one_slot())], Budgets::default(), 0);
    let taken = s.other(0);
    s.step(Event::Arrived);
    s.says(hold(Lane::Primary));
    let Action::Reject(refusal) = s.says(Decision::Reject(Rejection::default())) else { panic!("rejected") };
    assert_eq!(refusal.reason, Reason::QueueFull);
    assert!(refusal.message.contains("limits.queue_length"));
    s.fleet.refund(taken);
}

#[test]
fn a_lost_race_keeps_what_is_held_and_asks_again() {
    let mut s = Story::new(&[(Tier::Primary, one_slot()); 2], Budgets::default(), 9);
    let (first, second) = (s.other(0), s.other(1));
    s.step(Event::Arrived);
    s.says(hold(Lane::Primary));
    s.fleet.refund(first);
    let (mut served, _) = s.fleet.serve_queue(s.now);
    s.step(Event::Granted(served.pop().expect("b0 is free").1));
    for _ in 0..3 {
        let Action::Ask(query) = s.says(primary(1)) else { panic!("b1 is taken: asked again") };
        assert_eq!((query.waits, query.rows.is(0, RowState::Ready)), (1, true), "b0 is still held");
        assert_eq!(s.in_flight(), [1, 1]);
    }
    assert!(matches!(s.says(primary(1)), Action::Wait { .. }), "a fourth time is a wait");
    assert_eq!(s.in_flight(), [0, 1]);
    assert!(s.fleet.serve_queue(s.now).0.is_empty(), "for b1, which was named, not for b0, which is free");
    s.fleet.refund(second);
    let (mut served, _) = s.fleet.serve_queue(s.now);
    s.step(Event::Granted(served.pop().expect("b1 is free").1));
    assert!(matches!(s.says(primary(1)), Action::Send(_)));
    assert_eq!(s.in_flight(), [0, 1]);
    s.step(Event::ClientGone);
}

/// Answers the same until a wait or an end comes of it; answers with how many questions that took.
fn insists(s: &mut Story, decision: &Decision) -> (Action, u32) {
    for questions in 1.. {
        match s.says(decision.clone()) {
            Action::Ask(_) => {}
            other => return (other, questions),
        }
    }
    unreachable!("questions are bounded")
}

#[test]
fn a_dispatch_to_a_cooling_backend_becomes_a_wait_for_that_backend() {
    let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], Budgets::default(), 9);
    s.step(Event::Arrived);
    s.says(primary(0));
    s.ended(Kind::RateLimited, 12_000);
    let (Action::Wait { max, .. }, 4) = insists(&mut s, &primary(0)) else { panic!("waited for after 4 questions") };
    assert_eq!(max, Duration::from_secs(5), "asked again meanwhile");
    let (served, again) = s.fleet.serve_queue(s.now);
    assert!(served.is_empty(), "b1 is ready, but b0 is what was asked for");
    assert_eq!(again, Some(s.now + Duration::from_secs(12)));
    s.now = s.now + Duration::from_secs(5);
    assert!(matches!(s.step(Event::WaitOver), Action::Ask(_)));
    assert!(matches!(s.says(primary(1)), Action::Send(_)), "the policy may change its mind");
    s.step(Event::ClientGone);
}

/// Its tokens come back after a minute, longer than anybody would wait; but whoever holds them may give some back any time.
#[test]
fn a_dispatch_waits_for_tokens_that_others_may_give_back() {
    let limits = Limits { tpm: Some(1_500), ..Limits::default() };
    let budgets = Budgets { max_wait: Duration::from_secs(30), ..Budgets::default() };
    let mut s = Story::new(&[(Tier::Primary, limits)], budgets, 9);
    let want = s.view.want(&"m".into(), Operation::Chat, 1_400);
    let other = s.fleet.acquire(s.now, &s.view, &want, Lane::Primary, None).unwrap();
    s.step(Event::Arrived);
    let (waits, _) = insists(&mut s, &primary(0));
    let Action::Wait { ticket, .. } = waits else { panic!("{waits:?}") };
    let report = AttemptReport { outcome: &Outcome::answered(200), first_token: None, tokens_used: Some(200) };
    s.fleet.settle(s.now, other, report);
    let (served, _) = s.fleet.serve_queue(s.now);
    assert_eq!(served.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [ticket]);
    served.into_iter().for_each(|(_, permit)| s.fleet.refund(permit));
}

#[test]
fn the_last_wait_for_a_named_backend_takes_all_the_time_there_is() {
    let budgets = Budgets { max_waits: 2, ..Budgets::default() };
    let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], budgets, 9);
    s.step(Event::Arrived);
    s.says(primary(0));
    s.ended(Kind::RateLimited, 100_000);
    let (Action::Wait { max, .. }, _) = insists(&mut s, &primary(0)) else { panic!("a first wait") };
    s.now = s.now + max;
    s.step(Event::WaitOver);
    let (Action::Wait { max, .. }, _) = insists(&mut s, &primary(0)) else { panic!("a second wait") };
    assert_eq!(max, Duration::from_secs(115), "all that is left of max_wait");
    s.now = s.fleet.serve_queue(s.now).1.expect("b0's cooldown ends");
    let (_, permit) = s.fleet.serve_queue(s.now).0.pop().expect("b0 is due");
    s.step(Event::Granted(permit));
    assert!(matches!(s.says(primary(0)), Action::Send(_)));
    s.step(Event::ClientGone);
}

#[test]
fn a_wait_for_any_of_the_lane_also_gets_one_that_is_back_sooner_than_was_known() {
    let budgets = Budgets { max_wait: Duration::from_secs(30), ..Budgets::default() };
    let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], budgets, 9);
    s.step(Event::Arrived);
    for (backend, retry_after_ms) in [(0, 100_000), (1, 2_000)] {
        s.says(primary(backend));
        s.ended(Kind::RateLimited, retry_after_ms);
    }
    let (Action::Wait { .. }, _) = insists(&mut s, &Decision::Primary(Dispatch::default())) else { panic!("waits") };
    s.fleet.clear_cooldown(s.now, "b0");
    let (_, permit) = s.fleet.serve_queue(s.now).0.pop().expect("b0 is free, and nobody who comes later gets it");
    assert_eq!(permit.backend, 0);
    s.step(Event::Granted(permit));
    s.step(Event::ClientGone);
}

#[test]
fn what_cannot_be_had_in_time_is_not_waited_for() {
    let budgets = Budgets { max_wait: Duration::from_secs(30), ..Budgets::default() };
    for (what, prepare) in [
        ("cools for longer", (|s: &mut Story| drop(s.ended(Kind::RateLimited, 31_000))) as fn(&mut Story)),
        ("is drained", |s: &mut Story| {
            s.ended(Kind::Answered, 0);
            s.fleet.set_drained(s.now, "b0", true);
            let exchange = Exchange::new(s.now, s.view.clone(), &"m".into(), facts(), s.budgets, STREAMS);
            s.exchange = exchange;
            s.step(Event::Arrived);
        }),
    ] {
        let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], budgets, 9);
        s.step(Event::Arrived);
        s.says(primary(0));
        prepare(&mut s);
        let (Action::Reject(refusal), questions) = insists(&mut s, &primary(0)) else { panic!("b0 {what}") };
        assert_eq!((refusal.reason, questions), (Reason::Exhausted, 68), "b0 {what}: 3 lost races, 64 empty waits");
        assert_eq!(s.exchange.waits().0, 0);
    }
}

#[test]
fn what_every_upstream_refused_is_passed_on() {
    let exhausted = || Decision::Reject(Rejection::default());
    for kinds in [[Kind::ModelMissing, Kind::ModelMissing], [Kind::TooLong, Kind::ModelMissing]] {
        let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], Budgets::default(), 9);
        s.step(Event::Arrived);
        for (i, kind) in (0..).zip(kinds) {
            s.says(primary(i));
            s.ended(kind, 0);
        }
        assert!(matches!(s.says(exhausted()), Action::PassOn), "{kinds:?}");
    }
    let mut s = Story::new(&[(Tier::Primary, Limits::default()); 2], Budgets::default(), 9);
    s.step(Event::Arrived);
    s.says(primary(0));
    s.ended(Kind::ModelMissing, 0);
    s.says(primary(1));
    s.ended(Kind::RateLimited, 0);
    assert!(matches!(s.says(exhausted()), Action::Reject(_)), "b1 may yet answer");
}

#[test]
fn what_acts_is_not_sent_again_after_it_may_have_acted() {
    let story = || {
        let mut s = Story::new(
            &[(Tier::Primary, Limits::default()), (Tier::Fallback, Limits::default())],
            Budgets::default(),
            3,
        );
        let facts = Facts { idempotent: false, ..facts() };
        s.exchange = Exchange::new(s.now, s.view.clone(), &"m".into(), facts, Budgets::default(), STREAMS);
        s.step(Event::Arrived);
        assert!(matches!(s.says(primary(0)), Action::Send(_)));
        s
    };
    for kind in Kind::ALL {
        let mut s = story();
        let next = s.ended(kind, 0);
        let is_as_it_should_be = match kind {
            Kind::Answered | Kind::ClientGone => matches!(next, Action::Finish(_)),
            Kind::Refused | Kind::ServerError => matches!(next, Action::PassOn),
            Kind::Reset | Kind::TimedOut | Kind::Cut | Kind::Stalled | Kind::Malformed => {
                matches!(&next, Action::Reject(why) if why.reason == Reason::NotRepeated)
            }
            Kind::RateLimited
            | Kind::OutOfCredit
            | Kind::Overloaded
            | Kind::TooLong
            | Kind::ModelMissing
            | Kind::Unauthorised
            | Kind::ConnectFailed
            | Kind::NotResumed => matches!(next, Action::Ask(_)),
        };
        assert!(is_as_it_should_be, "{kind:?}: {next:?}");
        assert_eq!(s.in_flight(), [0, 0]);
    }
}

#[test]
fn a_failed_attempt_gives_its_tokens_back() {
    let limits = Limits { tpm: Some(100_000), ..Limits::default() };
    for (kind, is_given_back) in [(Kind::ServerError, true), (Kind::TooLong, true), (Kind::Cut, false)] {
        let mut s = Story::new(&[(Tier::Primary, limits)], Budgets::default(), 9);
        let left = |s: &Story| s.fleet.overview(s.now, &s.view)[0].tokens_left.expect("a limit");
        let before = left(&s);
        s.step(Event::Arrived);
        s.says(primary(0));
        assert!(left(&s) < before);
        s.ended(kind, 0);
        assert_eq!(left(&s) == before, is_given_back, "{kind:?}");
    }
}

#[test]
fn over_its_clients_budget_an_exchange_has_only_what_costs_nothing() {
    let price = |usd| BTreeMap::from([("*".to_owned(), Price { output_per_mtok: usd, ..Price::default() })]);
    let backends = vec![
        backend(0, Tier::Primary, Limits::default()),
        Backend { prices: price(1.0), ..backend(1, Tier::Primary, Limits::default()) },
        backend(2, Tier::Fallback, Limits::default()),
        Backend { prices: price(0.0), ..backend(3, Tier::Fallback, Limits::default()) },
    ];
    let mut s = Story::of(backends, Budgets { max_waits: 0, ..Budgets::default() }, STREAMS, 9);
    s.exchange = s.exchange.only(Only { free: true, ..Only::default() });
    let Action::Ask(query) = s.step(Event::Arrived) else { panic!("it is asked") };
    let states: Vec<_> = query.rows.iter().map(|row| row.number(Column::State)).collect();
    let (ready, unsuited) = (RowState::Ready as u32, RowState::Unsuited as u32);
    assert_eq!(states, [ready, unsuited, unsuited, ready]);
    let Action::Send(sending) = s.says(Decision::Fallback(Dispatch::default())) else { panic!("it is sent") };
    assert_eq!(sending.backend, 3);
    s.ended(Kind::ServerError, 60_000);
    for paid in [fallback(2), primary(1), Decision::Emergency(Dispatch { backend: Some(1), ..Dispatch::default() })] {
        assert!(matches!(s.says(paid), Action::Ask(_)), "none of them is to be had");
    }
    let reject =
        Decision::Reject(Rejection { status: 0, kind: String::new(), message: String::new(), retry_after: None });
    let Action::Reject(refusal) = s.says(reject) else { panic!("it ends") };
    assert!(refusal.message.ends_with("because the client's budget of the day is spent"), "{}", refusal.message);
    assert!(refusal.message.contains("b3") && !refusal.message.contains("b1"), "{}", refusal.message);
}

/// Two backends, the second of which can be prefilled; the first has begun to answer.
fn begun(resume: Resume, budgets: Budgets) -> Story {
    let able = BTreeMap::from([("prefill".to_owned(), true)]);
    let second = Backend { capabilities: able, ..backend(1, Tier::Fallback, Limits::default()) };
    let backends = vec![backend(0, Tier::Primary, Limits::default()), second];
    let mut s = Story::of(backends, budgets, StreamDefaults { resume, ..STREAMS }, 9);
    s.step(Event::Arrived);
    s.says(primary(0));
    assert!(matches!(s.step(Event::Committed), Action::Relay));
    s
}

fn failed(kind: Kind) -> Ended {
    Ended::failed(Outcome::new(kind, ""))
}

#[test]
fn a_broken_stream_is_joined_by_whom_the_policy_chooses() {
    let mut s = begun(Resume::Splice, Budgets::default());
    let Action::Ask(query) = s.step(Event::Broke(failed(Kind::Cut))) else { panic!("the policy is asked again") };
    assert_eq!((query.attempts[0].backend, query.attempts[0].outcome), (0, Kind::Cut));
    assert_eq!(s.in_flight(), [0, 0]);
    let Action::Send(sending) = s.says(fallback(1)) else { panic!("sent") };
    assert_eq!(sending.join, Some(Join::Splice));
    assert!(matches!(s.step(Event::Ended(failed(Kind::NotResumed))), Action::Ask(_)), "nothing new was delivered");
    assert!(matches!(s.says(fallback(1)), Action::Send(_)));
    assert!(matches!(s.step(Event::Committed), Action::Relay));
    assert!(matches!(s.step(Event::Broke(failed(Kind::Cut))), Action::Ask(_)), "it may break again");
    s.now = s.now + Duration::from_secs(60);
    assert!(matches!(s.says(fallback(1)), Action::Send(_)));
    let answered = Ended::failed(Outcome::answered(200));
    s.step(Event::Committed);
    assert!(matches!(s.step(Event::Ended(answered)), Action::Finish(End::Delivered)));
    assert_eq!((s.exchange.attempts().len(), s.in_flight()), (4, vec![0, 0]));
}

#[test]
fn only_who_can_is_prefilled_and_not_again_after_a_refusal() {
    let mut s = begun(Resume::Prefill, Budgets::default());
    s.step(Event::Broke(failed(Kind::Cut)));
    let join = |action: Action| match action {
        Action::Send(sending) => sending.join,
        other => panic!("{other:?}"),
    };
    assert_eq!(join(s.says(fallback(1))), Some(Join::Prefill));
    s.step(Event::Ended(failed(Kind::NotResumed)));
    assert_eq!(join(s.says(fallback(1))), Some(Join::Splice), "it took no prefill");
    s.step(Event::Ended(failed(Kind::ServerError)));
    s.now = s.now + Duration::from_secs(60);
    assert_eq!(join(s.says(primary(0))), Some(Join::Splice), "it never could");
    s.step(Event::ClientGone);
}

#[test]
fn what_cannot_be_resumed_ends_broken_or_with_an_error_to_tell_in_band() {
    let mut s = begun(Resume::None, Budgets::default());
    assert!(matches!(s.step(Event::Broke(failed(Kind::Cut))), Action::Finish(End::Broken)), "nobody wants it");
    let mut s = begun(Resume::Splice, Budgets::default());
    assert!(matches!(s.step(Event::Ended(failed(Kind::Cut))), Action::Finish(End::Broken)), "its shape forbids it");
    let mut s = begun(Resume::Splice, Budgets::default());
    assert!(matches!(s.step(Event::Broke(failed(Kind::Refused))), Action::Finish(End::Broken)), "a verdict stands");
    let mut s = begun(Resume::Splice, Budgets { max_attempts: 2, ..Budgets::default() });
    s.step(Event::Broke(failed(Kind::Cut)));
    s.says(fallback(1));
    assert!(matches!(s.step(Event::Ended(failed(Kind::Refused))), Action::Ask(_)), "the first was not refused");
    assert!(matches!(s.says(fallback(1)), Action::Reject(_)), "the attempts are used up");
    let mut s = begun(Resume::Splice, Budgets::default());
    s.now = s.now + Duration::from_secs(601);
    assert!(
        matches!(s.step(Event::Broke(failed(Kind::Cut))), Action::Ask(_)),
        "time in which it flowed does not count"
    );
    s.says(fallback(1));
    s.now = s.now + Duration::from_secs(601);
    let Action::Reject(refusal) = s.step(Event::Ended(failed(Kind::Cut))) else { panic!("the time is over") };
    assert_eq!(refusal.reason, Reason::OutOfTime);
    assert_eq!(s.in_flight(), [0, 0]);
}
