//! Scenario files: a table of backends, what they answer, requests, and what is expected to become of them.
//!
//! What `pointsman.toml` has too ([[backend]], [[client]], [limits], [cooldown], [stream]) is read by `config`, so that
//! words, defaults and complaints are the same.

mod asked;
mod before;
mod check;
mod questions;
mod raw;
mod syntax;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use pointsman_config::{self as config, Config, ConfigError, OwnKeys};
use pointsman_core::fleet::InitialState;
use pointsman_core::table::Lane;
use pointsman_core::time::Timestamp;
use pointsman_engine::SettingsOffer;

use super::answer::Answer;
use super::world::{Ask, RecordedQuestion};

pub use questions::{NO_NUMBER, USUAL};
pub use syntax::{Count, DecisionPattern, EndPattern, Expected};

/// Requests of one scenario; every one of them is remembered as a story.
pub const MAX_REQUESTS: u32 = 10_000;

/// Keys that stand in lists of `pointsman.toml`, but only in a scenario.
const OWN_KEYS: &OwnKeys = &[("backend", &["before", "script", "outages"]), ("client", &["spent_usd"])];

/// A checked scenario: a table, requests, answers and expectations.
#[derive(Debug)]
pub struct Scenario {
    /// Title: the behaviour it shows, in one sentence.
    pub title: String,
    /// The virtual clock at time 0.
    pub start: Timestamp,
    /// For all that is left to chance.
    pub seed: u64,
    /// Backends, clients, limits and the policy's settings.
    pub config: Config,
    /// The revision that was offered these settings when they were recorded; none: they are for whoever is tested.
    pub settings_of: Option<String>,
    /// Answers of each backend, in the table's order.
    pub scripts: Vec<Script>,
    /// State of each backend at time 0, in the table's order.
    pub pasts: Vec<InitialState>,
    /// Spend of each client before time 0, USD.
    pub spent_usd: Vec<f64>,
    /// In the order of the file.
    pub requests: Vec<Request>,
    /// Expectations on the whole run.
    pub expect: RunExpectation,
}

/// Scripted answers of one backend.
#[derive(Debug)]
pub struct Script {
    /// In the order of its attempts, at least one; the last repeats.
    pub answers: Vec<Answer>,
    /// Instead of these, while they last; times from time 0.
    pub outages: Vec<Outage>,
}

/// A time in which a backend answers otherwise.
#[derive(Debug)]
pub struct Outage {
    /// Its beginning, from the scenario's start.
    pub from: Duration,
    /// Its end, not in it.
    pub until: Duration,
    /// Answer to every attempt meanwhile.
    pub answer: Answer,
}

/// Requests that are all the same.
#[derive(Debug)]
pub struct Request {
    /// Arrival of the first request.
    pub at: Duration,
    /// Number of requests, at least 1.
    pub times: u32,
    /// Time between two requests.
    pub every: Duration,
    /// The request that is sent each time.
    pub ask: Ask,
    /// Expectations on each of them.
    pub expect: Expectation,
    /// Questions to its policy when it was recorded, oldest first; empty for a scenario that was not.
    pub questions: Vec<RecordedQuestion>,
}

/// Expectations on one exchange.
#[derive(Debug, Default)]
pub struct Expectation {
    /// Decisions in order; none: any.
    pub decisions: Option<Vec<Expected>>,
    /// Its end; none: any.
    pub end: Option<EndPattern>,
    /// The longest, arrival to end.
    pub within: Option<Duration>,
    /// Least time from arrival to end.
    pub not_before: Option<Duration>,
    /// Each is part of some note.
    pub notes: Vec<String>,
}

impl Expectation {
    /// Returns true if nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.decisions.is_none()
            && self.end.is_none()
            && self.within.is_none()
            && self.not_before.is_none()
            && self.notes.is_empty()
    }
}

/// Expectations on all exchanges together.
#[derive(Debug, Default)]
pub struct RunExpectation {
    /// Number of attempts at each backend.
    pub attempts: Vec<(Arc<str>, Count)>,
    /// Number of exchanges delivered in each lane.
    pub lanes: Vec<(Lane, Count)>,
    /// Number of exchanges whose answer was delivered whole.
    pub delivered: Option<Count>,
    /// Number of exchanges that Pointsman refused.
    pub rejected: Option<Count>,
    /// Cost of all attempts, USD.
    pub spend_usd: Option<Count>,
}

impl RunExpectation {
    /// Returns true if nothing is expected.
    pub fn is_empty(&self) -> bool {
        self.attempts.is_empty()
            && self.lanes.is_empty()
            && self.delivered.is_none()
            && self.rejected.is_none()
            && self.spend_usd.is_none()
    }
}

impl Scenario {
    /// Reads a scenario. `file_name` is what problems call it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        config::sketch(text, file_name, OWN_KEYS, check::check)
    }

    /// Returns the recorded questions of its only request; none in a scenario that was not recorded.
    pub fn recorded(&self) -> &[RecordedQuestion] {
        self.requests.iter().map(|request| &*request.questions).find(|questions| !questions.is_empty()).unwrap_or(&[])
    }

    /// The policy's settings, as JSON.
    pub fn settings(&self) -> String {
        serde_json::Value::Object(self.config.policy.settings.clone()).to_string()
    }

    /// Returns the settings for the policy under test. Recorded settings include other policies', so that every policy
    /// is given those that it knows.
    pub fn offer(&self) -> SettingsOffer {
        match &self.settings_of {
            Some(_) => config::recorded_settings(&self.settings()),
            None => SettingsOffer::from(&self.settings()),
        }
    }
}
