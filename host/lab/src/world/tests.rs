//! Random worlds: whatever backends answer and a policy decides, no permit is lost and no budget exceeded.

use std::sync::Arc;
use std::time::Duration;

use pointsman_config::Config;
use pointsman_core::contract::{Commit, Decision, Dispatch, Hold, Query, Rejection};
use pointsman_core::exchange::Facts;
use pointsman_core::random::SplitMix64;
use pointsman_core::table::{Lane, Table, Tier};
use proptest::prelude::*;

use super::*;
use crate::answer::{Answer, Behavior, Response};

/// Numbers that look like chance, so that a failing case is small to write down: one seed.
struct Dice(SplitMix64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0.draw() % n
    }

    fn ms(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1_000))
    }
}

fn config(dice: &mut Dice) -> Config {
    let mut text = format!(
        "[limits]\nmax_attempts = {}\nmax_waits = {}\nmax_wait_ms = {}\nmax_exchange_ms = {}\nqueue_length = {}\n",
        1 + dice.below(8),
        dice.below(6),
        dice.below(8_000),
        500 + dice.below(20_000),
        dice.below(30),
    );
    text.push_str("[cooldown]\nbase_ms = 20\nmax_ms = 900\n");
    text.push_str("[[client]]\nname = \"c\"\nkey = \"env:K\"\nmax_concurrency = 9\nbudget_usd_per_day = 0.1\n");
    for i in 0..2 + dice.below(4) {
        let tier = ["primary", "fallback"][i as usize % 2];
        text.push_str(&format!(
            "[[backend]]\nid = \"b{i}\"\nbase_url = \"http://x\"\ntier = \"{tier}\"\nmodels = [\"m\"]\nprice = {{ m = {{ input_per_mtok = 1.0, output_per_mtok = 1.0 }} }}\n\
             timeouts = {{ first_byte_ms = {}, first_token_ms = {}, idle_ms = {}, total_ms = {} }}\n",
            1 + dice.below(2_000),
            1 + dice.below(1_000),
            1 + dice.below(500),
            1 + dice.below(4_000),
        ));
        for (key, least, most) in [("rpm", 60, 6_000), ("tpm", 100_000, 2_000_000), ("max_concurrency", 1, 4)] {
            if dice.below(3) == 0 {
                text.push_str(&format!("{key} = {}\n", least + dice.below(most)));
            }
        }
    }
    pointsman_config::parse(&text, "p.toml", &[("K", "k")]).unwrap_or_else(|e| panic!("{e}\n{text}")).config
}

/// Requests and answers by chance.
struct Chaos {
    dice: Dice,
    at: Timestamp,
    left: u32,
}

impl Environment for Chaos {
    fn next_request(&mut self) -> Option<(Timestamp, Ask)> {
        self.left = self.left.checked_sub(1)?;
        self.at = self.at + self.dice.ms(150);
        let facts = Facts {
            operation: pointsman_core::contract::Operation::Chat,
            streaming: self.dice.below(2) == 0,
            priority: self.dice.below(3) as i32 - 1,
            prompt_tokens: self.dice.below(3_000) as u32,
            max_tokens: 0,
            client: if self.dice.below(3) == 0 { 0 } else { NONE },
            session: 0,
            translatable: false,
            idempotent: true,
        };
        let model = if self.dice.below(50) == 0 { "nobody's" } else { "m" };
        let patience = (self.dice.below(6) == 0).then(|| self.dice.ms(4_000));
        Some((self.at, Ask { model: model.into(), facts, texts: Arc::default(), patience }))
    }

    fn answer(&mut self, _: &Attempt<'_>) -> Answer {
        const STATUSES: [u16; 8] = [200, 200, 200, 400, 413, 429, 500, 503];
        // These cool for longer than the world lasts.
        const RARE: [u16; 3] = [401, 402, 404];
        let status = match self.dice.below(150) {
            0 => RARE[self.dice.below(3) as usize],
            _ => STATUSES[self.dice.below(8) as usize],
        };
        let mut response = Response { status, ..Response::default() };
        if self.dice.below(2) == 0 {
            response.headers.insert("retry-after-ms", self.dice.below(900).into());
        }
        if self.dice.below(8) == 0 {
            response.headers.insert("x-ratelimit-remaining-requests", self.dice.below(3).into());
            response.headers.insert("x-ratelimit-reset-requests", "1s".parse().expect("a header"));
        }
        let behavior = match self.dice.below(12) {
            0 => Behavior::ConnectFailed,
            1 => Behavior::Reset,
            2 => Behavior::Silence,
            3 => Behavior::Cut,
            4 => Behavior::Stall,
            _ => Behavior::Response(Arc::new(response)),
        };
        let after = self.dice.ms(1_500);
        let first_token = self.dice.ms(1_500).min(after);
        Answer { behavior, head: None, first_token, after, tokens: self.dice.below(40) as u32, prompt: None }
    }
}

/// Any valid decision, and some that are no use.
fn decide(dice: &mut Dice, table: &Table) -> Verdict {
    let of_tier = |dice: &mut Dice, tier: Option<Tier>| {
        let fits = |i: &usize| tier.is_none_or(|tier| table.backends[*i].tier == tier);
        let all: Vec<usize> = (0..table.backends.len()).filter(fits).collect();
        let index = all.get(dice.below(all.len().max(1) as u64) as usize).map(|i| *i as u32);
        index.filter(|_| dice.below(3) > 0)
    };
    let mut send = |tier: Option<Tier>| {
        const GATES: [Option<Commit>; 5] =
            [None, Some(Commit::Headers), Some(Commit::FirstContent), Some(Commit::Tokens(3)), Some(Commit::Complete)];
        let backend = of_tier(dice, tier);
        let total = Some(dice.ms(3_000) + Duration::from_millis(1)).filter(|_| dice.below(4) == 0);
        Dispatch { backend, total, commit: GATES[dice.below(5) as usize], ..Dispatch::default() }
    };
    let (primary, fallback, emergency) = (send(Some(Tier::Primary)), send(Some(Tier::Fallback)), send(None));
    let decision = match dice.below(10) {
        0..=3 => Decision::Primary(primary),
        4 | 5 => Decision::Fallback(fallback),
        6 => Decision::Emergency(emergency),
        7 | 8 => {
            let lane = Lane::ALL[dice.below(3) as usize];
            Decision::Wait(Hold { max: dice.ms(3_000) + Duration::from_millis(1), lane })
        }
        _ if dice.below(3) > 0 => Decision::Primary(primary),
        _ => Decision::Reject(Rejection { status: 402 * dice.below(2) as u16, ..Rejection::default() }),
    };
    Verdict::of(decision)
}

/// Holds every exchange to its budgets and every attempt to the cooldowns.
struct Judge {
    budgets: Budgets,
    /// Those whose client may leave.
    impatient: Vec<u64>,
    arrived: u64,
    finished: u64,
    sent: u64,
    /// Begin of the relay under way, and the time of those before, by exchange: it does not count against the total.
    relays: HashMap<u64, (Option<Timestamp>, Duration)>,
    trace: Option<Vec<String>>,
}

impl Watcher for Judge {
    fn saw(&mut self, scene: &Scene<'_>, sight: EventKind<'_>) {
        match &sight {
            EventKind::Arrived(ask) => {
                self.arrived += 1;
                self.impatient.extend(ask.patience.map(|_| scene.exchange));
            }
            EventKind::Sent { sending, .. } => {
                self.sent += 1;
                let id = &scene.view.backend(sending.backend).id;
                let cools = scene.fleet.cooldowns(scene.now).iter().any(|c| *c.backend == **id);
                assert!(!cools || sending.lane == Lane::Emergency, "{id} was sent to while it cools");
            }
            EventKind::Finished(finished) => {
                self.finished += 1;
                let (waits, waited) = finished.waits;
                let b = &self.budgets;
                assert!(finished.attempts.len() as u32 <= b.max_attempts, "{} attempts", finished.attempts.len());
                assert!(waits <= b.max_waits, "{waits} waits");
                assert!(waited <= b.max_wait, "{waited:?} of waiting");
                let (_, relayed) = self.relays.remove(&scene.exchange).unwrap_or_default();
                let took = finished.took.saturating_sub(relayed);
                assert!(took <= b.max_total, "it took {took:?} without its relay");
                match finished.end {
                    End::Delivered | End::Broken => assert!(finished.by.is_some(), "by nobody"),
                    // What all backends refuse alike is nobody's answer.
                    End::Refused => {}
                    End::Rejected | End::Denied => assert!(finished.status >= 400 && finished.error.is_some()),
                    End::ClientGone => assert!(self.impatient.contains(&scene.exchange), "nobody left: out of step"),
                }
            }
            EventKind::Committed => self.relays.entry(scene.exchange).or_default().0 = Some(scene.now),
            EventKind::Ended(_) => {
                let relay = self.relays.entry(scene.exchange).or_default();
                relay.1 += relay.0.take().map_or(Duration::ZERO, |since| scene.now.since(since));
            }
            EventKind::Asked(_) | EventKind::Decided(_) => {}
            EventKind::Waits { .. } | EventKind::Granted { .. } | EventKind::Waited { .. } => {}
        }
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{} {} {sight:?}", scene.now, scene.exchange));
        }
    }
}

fn live_through(seed: u64, traced: bool) -> Judge {
    let mut dice = Dice(SplitMix64(seed));
    let config = config(&mut dice);
    let table = config.table();
    let start = Timestamp::from_millis(1_767_571_200_000);
    let chaos = Chaos { dice: Dice(SplitMix64(seed ^ 1)), at: start, left: 120 };
    let (impatient, trace) = (Vec::new(), traced.then(Vec::new));
    let judge =
        Judge { budgets: config.budgets(), impatient, arrived: 0, finished: 0, sent: 0, relays: HashMap::new(), trace };
    let mut chance = Dice(SplitMix64(seed ^ 2));
    let decider = |_: &Query, _: &Arc<Texts>| decide(&mut chance, &table);
    let after = World::new(&config.setup(), start, seed, &[], chaos, decider, judge).run();
    assert_eq!(after.fleet.waiting(), 0, "somebody still waits");
    for overview in after.fleet.overview(after.now, &after.view) {
        assert_eq!(overview.in_flight, 0, "{} has lost a permit", overview.id);
    }
    let judge = after.watcher;
    assert_eq!((judge.arrived, judge.finished), (120, 120), "an exchange never ended");
    judge
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_exchange_ends_within_its_budget_and_gives_its_permits_back(seed: u64) {
        live_through(seed, false);
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let mut sent = 0;
    for seed in 0..12 {
        let (one, other) = (live_through(seed, true), live_through(seed, true));
        assert_eq!(one.trace, other.trace);
        sent += one.sent;
    }
    assert!(sent > 600, "{sent} attempts of 1440 exchanges show little");
}
