//! A backend of a test and its live numbers.

use std::collections::BTreeMap;

use crate::columns::COLUMNS;
use crate::{Backend, NONE, Outcome, Route, State, Tier};

/// One backend and its live numbers: ready, idle and without limits unless told otherwise.
#[derive(Clone, Debug)]
pub struct Given {
    /// Configuration of the backend; the routes' model indices are filled in by [`Case::table`](super::Case::table).
    pub backend: Backend,
    numbers: BTreeMap<&'static str, u32>,
}

/// A primary backend that serves the model "m".
pub fn primary(id: &str) -> Given {
    Given::new(id, Tier::Primary)
}

/// A fallback backend that serves the model "m".
pub fn fallback(id: &str) -> Given {
    Given::new(id, Tier::Fallback)
}

impl Given {
    fn new(id: &str, tier: Tier) -> Self {
        let backend = Backend {
            id: id.to_owned(),
            tier,
            dialect: "openai".to_owned(),
            weight: 1,
            rpm: None,
            tpm: None,
            max_concurrency: None,
            routes: Vec::new(),
            any_model: false,
            labels: Vec::new(),
            capabilities: Vec::new(),
            attributes: Vec::new(),
        };
        let numbers = COLUMNS.map(|(column, name)| (name, column.unknown())).into();
        let ready = Self { backend, numbers }.with("state", State::Ready as u32).with("ready_ms", 0);
        ready.with("cooldown_reason", 0).models(&["m"])
    }

    /// With this number in a column of its row.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn with(mut self, column: &'static str, number: u32) -> Self {
        assert!(COLUMNS.iter().any(|(_, name)| *name == column), "no column {column:?}");
        self.numbers.insert(column, number);
        self
    }

    /// The number in a column of its row.
    pub fn number(&self, column: &str) -> u32 {
        self.numbers.get(column).copied().unwrap_or(0)
    }

    /// In cooldown for so many ms.
    pub fn cooling(self, reason: Outcome, ready_ms: u32) -> Self {
        let reason = Outcome::ALL.iter().position(|&o| o == reason).map_or(NONE, |at| at as u32);
        self.with("state", State::Cooling as u32)
            .with("cooldown_ms", ready_ms)
            .with("cooldown_reason", reason)
            .with("ready_ms", ready_ms)
    }

    /// At a limit for so many ms.
    pub fn throttled(self, ready_ms: u32) -> Self {
        self.with("state", State::Throttled as u32).with("ready_ms", ready_ms)
    }

    /// Taken out by the operator.
    pub fn drained(self) -> Self {
        self.with("state", State::Drained as u32).with("ready_ms", NONE)
    }

    /// Not for this model or operation.
    pub fn unsuited(self) -> Self {
        self.with("state", State::Unsuited as u32).with("ready_ms", NONE)
    }

    /// With this share of the traffic.
    pub fn weight(mut self, weight: u32) -> Self {
        self.backend.weight = weight;
        self
    }

    /// With this many requests a minute.
    pub fn rpm(mut self, rpm: u32) -> Self {
        self.backend.rpm = Some(rpm);
        self
    }

    /// Serving these models instead of "m", without prices.
    pub fn models(mut self, names: &[&str]) -> Self {
        let route =
            |name: &&str| Route { model: 0, sent: (*name).to_owned(), input_per_mtok: None, output_per_mtok: None };
        self.backend.routes = names.iter().map(route).collect();
        self
    }

    /// At this price for all its models, in USD per million prompt and answer tokens.
    pub fn price(mut self, input: f64, output: f64) -> Self {
        for route in &mut self.backend.routes {
            (route.input_per_mtok, route.output_per_mtok) = (Some(input), Some(output));
        }
        self
    }
}
