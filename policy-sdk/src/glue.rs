//! Between the contract's generated types and the SDK's own; only in components, and only wired by [`crate::export!`].

use crate::query::{Attempt, Query, Request};
use crate::table::{Backend, Lane, Route, Table, TableParts, Tier};
use crate::{Commit, Decision, NONE, Policy, Resume};

/// Bindings that `wit-bindgen` generates from the contract.
#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "policy",
        pub_export_macro: true,
        export_macro_name: "export_component",
        runtime_path: "::pointsman_sdk::glue::wit_bindgen::rt",
    });
}

pub use bindings::export_component;
pub use wit_bindgen;

use bindings::pointsman::policy::request as imports_request;
use bindings::pointsman::policy::types as wire;

/// A configured policy and the table it was configured with.
pub struct Instance<P> {
    policy: P,
    table: Table,
    /// Kept between calls so that a retry costs no allocation.
    attempts: Vec<Attempt>,
}

/// Storage of a component's instance.
pub trait Slot {
    /// The author's type.
    type Policy: Policy;
    /// Reaches it.
    fn with<R>(f: impl FnOnce(&mut Option<Instance<Self::Policy>>) -> R) -> R;
}

impl<S: Slot> bindings::Guest for S {
    fn configure(settings: String, table: wire::Table) -> Result<(), String> {
        let table = Table::new(parts(table));
        let policy = S::Policy::configure(&settings, &table)?;
        S::with(|slot| *slot = Some(Instance { policy, table, attempts: Vec::new() }));
        Ok(())
    }

    #[inline]
    fn decide(query: wire::Query) -> wire::Decision {
        let past = if query.first { NO_PAST } else { imports_request::past() };
        S::with(|slot| {
            let Instance { policy, table, attempts } = slot.as_mut().expect("the host calls `configure` first");
            let layout = table.layout();
            attempts.clear();
            attempts.extend(past.attempts.iter().map(|a| Attempt {
                backend: a.backend as usize,
                lane: from_lane(a.lane),
                outcome: layout.outcome(a.outcome),
                status: a.status,
                elapsed_ms: a.elapsed_ms,
                waits_before: a.waits_before,
            }));
            let r = query.request;
            let decision = policy.decide(&Query {
                now_ms: query.now_ms,
                seed: query.seed,
                request: Request {
                    model: index(r.model),
                    operation: layout.operation(r.operation),
                    client: index(r.client),
                    streaming: r.streaming,
                    priority: r.priority,
                    prompt_tokens: r.prompt_tokens,
                    max_tokens: r.max_tokens,
                    session: r.session,
                    elapsed_ms: r.elapsed_ms,
                    remaining_ms: r.remaining_ms,
                },
                attempts,
                waits: past.waits,
                waited_ms: past.waited_ms,
                rows: &query.rows,
                layout,
            });
            from_decision(decision)
        })
    }
}

const NO_PAST: wire::PastFacts = wire::PastFacts { attempts: Vec::new(), waits: 0, waited_ms: 0 };

fn index(number: u32) -> Option<usize> {
    (number != NONE).then_some(number as usize)
}

fn parts(table: wire::Table) -> TableParts {
    TableParts {
        backends: table.backends.into_iter().map(backend).collect(),
        models: table.models,
        clients: table.clients,
        columns: table.columns,
        operations: table.operations,
        outcomes: table.outcomes,
        attributes: table.attributes,
    }
}

fn backend(b: wire::Backend) -> Backend {
    Backend {
        id: b.id,
        tier: match b.tier {
            wire::Tier::Primary => Tier::Primary,
            wire::Tier::Fallback => Tier::Fallback,
        },
        dialect: b.dialect,
        weight: b.weight,
        rpm: b.rpm,
        tpm: b.tpm,
        max_concurrency: b.max_concurrency,
        routes: b
            .routes
            .into_iter()
            .map(|r| Route {
                model: r.model as usize,
                sent: r.sent,
                input_per_mtok: r.input_per_mtok,
                output_per_mtok: r.output_per_mtok,
            })
            .collect(),
        any_model: b.any_model,
        labels: b.labels,
        capabilities: b.capabilities,
        attributes: b.attributes,
    }
}

fn from_lane(lane: wire::Lane) -> Lane {
    match lane {
        wire::Lane::Primary => Lane::Primary,
        wire::Lane::Fallback => Lane::Fallback,
        wire::Lane::Emergency => Lane::Emergency,
    }
}

fn to_lane(lane: Lane) -> wire::Lane {
    match lane {
        Lane::Primary => wire::Lane::Primary,
        Lane::Fallback => wire::Lane::Fallback,
        Lane::Emergency => wire::Lane::Emergency,
    }
}

fn from_decision(decision: Decision) -> wire::Decision {
    match decision {
        Decision::Primary(d) => wire::Decision::Primary(to_dispatch(d)),
        Decision::Fallback(d) => wire::Decision::Fallback(to_dispatch(d)),
        Decision::Emergency(d) => wire::Decision::Emergency(to_dispatch(d)),
        Decision::Wait(h) => wire::Decision::Wait(wire::Hold { max_ms: h.max_ms, lane: to_lane(h.lane) }),
        Decision::Reject(r) => wire::Decision::Reject(wire::Rejection {
            status: r.status,
            kind: r.kind,
            message: r.message,
            retry_after_ms: r.retry_after_ms,
        }),
    }
}

fn to_dispatch(d: crate::Dispatch) -> wire::Dispatch {
    wire::Dispatch {
        backend: d.backend,
        model: d.model,
        first_byte_ms: d.first_byte_ms,
        first_token_ms: d.first_token_ms,
        idle_ms: d.idle_ms,
        total_ms: d.total_ms,
        commit: d.commit.map(|c| match c {
            Commit::Headers => wire::Commit::Headers,
            Commit::FirstContent => wire::Commit::FirstContent,
            Commit::Tokens(n) => wire::Commit::Tokens(n),
            Commit::Complete => wire::Commit::Complete,
        }),
        resume: d.resume.map(|r| match r {
            Resume::None => wire::Resume::None,
            Resume::Splice => wire::Resume::Splice,
            Resume::Prefill => wire::Resume::Prefill,
        }),
    }
}
