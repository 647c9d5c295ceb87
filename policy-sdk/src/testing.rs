//! Asking a policy in a native unit test: what it is told, in a few words, and what it answers.
//!
//! ```
//! use pointsman_sdk::testing::{case, fallback, primary};
//! use pointsman_sdk::{Decision, Outcome, Policy, Query, Table};
//!
//! struct Waits;
//!
//! impl Policy for Waits {
//!     fn configure(_settings: &str, _table: &Table) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn decide(&mut self, query: &Query) -> Decision {
//!         pointsman_sdk::note("all in good time");
//!         Decision::wait_for_primary(query.backend(0).ready_ms())
//!     }
//! }
//!
//! let cooling = primary("a").cooling(Outcome::RateLimited, 1_500);
//! let answer = case([cooling, fallback("b")]).after(0, Outcome::RateLimited).ask::<Waits>();
//! assert_eq!(answer.decision, Decision::wait_for_primary(1_500));
//! assert_eq!(answer.notes, ["all in good time"]);
//! ```

mod given;
mod memory;

use std::cell::RefCell;

pub use given::{Given, fallback, primary};
pub use memory::Memory;

use crate::columns::COLUMNS;
use crate::host::{self, Spending};
use crate::{Attempt, Backend, Decision, Lane, Operation, Outcome, Policy, Query, Request, Table, TableParts, Tier};

/// One question in the making. The first one about an exchange, of a client that wants a stream of the model "m", unless
/// told otherwise.
#[derive(Clone, Debug)]
pub struct Case {
    /// The backends, in the order of the table.
    pub backends: Vec<Given>,
    /// `[policy.settings]`, as JSON.
    pub settings: String,
    /// The request, in numbers.
    pub request: Request,
    /// Attempts so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// Waits so far.
    pub waits: u32,
    /// Since 1970-01-01 UTC.
    pub now_ms: u64,
    /// The query's randomness.
    pub seed: u64,
    clients: Vec<String>,
    memory: RefCell<Memory>,
}

/// A question about these backends.
pub fn case(backends: impl IntoIterator<Item = Given>) -> Case {
    let request = Request {
        model: Some(0),
        operation: Operation::Chat,
        client: None,
        streaming: true,
        priority: 0,
        prompt_tokens: 1_000,
        max_tokens: 0,
        session: 0,
        elapsed_ms: 0,
        remaining_ms: 600_000,
    };
    Case {
        backends: backends.into_iter().collect(),
        settings: String::new(),
        request,
        attempts: Vec::new(),
        waits: 0,
        now_ms: 1_000_000,
        seed: 1,
        clients: Vec::new(),
        memory: RefCell::default(),
    }
}

/// A policy's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its decision.
    pub decision: Decision,
    /// Notes of the policy.
    pub notes: Vec<String>,
}

impl Case {
    /// With these `[policy.settings]`, as JSON.
    pub fn settings(mut self, json: &str) -> Self {
        self.settings = json.to_owned();
        self
    }

    /// At so many ms since 1970-01-01 UTC.
    pub fn at_ms(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// With an estimate of so many tokens of the prompt.
    pub fn prompt_tokens(mut self, tokens: u32) -> Self {
        self.request.prompt_tokens = tokens;
        self
    }

    /// With this priority.
    pub fn priority(mut self, priority: i32) -> Self {
        self.request.priority = priority;
        self
    }

    /// With so much left of the exchange's total time, in ms.
    pub fn remaining_ms(mut self, ms: u32) -> Self {
        self.request.remaining_ms = ms;
        self
    }

    /// For this model instead of "m".
    pub fn model(mut self, name: &str) -> Self {
        self.request.model = self.models().iter().position(|model| model == name);
        self
    }

    /// By a client with this key, that has spent so much today and may spend so much, in millionths of a USD.
    pub fn client(mut self, name: &str, today_microusd: u64, budget_microusd: Option<u64>) -> Self {
        self.clients = vec![name.to_owned()];
        self.request.client = Some(0);
        self.memory.get_mut().spending = Spending { today_microusd, budget_microusd };
        self
    }

    /// In this session; the text and its number.
    pub fn session(mut self, text: &str, number: u64) -> Self {
        self.request.session = number;
        self.memory.get_mut().session = Some(text.to_owned());
        self
    }

    /// With the header `x-pointsman-label-NAME`.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.memory.get_mut().labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// After an attempt on this backend in its tier's lane.
    pub fn after(self, backend: usize, outcome: Outcome) -> Self {
        let lane = match self.backends[backend].backend.tier {
            Tier::Primary => Lane::Primary,
            Tier::Fallback => Lane::Fallback,
        };
        self.after_in(lane, backend, outcome)
    }

    /// After an attempt on this backend in this lane.
    pub fn after_in(mut self, lane: Lane, backend: usize, outcome: Outcome) -> Self {
        let waits_before = self.waits;
        self.attempts.push(Attempt { backend, lane, outcome, status: 0, elapsed_ms: 10, waits_before });
        self
    }

    /// After so many attempts on this backend in its tier's lane.
    pub fn after_times(self, times: usize, backend: usize, outcome: Outcome) -> Self {
        (0..times).fold(self, |case, _| case.after(backend, outcome))
    }

    /// After so many more waits.
    pub fn after_waits(mut self, waits: u32) -> Self {
        self.waits += waits;
        self
    }

    /// The table of these backends.
    pub fn table(&self) -> Table {
        let words = |list: &mut dyn Iterator<Item = &'static str>| list.map(str::to_owned).collect::<Vec<_>>();
        let models = self.models();
        let mut backends: Vec<Backend> = self.backends.iter().map(|given| given.backend.clone()).collect();
        for route in backends.iter_mut().flat_map(|backend| &mut backend.routes) {
            route.model = models.iter().position(|model| *model == route.sent).unwrap_or_default();
        }
        Table::new(TableParts {
            backends,
            models,
            clients: self.clients.clone(),
            columns: words(&mut COLUMNS.iter().map(|(_, name)| *name)),
            operations: words(&mut Operation::ALL.iter().map(|o| o.as_str())),
            outcomes: words(&mut Outcome::ALL.iter().map(|o| o.as_str())),
            ..TableParts::default()
        })
    }

    /// Asks a policy. It is configured anew for every question, as nothing it keeps may matter, but what it
    /// puts into the shared state is there for the next question.
    ///
    /// # Panics
    /// When the policy refuses the settings.
    pub fn ask<P: Policy>(&self) -> Answer {
        let mut policy = P::configure(&self.settings, &self.table()).expect("the policy takes the settings");
        let mut memory = self.memory.take();
        memory.now_ms = self.now_ms;
        memory.notes.clear();
        let (decision, memory) = host::scope(memory, || self.query(|query| policy.decide(query)));
        let notes = memory.notes.clone();
        self.memory.replace(memory);
        Answer { decision, notes }
    }

    /// Only the decision.
    pub fn decision<P: Policy>(&self) -> Decision {
        self.ask::<P>().decision
    }

    /// Counts how often each backend is chosen over 1000 seeds.
    pub fn shares<P: Policy>(&self) -> Vec<u32> {
        let mut shares = vec![0; self.backends.len()];
        for seed in 0..1_000 {
            let decision = Case { seed, ..self.clone() }.decision::<P>();
            decision.backend().into_iter().for_each(|backend| shares[backend] += 1);
        }
        shares
    }

    /// The query as a policy would get it; for tests of what a policy is made of.
    pub fn query<R>(&self, f: impl FnOnce(&Query) -> R) -> R {
        let table = self.table();
        let row = |given: &Given| COLUMNS.map(|(_, column)| given.number(column));
        let rows: Vec<u32> = self.backends.iter().flat_map(row).collect();
        f(&Query {
            now_ms: self.now_ms,
            seed: self.seed,
            request: self.request,
            attempts: &self.attempts,
            waits: self.waits,
            waited_ms: 0,
            rows: &rows,
            layout: table.layout(),
        })
    }

    /// In the order in which the backends name them.
    fn models(&self) -> Vec<String> {
        let mut models: Vec<String> = Vec::new();
        for route in self.backends.iter().flat_map(|given| &given.backend.routes) {
            if !models.contains(&route.sent) {
                models.push(route.sent.clone());
            }
        }
        models
    }
}
