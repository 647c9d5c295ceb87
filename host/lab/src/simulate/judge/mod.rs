//! Holds every exchange of a world to the invariants, by books of its own: it sees what happens, never what core thinks.

mod cooling;
mod line;
mod money;
mod rates;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pointsman_config::Config;
use pointsman_core::exchange::{Budgets, Facts};
use pointsman_core::fleet::Fleet;
use pointsman_core::fleet::health::CooldownSettings;
use pointsman_core::record::AttemptRecord;
use pointsman_core::table::{Lane, Timeouts};
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

use cooling::Cooling;
use line::Line;
use money::Money;
use rates::Rates;

use crate::world::{EventKind, Finished, Scene};

pointsman_core::vocabulary! {
    /// A rule that must hold, whatever backends answer and a policy decides.
    pub enum Rule {
        /// Attempts, waits and times stay within the budgets of the exchange.
        Budget = "budget",
        /// Nothing is sent to a backend in cooldown, except in the emergency lane.
        Cooldown = "cooldown",
        /// One attempt at a time probes after a cooldown.
        Probe = "probe",
        /// Rates and concurrency of backends and clients stay within their limits.
        Rate = "rate",
        /// Whoever waits is served in order, before newcomers.
        Order = "order",
        /// Every permit is given back once.
        Permit = "permit",
        /// No client spends more than its budget allows.
        Spend = "spend",
    }
}

impl Rule {
    /// All rules, a line each: the name and the rule.
    pub fn listed() -> String {
        let line = |rule: Rule| format!("  {:<10}{}\n", rule.as_str(), rule.sentence());
        Rule::ALL.map(line).concat()
    }

    /// The rule itself, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Rule::Budget => {
                "every exchange ends exactly once, within its limits on attempts, waits, waiting time and total time"
            }
            Rule::Cooldown => {
                "a backend in cooldown gets requests in the emergency lane only, and none at all when its key was refused or its \
                 credit is used up"
            }
            Rule::Probe => "after a cooldown one request at a time probes the backend, until one is answered",
            Rule::Rate => {
                "no window of 60 seconds has more requests or tokens than the limits, no moment more concurrent attempts, and the \
                 emergency lane keeps its own rate"
            }
            Rule::Order => {
                "exchanges that wait for the same are served by priority, then arrival, and before those that arrive later"
            }
            Rule::Permit => "every permit of a backend is returned when its attempt ends",
            Rule::Spend => "what is spent is the sum of what the answers cost, and no client exceeds its budget",
        }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The rule that was broken.
    pub rule: Rule,
    /// The exchange that broke it, counted from 0; none: the world as a whole.
    pub exchange: Option<u64>,
    /// Time of the violation.
    pub at: Timestamp,
    /// The violation in one sentence, with its numbers.
    pub how: String,
}

/// Result of a check: the rule broken, and a description.
type Found = Result<(), (Rule, String)>;

/// Sees everything, and keeps the first breach.
pub struct Judge {
    budgets: Budgets,
    cooling: Cooling,
    rates: Rates,
    line: Line,
    money: Money,
    names: Names,
    /// Exchanges under way, the first of them being number `first`.
    under_way: VecDeque<Option<UnderWay>>,
    first: u64,
    breach: Option<Breach>,
}

/// The checker's own record of an exchange.
struct UnderWay {
    facts: Facts,
    sent: u32,
    attempt: Option<InFlight>,
    /// Time of the commit of the attempt under way.
    committed_at: Option<Timestamp>,
    /// Time in which answers were relayed; it does not count against the total.
    relayed: Duration,
}

/// An attempt under way, as the judge counts it.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    exchange: u64,
    backend: usize,
    model: Name,
    lane: Lane,
    at: Timestamp,
    /// The first of the time limits that may be put off.
    limit: Duration,
    /// Tokens charged to the token limit.
    tokens: u32,
}

/// A model's name, as a number.
type Name = usize;

/// Models' names, in the order they were met.
#[derive(Default)]
struct Names(Vec<Arc<str>>);

impl Names {
    fn number(&mut self, name: &Arc<str>) -> Name {
        let known = self.0.iter().position(|n| Arc::ptr_eq(n, name) || n == name);
        known.unwrap_or_else(|| {
            self.0.push(name.clone());
            self.0.len() - 1
        })
    }
}

impl Judge {
    /// Creates a checker for a world with this configuration.
    pub fn new(config: &Config) -> Self {
        let settings = config.fleet_settings();
        let bounds: CooldownSettings = settings.cooldown;
        Self {
            budgets: config.budgets(),
            cooling: Cooling::new(bounds, config.backends.len()),
            rates: Rates::new(config, settings.emergency_fraction),
            line: Line::default(),
            money: Money::new(config),
            names: Names::default(),
            under_way: VecDeque::new(),
            first: 0,
            breach: None,
        }
    }

    /// Checks an event against every rule.
    pub fn saw(&mut self, scene: &Scene<'_>, sight: &EventKind<'_>) {
        if self.breach.is_some() {
            return;
        }
        if let Err((rule, how)) = self.look(scene, sight) {
            self.breach = Some(Breach { rule, exchange: Some(scene.exchange), at: scene.now, how });
        }
    }

    /// The first rule that was broken, when all is over.
    pub fn verdict(mut self, fleet: &Fleet, view: &View, now: Timestamp) -> Option<Breach> {
        if self.breach.is_none()
            && let Err((rule, how)) = self.all_is_over(fleet, view, now)
        {
            self.breach = Some(Breach { rule, exchange: None, at: now, how });
        }
        self.breach
    }

    fn all_is_over(&self, fleet: &Fleet, view: &View, now: Timestamp) -> Found {
        if let Some(place) = self.under_way.iter().position(Option::is_some) {
            return Err((Rule::Budget, format!("exchange {} never ended", self.first + place as u64 + 1)));
        }
        if fleet.waiting() > 0 {
            return Err((Rule::Order, format!("{} still wait when nothing happens any more", fleet.waiting())));
        }
        match fleet.overview(now, view).into_iter().find(|o| o.in_flight > 0) {
            Some(o) => Err((Rule::Permit, format!("{} still has {} in flight at the end", o.id, o.in_flight))),
            None => Ok(()),
        }
    }

    fn look(&mut self, scene: &Scene<'_>, sight: &EventKind<'_>) -> Found {
        let (number, now) = (scene.exchange, scene.now);
        match sight {
            EventKind::Arrived(ask) => {
                self.arrived(number, &ask.facts);
                self.money.arrived(now, number, ask)?;
                self.rates.arrived(now, &ask.facts)
            }
            EventKind::Asked(query) => {
                self.line.asked(query);
                Ok(())
            }
            EventKind::Decided(verdict) => {
                self.line.decided(&verdict.decision);
                Ok(())
            }
            EventKind::Sent { sending, probe, model } => {
                let backend = sending.backend as usize;
                let model = self.names.number(model);
                let known = self.exchange(number)?;
                let tokens = known.charged();
                let Timeouts { first_byte, first_token, idle, .. } = sending.timeouts;
                let limit = first_byte.min(first_token).min(idle);
                let attempt = InFlight { exchange: number, backend, model, lane: sending.lane, at: now, limit, tokens };
                known.sent += 1;
                let (priority, overlaps) = (known.facts.priority, known.attempt.replace(attempt).is_some());
                if overlaps {
                    return Err((Rule::Permit, "a second attempt was sent while the first was under way".to_owned()));
                }
                self.cooling.sent(attempt, *probe)?;
                self.rates.sent(attempt)?;
                self.line.sent(attempt, priority)
            }
            EventKind::Committed => {
                let known = self.exchange(number)?;
                known.committed_at = Some(now);
                if let Some(attempt) = known.attempt {
                    self.cooling.committed(attempt);
                }
                Ok(())
            }
            EventKind::Ended(record) => self.ended(number, now, record),
            EventKind::Waits { max: _, model } => {
                let model = self.names.number(model);
                let priority = self.exchange(number)?.facts.priority;
                self.line.waits(number, now, model, priority, scene.view);
                Ok(())
            }
            EventKind::Granted { backend } => self.line.granted(number, now, *backend),
            EventKind::Waited { granted } => {
                self.exchange(number)?;
                self.line.waited(number, now, *granted)
            }
            EventKind::Finished(finished) => self.finished(number, scene, finished),
        }
    }

    fn arrived(&mut self, number: u64, facts: &Facts) {
        if self.under_way.is_empty() {
            self.first = number;
        }
        self.under_way.push_back(Some(UnderWay {
            facts: facts.clone(),
            sent: 0,
            attempt: None,
            committed_at: None,
            relayed: Duration::ZERO,
        }));
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<UnderWay>> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.under_way.get_mut(place)
    }

    fn exchange(&mut self, number: u64) -> Result<&mut UnderWay, (Rule, String)> {
        let known = self.place(number).and_then(Option::as_mut);
        known.ok_or_else(|| (Rule::Budget, "something happened to it after its end".to_owned()))
    }

    fn ended(&mut self, number: u64, now: Timestamp, record: &AttemptRecord) -> Found {
        let known = self.exchange(number)?;
        let Some(attempt) = known.attempt.take() else {
            return Err((Rule::Permit, "an attempt ended that was not under way".to_owned()));
        };
        known.relayed += known.committed_at.take().map_or(Duration::ZERO, |at| now.since(at));
        self.cooling.ended(attempt, now, record);
        self.line.ended(attempt, record.outcome);
        self.rates.ended(attempt, record);
        Ok(())
    }

    fn finished(&mut self, number: u64, scene: &Scene<'_>, finished: &Finished<'_>) -> Found {
        self.exchange(number)?;
        let known = self.place(number).and_then(Option::take);
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
        self.line.finished(number);
        let Some(known) = known else { return Ok(()) };
        self.rates.finished(&known.facts);
        self.money.finished(scene, &known.facts, finished)?;
        if known.attempt.is_some() {
            return Err((Rule::Permit, "it ended while an attempt of it was under way".to_owned()));
        }
        self.within_budget(&known, finished)
    }

    fn within_budget(&self, known: &UnderWay, finished: &Finished<'_>) -> Found {
        let b = &self.budgets;
        let broken = |how: String| Err((Rule::Budget, how));
        let (waits, waited) = finished.waits;
        if known.sent > b.max_attempts {
            return broken(format!("{} attempts, of at most {}", known.sent, b.max_attempts));
        }
        if finished.attempts.len() as u32 != known.sent {
            return broken(format!("{} attempts are remembered of {} sent", finished.attempts.len(), known.sent));
        }
        if waits > b.max_waits {
            return broken(format!("{waits} waits, of at most {}", b.max_waits));
        }
        if waited > b.max_wait {
            return broken(format!("it waited {waited:?}, of at most {:?}", b.max_wait));
        }
        let took = finished.took.saturating_sub(known.relayed);
        if took > b.max_total {
            return broken(format!("it took {took:?} without its relay, of at most {:?}", b.max_total));
        }
        Ok(())
    }
}

impl UnderWay {
    /// Returns the tokens charged to a limit: the prompt, and an answer of at most 1024 tokens until its length is
    /// known.
    fn charged(&self) -> u32 {
        const ANSWER_TOKENS: u32 = 1_024;
        let max = self.facts.max_tokens;
        self.facts.prompt_tokens.saturating_add(if max == 0 { ANSWER_TOKENS } else { max.min(ANSWER_TOKENS) })
    }
}
