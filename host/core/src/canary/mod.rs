//! A guarded promotion: two policies on the same traffic, compared exchange by exchange, until the candidate is promoted or
//! rolled back.
//!
//! It may be looked at after every exchange: the bounds hold at all times at once ([`bounds`]), and their level is
//! divided over the guards and both sides. So a candidate that is no worse than its guards allow is rolled back for a guard
//! with a probability of at most [`ERROR_LEVEL`], however long and busy the trial is. What a trial proves is that a
//! candidate *is* worse; that one is promoted says only that it was not shown to be.
//!
//! The bounds take exchanges as independent of each other. Those of one session are not quite, and a session stays on its
//! side: with few, large sessions more is put down to the candidate than it is to blame for.

mod bounds;
mod plan;
mod spread;

use std::fmt;
use std::time::Duration;

use crate::record::{End, ExchangeRecord};
use crate::time::Timestamp;
use bounds::{Count, Mean};
use spread::Spread;

pub use plan::{BadPlan, Guard, Measure, Plan, Share, Subject};

use plan::Percent;

/// A candidate that is no worse than its guards allow is rolled back for one of them with at most this probability.
pub const ERROR_LEVEL: f64 = 0.05;

/// Exchanges that both sides must have had before a candidate is promoted.
pub const MIN_EXCHANGES: u64 = 100;

/// Exchanges that the candidate must have had before it is rolled back for a guard: two failures may be one client's.
pub const MIN_TO_ROLL_BACK: u64 = 10;

/// The share of exchanges that take longer than the 95th percentile.
const SLOW: f64 = 0.05;

/// Which policy an exchange belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The policy in force.
    Control,
    /// The one that may become it.
    Candidate,
}

impl Side {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Control => "control",
            Side::Candidate => "candidate",
        }
    }
}

/// What an exchange came to, as far as it is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it arrived.
    pub arrived: Timestamp,
    /// Did its client get no whole answer? One that went away is neither a failure nor left out.
    pub failed: bool,
    /// From arrival to the last byte.
    pub took: Duration,
    /// What all its attempts cost, in USD.
    pub cost_usd: f64,
}

impl Sample {
    /// Of an ended exchange.
    pub fn of(record: &ExchangeRecord) -> Self {
        let failed = match record.end {
            End::Refused | End::Rejected | End::Broken => true,
            End::Delivered | End::ClientGone => false,
        };
        Self { arrived: record.started, failed, took: record.elapsed, cost_usd: record.cost_usd() }
    }
}

/// What a trial came to by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    GoOn,
    /// Its time was over, but not enough is known; it goes on for as long again, once.
    Extended(String),
    /// The candidate takes over.
    Promote(String),
    /// The candidate goes.
    RollBack(String),
}

/// How a guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is not enough to say anything.
    Unknown,
    /// The candidate is within the guard, as far as was seen.
    Within,
    /// It seems to be worse than allowed, and that may be chance.
    Beyond,
    /// It is worse than allowed.
    Violated,
}

impl Standing {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Unknown => "unknown",
            Standing::Within => "within",
            Standing::Beyond => "beyond",
            Standing::Violated => "violated",
        }
    }
}

/// What was seen of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Ended exchanges that arrived during the trial.
    pub exchanges: u64,
    /// Those whose client got no whole answer.
    pub failed: u64,
    /// The time that all but a twentieth took no longer than; none: no exchange.
    pub p95: Option<Duration>,
    /// The mean cost of an exchange, in USD.
    pub cost_usd: f64,
}

/// A guard, how it stands, and the same in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The guard.
    pub guard: Guard,
    /// How it stands.
    pub standing: Standing,
    /// In a sentence with numbers.
    pub words: String,
}

/// A trial under way.
#[derive(Clone, Debug)]
pub struct Canary {
    plan: Plan,
    since: Timestamp,
    until: Timestamp,
    is_extended: bool,
    is_over: bool,
    control: Books,
    candidate: Books,
}

/// One side's.
#[derive(Clone, Debug, Default)]
struct Books {
    failed: Count,
    times: Spread,
    cost: Mean,
    /// So many of its times, at least, are above its true 95th percentile.
    surely_slow: u64,
}

impl Canary {
    /// A trial that begins now.
    pub fn new(plan: Plan, now: Timestamp) -> Self {
        let until = now + plan.lasts;
        let (control, candidate) = (Books::default(), Books::default());
        Self { plan, since: now, until, is_extended: false, is_over: false, control, candidate }
    }

    /// What was asked for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// When it began.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// When it ends, or is extended.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Has it been extended?
    pub fn is_extended(&self) -> bool {
        self.is_extended
    }

    /// An exchange ended; one that had arrived before the trial says nothing. Promote and RollBack are said once.
    pub fn ended(&mut self, now: Timestamp, side: Side, sample: &Sample) -> Verdict {
        if self.is_over || sample.arrived < self.since {
            return Verdict::GoOn;
        }
        let level = self.level();
        match side {
            Side::Control => self.control.add(sample, level),
            Side::Candidate => self.candidate.add(sample, level),
        }
        self.look(now)
    }

    /// Looks whether it is over, for time alone may end it.
    pub fn look(&mut self, now: Timestamp) -> Verdict {
        if self.is_over {
            return Verdict::GoOn;
        }
        let verdict = self.verdict(now);
        match &verdict {
            Verdict::GoOn => {}
            Verdict::Extended(_) => {
                self.is_extended = true;
                self.until = self.until + self.plan.lasts;
            }
            Verdict::Promote(_) | Verdict::RollBack(_) => self.is_over = true,
        }
        verdict
    }

    /// What was seen of a side.
    pub fn seen(&self, side: Side) -> Seen {
        let books = match side {
            Side::Control => &self.control,
            Side::Candidate => &self.candidate,
        };
        let Count { yes, of } = books.failed;
        Seen { exchanges: of, failed: yes, p95: books.p95(), cost_usd: books.cost.mean() }
    }

    /// Every guard, in the order of the plan.
    pub fn findings(&self) -> Vec<Finding> {
        let finding = |guard: &Guard| {
            let standing = self.standing(guard);
            Finding { guard: *guard, standing, words: self.words(guard) }
        };
        self.plan.guards.iter().map(finding).collect()
    }

    fn verdict(&self, now: Timestamp) -> Verdict {
        if self.candidate.failed.of >= MIN_TO_ROLL_BACK
            && let Some(guard) = self.plan.guards.iter().find(|guard| self.is_violated(guard))
        {
            return Verdict::RollBack(format!("{guard} is violated: {}", self.words(guard)));
        }
        if now < self.until {
            return Verdict::GoOn;
        }
        let missing = self.missing();
        let undecided = missing.clone().or_else(|| {
            let guard = self.plan.guards.iter().find(|guard| self.standing(guard) == Standing::Beyond)?;
            Some(format!("whether {guard} is violated is open: {}", self.words(guard)))
        });
        match (undecided, missing) {
            (Some(why), _) if !self.is_extended => Verdict::Extended(why),
            (_, Some(why)) => Verdict::RollBack(format!("{why}, even in twice the time")),
            (_, None) => Verdict::Promote(self.well()),
        }
    }

    /// Why there is too little to promote it; none: there is enough.
    fn missing(&self) -> Option<String> {
        let (control, candidate) = (self.control.failed.of, self.candidate.failed.of);
        if control.min(candidate) < MIN_EXCHANGES {
            return Some(format!(
                "the evidence is too thin: {candidate} exchanges of the candidate and {control} of the policy in force \
                 have ended, where {MIN_EXCHANGES} of each are needed"
            ));
        }
        let guard = self.plan.guards.iter().find(|guard| self.standing(guard) == Standing::Unknown)?;
        Some(format!("the evidence is too thin: {guard} cannot be judged: {}", self.words(guard)))
    }

    fn well(&self) -> String {
        let words: Vec<String> =
            self.plan.guards.iter().map(|guard| format!("{}: {}", guard.measure.as_str(), self.words(guard))).collect();
        format!("no guard is violated: {}", words.join("; "))
    }

    /// The level of each bound: all together are ever wrong with at most [`ERROR_LEVEL`].
    fn level(&self) -> f64 {
        const SIDES: usize = 2;
        ERROR_LEVEL / (SIDES * self.plan.guards.len().max(1)) as f64
    }

    fn standing(&self, guard: &Guard) -> Standing {
        if self.is_violated(guard) {
            Standing::Violated
        } else {
            match self.seems_within(guard) {
                None => Standing::Unknown,
                Some(true) => Standing::Within,
                Some(false) => Standing::Beyond,
            }
        }
    }

    /// Is the candidate shown to be worse than allowed? What does not even seem so costs no search for bounds.
    fn is_violated(&self, guard: &Guard) -> bool {
        let limit = guard.limit;
        match guard.measure {
            Measure::ErrorRate => {
                self.candidate.failed.share() - self.control.failed.share() > limit && self.more_failed() > limit
            }
            Measure::P95 => {
                self.slow(limit).is_some_and(|slow| slow.share() > SLOW && slow.refutes(SLOW, self.level()))
            }
            Measure::Spend => self.spends_more(limit).is_some_and(|more| more),
        }
    }

    /// Is what was seen within the guard, chance aside? None: that cannot be told yet.
    fn seems_within(&self, guard: &Guard) -> Option<bool> {
        let (control, candidate) = (&self.control, &self.candidate);
        if control.failed.of.min(candidate.failed.of) == 0 {
            return None;
        }
        let limit = guard.limit;
        match guard.measure {
            Measure::ErrorRate => Some(candidate.failed.share() - control.failed.share() <= limit),
            Measure::P95 => {
                self.allowed(limit)?;
                Some(candidate.p95()? <= control.p95()?.mul_f64(1.0 + limit))
            }
            Measure::Spend => {
                self.spends_more(limit)?;
                Some(candidate.cost.mean() <= control.cost.mean() * (1.0 + limit))
            }
        }
    }

    /// At least so much larger is the candidate's share of failures.
    fn more_failed(&self) -> f64 {
        let level = self.level();
        self.candidate.failed.at_least(level) - self.control.failed.at_most(level)
    }

    /// How many of the candidate's exchanges take longer than the 95th percentile of the policy in force may be, and the
    /// allowance on top. While that percentile is bounded, no more than a twentieth may be.
    fn slow(&self, limit: f64) -> Option<Count> {
        let allowed = self.allowed(limit)?;
        let times = &self.candidate.times;
        Some(Count { yes: times.longer_than(allowed), of: times.count() })
    }

    fn allowed(&self, limit: f64) -> Option<Duration> {
        Some(self.control.times.longest(self.control.surely_slow)?.mul_f64(1.0 + limit))
    }

    /// Does an exchange of the candidate surely cost more than allowed? None: too few have ended.
    fn spends_more(&self, limit: f64) -> Option<bool> {
        let level = self.level();
        let most = self.control.cost.at_most(level)?;
        Some(self.candidate.cost.at_least(level)? > most * (1.0 + limit))
    }

    fn words(&self, guard: &Guard) -> String {
        let (control, candidate) = (&self.control, &self.candidate);
        let limit = guard.limit;
        match guard.measure {
            Measure::ErrorRate => format!(
                "{} of the candidate's exchanges failed and {} of those of the policy in force; at least {} points more, \
                 where {} are allowed",
                Share1(candidate.failed),
                Share1(control.failed),
                Points(self.more_failed().max(0.0)),
                Points(limit)
            ),
            Measure::P95 => match (self.allowed(limit), self.slow(limit)) {
                (Some(allowed), Some(slow)) => format!(
                    "{} of the candidate's exchanges took longer than {:.3} s, which is at least the 95th percentile of the \
                     policy in force and {} more; surely {} of them do, where 5% may",
                    Share1(slow),
                    allowed.as_secs_f64(),
                    Percent(limit),
                    Percent(slow.at_least(self.level()))
                ),
                _ => format!("{} exchanges of the policy in force do not tell its 95th percentile", control.failed.of),
            },
            Measure::Spend => {
                let (least, most) = (candidate.cost.at_least(self.level()), control.cost.at_most(self.level()));
                let means = format!(
                    "an exchange of the candidate costs {:.6} USD and one of the policy in force {:.6}",
                    candidate.cost.mean(),
                    control.cost.mean()
                );
                match (least, most) {
                    (Some(least), Some(most)) => format!(
                        "{means}; surely more than {:.6} and less than {most:.6}, where {} more is allowed",
                        least.max(0.0),
                        Percent(limit)
                    ),
                    _ => means,
                }
            }
        }
    }
}

impl Books {
    fn p95(&self) -> Option<Duration> {
        self.times.quantile(1.0 - SLOW)
    }

    fn add(&mut self, sample: &Sample, level: f64) {
        self.failed.of += 1;
        self.failed.yes += u64::from(sample.failed);
        self.times.add(sample.took);
        self.cost.add(if sample.cost_usd.is_finite() { sample.cost_usd } else { 0.0 });
        // So few slow ones would refute that a twentieth of all is slow. With more exchanges it can only be more.
        let of = self.times.count();
        let too_few = |yes: u64| Count { yes, of }.share() < SLOW && Count { yes, of }.refutes(SLOW, level);
        while too_few(self.surely_slow) {
            self.surely_slow += 1;
        }
    }
}

/// `12 of 340 (3.53%)`
struct Share1(Count);

impl fmt::Display for Share1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({})", self.0.yes, self.0.of, Percent(self.0.share()))
    }
}

/// A difference of shares, in percentage points.
struct Points(f64);

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Percent(self.0).to_string().trim_end_matches('%'))
    }
}

#[cfg(test)]
mod tests;
