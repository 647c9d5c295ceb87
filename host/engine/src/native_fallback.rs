//! The native fallback: the default policy, compiled natively, which decides when a component fails, and in simulations.

use std::sync::{Arc, Mutex, PoisonError};

use pointsman_core::affinity::HOME_WORDS;
use pointsman_core::contract::{self as core, Column};
use pointsman_core::outcome::Kind;
use pointsman_core::table as core_table;
use pointsman_policy_default as default_policy;
use pointsman_sdk as sdk;
use pointsman_sdk::Policy as _;

use super::decision_reader::decision_reader;
use super::state::State;
use super::{Spending, Texts};

/// The default policy over one table.
pub struct NativeFallback {
    policy: Mutex<default_policy::Default>,
    table: sdk::Table,
    /// A `state` of its own: a component's keys have the component's meaning.
    state: Arc<State>,
}

impl NativeFallback {
    /// Configures it with those of the settings that the default policy knows; others are ignored.
    pub fn new(settings: &str, table: &core_table::Table) -> Self {
        let table = to_sdk(table);
        let policy = default_policy::Default::with_settings(default_policy::Settings::parse_known(settings), &table);
        Self { policy: Mutex::new(policy), table, state: Arc::default() }
    }

    /// The decision and the notes.
    pub fn decide(&self, query: &core::Query, texts: &Arc<Texts>) -> (core::Decision, Vec<String>) {
        let layout = self.table.layout();
        let host = HostStub {
            texts: Arc::clone(texts),
            notes: Vec::new(),
            state: Arc::clone(&self.state),
            now_ms: query.now_ms,
        };
        let attempts: Vec<sdk::Attempt> = query.attempts.iter().map(attempt).collect();
        let query = sdk::Query {
            now_ms: query.now_ms,
            seed: query.seed,
            request: request(&query.request, layout),
            attempts: &attempts,
            waits: query.waits,
            waited_ms: query.waited_ms,
            rows: query.rows.numbers(),
            layout,
        };
        // What the policy keeps between questions does not change with them, so a panic would not spoil it.
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let (decided, host) = sdk::host::scope(host, || policy.decide(&query));
        (decision(decided), host.notes)
    }
}

/// The host functions of one decision.
struct HostStub {
    texts: Arc<Texts>,
    notes: Vec<String>,
    state: Arc<State>,
    now_ms: u64,
}

impl sdk::host::Host for HostStub {
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
    fn model(&self) -> String {
        self.texts.model.clone()
    }
    fn path(&self) -> String {
        self.texts.path.clone()
    }
    fn session(&self) -> Option<String> {
        self.texts.session.clone()
    }
    fn label(&self, name: &str) -> Option<String> {
        self.texts.label(name).map(str::to_owned)
    }
    fn spending(&self) -> sdk::Spending {
        let Spending { today_microusd, budget_microusd } = self.texts.spending;
        sdk::Spending { today_microusd, budget_microusd }
    }
    fn state_get(&mut self, key: &str) -> Option<i64> {
        self.state.get(key, self.now_ms)
    }
    fn state_set(&mut self, key: &str, value: i64, ttl_ms: u64) {
        self.state.set(key.to_owned(), value, ttl_ms, self.now_ms);
    }
    fn state_add(&mut self, key: &str, delta: i64, ttl_ms: u64) -> i64 {
        self.state.add(key.to_owned(), delta, ttl_ms, self.now_ms)
    }
}

fn to_sdk(table: &core_table::Table) -> sdk::Table {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    sdk::Table::new(sdk::TableParts {
        backends: table.backends.iter().map(|b| backend(b, &table.models)).collect(),
        models: table.models.clone(),
        clients: table.clients.clone(),
        columns: table.columns.names().map(str::to_owned).collect(),
        operations: words(&core::Operation::ALL.map(core::Operation::as_str)),
        outcomes: words(&Kind::ALL.map(Kind::as_str)),
        attributes: vec![(Column::Home.as_str().to_owned(), HOME_WORDS.join(","))],
    })
}

fn backend(b: &core_table::Backend, models: &[String]) -> sdk::Backend {
    let route = |(model, asked): (usize, &String)| {
        let sent = b.sent_model(asked)?;
        let price = b.price(&sent);
        Some(sdk::Route {
            model,
            sent,
            input_per_mtok: price.map(|p| p.input_per_mtok),
            output_per_mtok: price.map(|p| p.output_per_mtok),
        })
    };
    sdk::Backend {
        id: b.id.to_string(),
        tier: match b.tier {
            core_table::Tier::Primary => sdk::Tier::Primary,
            core_table::Tier::Fallback => sdk::Tier::Fallback,
        },
        dialect: b.dialect.as_str().to_owned(),
        weight: b.weight,
        rpm: b.limits.rpm,
        tpm: b.limits.tpm,
        max_concurrency: b.limits.max_concurrency,
        routes: models.iter().enumerate().filter_map(route).collect(),
        any_model: b.any_model(),
        labels: b.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        capabilities: b.capabilities.iter().filter(|(_, has)| **has).map(|(name, _)| name.clone()).collect(),
        attributes: Vec::new(),
    }
}

fn request(r: &core::RequestFacts, layout: &sdk::Layout) -> sdk::Request {
    let index = |number: u32| (number != core::NONE).then_some(number as usize);
    sdk::Request {
        model: index(r.model),
        operation: layout.operation(r.operation as u32),
        client: index(r.client),
        streaming: r.streaming,
        priority: r.priority,
        prompt_tokens: r.prompt_tokens,
        max_tokens: r.max_tokens,
        session: r.session,
        elapsed_ms: r.elapsed_ms,
        remaining_ms: r.remaining_ms,
    }
}

fn attempt(a: &core::AttemptFacts) -> sdk::Attempt {
    sdk::Attempt {
        backend: a.backend as usize,
        lane: match a.lane {
            core_table::Lane::Primary => sdk::Lane::Primary,
            core_table::Lane::Fallback => sdk::Lane::Fallback,
            core_table::Lane::Emergency => sdk::Lane::Emergency,
        },
        outcome: sdk::Outcome::of(a.outcome.as_str()),
        status: a.status,
        elapsed_ms: a.elapsed_ms,
        waits_before: a.waits_before,
    }
}

decision_reader!(sdk);
