//! Properties of the exchange over its whole event space: a world that answers at random, with a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{Commit, Decision, Dispatch, Hold, Operation, Rejection, Resume, RowState};
use pointsman_core::exchange::{Action, Budgets, Ended, Event, Exchange, Facts, StreamDefaults};
use pointsman_core::fleet::{Fleet, Permit, Settings};
use pointsman_core::outcome::{Kind, Outcome};
use pointsman_core::queue::Ticket;
use pointsman_core::record::{End, Usage};
use pointsman_core::table::{Backend, Dialect, Lane, Limits, Table, Tier, Timeouts};
use pointsman_core::time::Timestamp;
use proptest::prelude::*;

fn backend(i: usize, tier: Tier, limits: Limits) -> Backend {
    Backend {
        id: format!("b{i}").into(),
        tier,
        dialect: Dialect::Openai,
        weight: 1,
        limits,
        routes: Vec::new(),
        prices: BTreeMap::new(),
        timeouts: Timeouts::default(),
        labels: BTreeMap::new(),
        capabilities: BTreeMap::new(),
    }
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
    ended: Option<&'static str>,
}

struct World {
    fleet: Fleet,
    now: Timestamp,
    runs: Vec<Run>,
    budgets: Budgets,
}

impl World {
    fn new(limits: &[(Tier, Limits)], exchanges: usize, budgets: Budgets, seed: u64) -> Self {
        let backends = limits.iter().enumerate().map(|(i, (tier, l))| backend(i, *tier, *l)).collect();
        let mut fleet = Fleet::new(Settings::default(), seed);
        let view = fleet
            .adopt(Arc::new(Table::new(backends, Vec::new())), Settings { queue_length: 3, ..Settings::default() });
        let now = Timestamp::from_millis(1_700_000_000_000);
        let run = |_| Run {
            exchange: Exchange::new(now, view.clone(), &"m".into(), facts(), budgets, STREAMS),
            next: Some(Event::Arrived),
            ticket: None,
            deadline: None,
            granted: None,
            sends: 0,
            committed: false,
            ended: None,
        };
        let runs = (0..exchanges).map(run).collect();
        Self { fleet, now, runs, budgets }
    }

    fn serve_line(&mut self) {
        let (served, _) = self.fleet.serve_line(self.now);
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
        run.ticket = None;
        run.deadline = None;
        let action = run.exchange.step(&mut self.fleet, self.now, event);
        match action {
            Action::Ask(query) => {
                assert_eq!(query.attempts.len() as u32, run.sends, "every attempt is told");
                run.next = Some(Event::Decided(decision(dice)));
            }
            Action::Send(sending) => {
                assert!(!run.committed, "sent after the commit");
                assert!(!held_before);
                run.sends += 1;
                assert!(run.sends <= self.budgets.max_attempts, "over the attempts budget");
                if sending.lane != Lane::Emergency {
                    assert!(!cooling[sending.backend as usize], "sent to a backend in cooldown");
                }
                run.next = Some(if dice(3) == 0 { Event::Committed } else { ended(dice) });
            }
            Action::Wait { ticket, max } => {
                assert!(max <= self.budgets.max_wait);
                run.ticket = Some(ticket);
                run.deadline = Some(self.now + max);
            }
            Action::Relay => {
                assert!(!run.committed, "committed twice");
                run.committed = true;
                run.next = Some(ended(dice));
            }
            Action::PassOn => run.ended = Some("passed on"),
            Action::Reject(_) => run.ended = Some("rejected"),
            Action::Finish(end) => {
                run.ended = Some(match end {
                    End::Delivered => "delivered",
                    End::Broken => "broken",
                    End::ClientGone => "gone",
                    End::Refused | End::Rejected => "other",
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
    Event::Ended(Ended { outcome, usage, first_byte: None, first_token: None })
}

fn limits() -> impl Strategy<Value = (Tier, Limits)> {
    let limit = |most: u32| prop::option::of(1..most);
    (prop::bool::ANY, limit(100), limit(100_000), limit(4)).prop_map(|(primary, rpm, tpm, max_concurrency)| {
        (if primary { Tier::Primary } else { Tier::Fallback }, Limits { rpm, tpm, max_concurrency })
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
        seed: u64,
    ) {
        let budgets = Budgets { max_attempts, max_waits, max_wait: Duration::from_secs(30), ..Budgets::default() };
        let mut world = World::new(&backends, exchanges, budgets, seed);
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

    #[test]
    fn any_event_at_any_time_ends_or_continues_and_leaks_nothing(seed: u64, events in prop::collection::vec(0u32..7, 1..30)) {
        let limits = [(Tier::Primary, Limits::default()), (Tier::Fallback, Limits { max_concurrency: Some(1), ..Limits::default() })];
        let mut world = World::new(&limits, 1, Budgets::default(), seed);
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
                5 => {
                    let view = exchange.view().clone();
                    let want = view.want(&"m".into(), Operation::Chat, 1);
                    match world.fleet.acquire(world.now, &view, &want, Lane::Emergency, None) {
                        Ok(permit) => Event::Granted(permit),
                        Err(_) => Event::WaitOver,
                    }
                }
                _ => Event::Arrived,
            };
            exchange.step(&mut world.fleet, world.now, event);
            world.fleet.serve_line(world.now).0.into_iter().for_each(|(_, p)| world.fleet.refund(p));
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
