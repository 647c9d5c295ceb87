//! Between the core's words and the contract's generated bindings.

use pointsman_core::affinity::HOME_WORDS;
use pointsman_core::contract as core;
use pointsman_core::outcome::Kind;
use pointsman_core::route_index::RouteIndex;
use pointsman_core::table as core_table;

use self::bindings::pointsman::policy::types as wire;
use super::decision_reader::decision_reader;

/// Bindings that `wasmtime` generates from the contract.
#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "policy",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// The table as `configure` tells it, borrowed from [`TableParts`].
pub(super) struct TableParts {
    backends: Vec<BackendParts>,
    models: Vec<String>,
    clients: Vec<String>,
    columns: core::Columns,
}

struct BackendParts {
    id: String,
    tier: wire::Tier,
    dialect: &'static str,
    weight: u32,
    limits: core_table::Limits,
    routes: Vec<RouteParts>,
    any_model: bool,
    labels: Vec<(String, String)>,
    capabilities: Vec<String>,
}

struct RouteParts {
    model: u32,
    sent: String,
    price: Option<core_table::Price>,
}

impl TableParts {
    pub(super) fn new(table: &core_table::Table) -> Self {
        Self {
            backends: table.backends.iter().map(|b| BackendParts::new(b, &table.models)).collect(),
            models: table.models.clone(),
            clients: table.clients.clone(),
            columns: table.columns.clone(),
        }
    }

    /// Hands the wire form to `f`; it borrows from this.
    pub(super) fn with<R>(&self, f: impl FnOnce(wire::Table<'_>) -> R) -> R {
        let routes: Vec<Vec<wire::Route>> = self.backends.iter().map(BackendParts::routes).collect();
        let labels: Vec<Vec<(&str, &str)>> = self.backends.iter().map(BackendParts::labels).collect();
        let capabilities: Vec<Vec<&str>> = self.backends.iter().map(|b| strs(&b.capabilities)).collect();
        let backends: Vec<wire::Backend> = self
            .backends
            .iter()
            .enumerate()
            .map(|(i, b)| wire::Backend {
                id: &b.id,
                tier: b.tier,
                dialect: b.dialect,
                weight: b.weight,
                rpm: b.limits.rpm,
                tpm: b.limits.tpm,
                max_concurrency: b.limits.max_concurrency,
                routes: &routes[i],
                any_model: b.any_model,
                labels: &labels[i],
                capabilities: &capabilities[i],
                attributes: &[],
            })
            .collect();
        let columns: Vec<&str> = self.columns.names().collect();
        f(wire::Table {
            backends: &backends,
            models: &strs(&self.models),
            clients: &strs(&self.clients),
            columns: &columns,
            operations: &core::Operation::ALL.map(core::Operation::as_str),
            outcomes: &Kind::ALL.map(Kind::as_str),
            attributes: &[(core::Column::Home.as_str(), &HOME_WORDS.join(","))],
        })
    }
}

impl BackendParts {
    fn new(backend: &core_table::Backend, models: &[String]) -> Self {
        let index = RouteIndex::new(backend);
        let route = |(model, asked): (usize, &String)| {
            let sent = index.sent_model(asked)?;
            let price = backend.price(&sent).cloned();
            Some(RouteParts { model: model as u32, sent, price })
        };
        Self {
            id: backend.id.to_string(),
            tier: match backend.tier {
                core_table::Tier::Primary => wire::Tier::Primary,
                core_table::Tier::Fallback => wire::Tier::Fallback,
            },
            dialect: backend.dialect.as_str(),
            weight: backend.weight,
            limits: backend.limits,
            routes: models.iter().enumerate().filter_map(route).collect(),
            any_model: backend.any_model(),
            labels: backend.labels.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            capabilities: backend.capabilities.iter().filter(|(_, has)| **has).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn routes(&self) -> Vec<wire::Route<'_>> {
        self.routes
            .iter()
            .map(|r| wire::Route {
                model: r.model,
                sent: &r.sent,
                input_per_mtok: r.price.as_ref().map(|p| p.input_per_mtok),
                output_per_mtok: r.price.as_ref().map(|p| p.output_per_mtok),
            })
            .collect()
    }

    fn labels(&self) -> Vec<(&str, &str)> {
        self.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }
}

fn strs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// Converts the attempts before a question; none before the first.
#[inline]
pub(super) fn past(query: &core::Query) -> Option<wire::PastFacts> {
    let attempt = |a: &core::AttemptFacts| wire::Attempt {
        backend: a.backend,
        lane: lane_out(a.lane),
        outcome: a.outcome.index(),
        status: a.status,
        elapsed_ms: a.elapsed_ms,
        waits_before: a.waits_before,
    };
    (!is_first(query)).then(|| wire::PastFacts {
        attempts: query.attempts.iter().map(attempt).collect(),
        waits: query.waits,
        waited_ms: query.waited_ms,
    })
}

#[inline]
fn is_first(query: &core::Query) -> bool {
    query.attempts.is_empty() && query.waits == 0
}

/// The query without its past; its rows are not copied on this side.
#[inline]
pub(super) fn query(query: &core::Query) -> wire::Query<'_> {
    let r = &query.request;
    wire::Query {
        now_ms: query.now_ms,
        seed: query.seed,
        request: wire::RequestFacts {
            model: r.model,
            operation: r.operation as u32,
            client: r.client,
            streaming: r.streaming,
            priority: r.priority,
            prompt_tokens: r.prompt_tokens,
            max_tokens: r.max_tokens,
            session: r.session,
            elapsed_ms: r.elapsed_ms,
            remaining_ms: r.remaining_ms,
        },
        first: is_first(query),
        rows: query.rows.numbers(),
    }
}

decision_reader!(wire);

fn lane_out(lane: core_table::Lane) -> wire::Lane {
    match lane {
        core_table::Lane::Primary => wire::Lane::Primary,
        core_table::Lane::Fallback => wire::Lane::Fallback,
        core_table::Lane::Emergency => wire::Lane::Emergency,
    }
}
