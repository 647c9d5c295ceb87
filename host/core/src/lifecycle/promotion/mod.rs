//! A guarded promotion: two policies on the same traffic, compared exchange by exchange, until the candidate is promoted or
//! rolled back.
//!
//! It may be looked at after every exchange: the bounds hold at all times at once (`bounds`), and their level is
//! divided over the guards and both sides. So a candidate that is no worse than its guards allow is rolled back for a guard
//! with a probability of at most [`ERROR_LEVEL`], however long and busy the promotion is. What a promotion proves is that a
//! candidate *is* worse; that one is promoted says only that it was not shown to be.
//!
//! The bounds take exchanges as independent of each other. Those of one session are not quite, and a session stays on its
//! side: with few, large sessions more is put down to the candidate than it is to blame for.

mod bounds;
mod compare;
mod plan;
mod run;
mod spread;
mod step;

use std::time::Duration;

use crate::record::{End, ExchangeRecord};
use crate::time::Timestamp;
use compare::Comparison;

pub use compare::{GuardReport, GuardStatus, SideStats};
pub use plan::{BadPlan, Guard, Measure, Plan, Share, Subject};
pub use run::{CannotPromote, PromotionEnd, PromotionRun};
pub use step::PromotionStep;

/// A candidate that is no worse than its guards allow is rolled back for one of them with at most this probability.
pub const ERROR_LEVEL: f64 = 0.05;

/// Exchanges that both sides must have had before a candidate is promoted.
pub const MIN_EXCHANGES: u64 = 100;

/// Exchanges that the candidate must have had before it is rolled back for a guard: two failures may be one client's.
pub const MIN_TO_ROLL_BACK: u64 = 10;

vocabulary! {
    /// The side of a promotion that an exchange belongs to.
    pub enum Side {
        /// The policy in force.
        Control = "control",
        /// The one that may become it.
        Candidate = "candidate",
    }
}

/// Measurements of one exchange, for the comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Time of the exchange's arrival.
    pub arrived: Timestamp,
    /// True if its client got no whole answer. A client that disconnected counts as neither.
    pub failed: bool,
    /// From arrival to the last byte.
    pub took: Duration,
    /// Cost of all its attempts, USD.
    pub cost_usd: f64,
}

impl Sample {
    /// Takes the measurements of an ended exchange.
    pub fn of(record: &ExchangeRecord) -> Self {
        let failed = match record.end {
            End::Refused | End::Rejected | End::Broken => true,
            End::Delivered | End::ClientGone | End::Denied => false,
        };
        Self { arrived: record.started, failed, took: record.elapsed, cost_usd: record.cost_usd() }
    }
}

/// The verdict of a promotion after an exchange or a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promotion goes on.
    GoOn,
    /// Its time was over, but not enough is known; it goes on for as long again, once.
    Extended(String),
    /// The candidate takes over, for this reason.
    Promote(String),
    /// The candidate is given up, for this reason.
    RollBack(String),
}

/// State of a promotion: its plan and the totals of both sides.
#[derive(Clone, Debug)]
pub struct Promotion {
    plan: Plan,
    since: Timestamp,
    until: Timestamp,
    /// The reason for the extension; `None`: not extended.
    extended: Option<String>,
    is_over: bool,
    comparison: Comparison,
}

impl Promotion {
    /// A promotion that begins now.
    pub fn new(plan: Plan, now: Timestamp) -> Self {
        let until = now + plan.lasts;
        // All bounds together are ever wrong with at most the stated probability.
        let bounds = Side::ALL.len() * plan.guards.len().max(1);
        let comparison = Comparison::new(ERROR_LEVEL / bounds as f64);
        Self { plan, since: now, until, extended: None, is_over: false, comparison }
    }

    /// Returns share, duration and guards.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the time of the start.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns the time at which it ends or is extended.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Returns the reason for the extension, if it was extended.
    pub fn extended(&self) -> Option<&str> {
        self.extended.as_deref()
    }

    /// An exchange ended; one that had arrived before the promotion says nothing. Promote and RollBack are said once.
    pub fn ended(&mut self, now: Timestamp, side: Side, sample: &Sample) -> Verdict {
        if self.is_over || sample.arrived < self.since {
            return Verdict::GoOn;
        }
        self.comparison.add(side, sample);
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
            Verdict::Extended(why) => {
                self.extended = Some(why.clone());
                self.until = self.until + self.plan.lasts;
            }
            Verdict::Promote(_) | Verdict::RollBack(_) => self.is_over = true,
        }
        verdict
    }

    /// Returns the statistics of a side.
    pub fn seen(&self, side: Side) -> SideStats {
        self.comparison.seen(side)
    }

    /// Every guard, in the order of the plan.
    pub fn findings(&self) -> Vec<GuardReport> {
        let finding = |guard: &Guard| GuardReport {
            guard: *guard,
            standing: self.comparison.standing(guard),
            words: self.comparison.words(guard),
        };
        self.plan.guards.iter().map(finding).collect()
    }

    fn verdict(&self, now: Timestamp) -> Verdict {
        if self.comparison.exchanges(Side::Candidate) >= MIN_TO_ROLL_BACK
            && let Some(guard) = self.plan.guards.iter().find(|guard| self.comparison.is_violated(guard))
        {
            return Verdict::RollBack(format!("{guard} is violated: {}", self.comparison.words(guard)));
        }
        if now < self.until {
            return Verdict::GoOn;
        }
        let missing = self.missing();
        let undecided = missing.clone().or_else(|| {
            let guard = self.plan.guards.iter().find(|guard| self.comparison.standing(guard) == GuardStatus::Beyond)?;
            Some(format!("{guard} may be violated: {}", self.comparison.words(guard)))
        });
        match (undecided, missing) {
            (Some(why), _) if self.extended.is_none() => Verdict::Extended(why),
            (_, Some(why)) => Verdict::RollBack(format!("{why}; the time was extended once already")),
            (_, None) => Verdict::Promote(self.well()),
        }
    }

    /// Returns what is missing for a promotion; `None`: there is enough data.
    fn missing(&self) -> Option<String> {
        let [control, candidate] = Side::ALL.map(|side| self.comparison.exchanges(side));
        if control.min(candidate) < MIN_EXCHANGES {
            return Some(format!(
                "too few requests to judge: {candidate} of the candidate and {control} of the policy in force have ended, and \
                 {MIN_EXCHANGES} of each are needed"
            ));
        }
        let guard = self.plan.guards.iter().find(|guard| self.comparison.standing(guard) == GuardStatus::Unknown)?;
        Some(format!("too few requests to judge {guard}: {}", self.comparison.words(guard)))
    }

    fn well(&self) -> String {
        let words: Vec<String> =
            self.plan.guards.iter().map(|guard| format!("{guard}: {}", self.comparison.words(guard))).collect();
        format!("no guard is violated: {}", words.join("; "))
    }
}

#[cfg(test)]
mod tests;
