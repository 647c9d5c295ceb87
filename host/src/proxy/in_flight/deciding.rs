//! Questions to the policy.

use pointsman_core::contract::{Decision, Dispatch, Query, Rejection, RowState};
use pointsman_core::journal::{Failed, Question};
use pointsman_core::table::Tier;
use pointsman_engine::Verdict;

use super::{InFlight, MAX_NOTES};
use crate::proxy::offload_blocking::offload_blocking;
use crate::proxy::request::{PinnedBackend, ProxyRequest};

impl InFlight {
    /// The policy's decision; a request pinned to a backend asks no policy.
    pub fn decide(&mut self, query: Query) -> Decision {
        if let Some(pinned) = self.request.pinned {
            return self.decide_pinned(&query, pinned);
        }
        let asked_at = self.proxy.clock.now();
        let policy = &self.snapshot.policy;
        let on_fault = self.snapshot.config.policy.on_fault;
        let ask = || policy.decide_or(on_fault, &query, &self.request.texts);
        let verdict = if policy.is_slow() { offload_blocking(ask) } else { ask() };
        let now = self.proxy.clock.now();
        let took = now.since(asked_at);
        self.proxy.decided(&verdict, took);
        if self.snapshot.fault_stats.record_decision(now, verdict.fault.as_ref()) {
            self.proxy.breaker_tripped.notify_one();
        }
        if verdict.fault.is_some() {
            self.policy_faults += 1;
        }
        if self.snapshot.is_in_force() {
            let ProxyRequest { id, texts, .. } = &*self.request;
            self.proxy.shadow.mirror(&self.snapshot.view.table, id, &query, texts, &verdict.decision);
        }
        let room = MAX_NOTES.saturating_sub(self.notes.len());
        self.notes.extend(verdict.notes.iter().take(room).cloned());
        let decision = verdict.decision.clone();
        if let Some(trail) = &mut self.trail {
            let Verdict { decision, notes, fault, state } = verdict;
            let fault = fault.map(|f| Failed { kind: f.kind.as_str().to_owned(), message: f.message });
            trail.asked(asked_at, Question { query, decision, notes, fault, state, took });
        }
        decision
    }

    /// One attempt at the pinned backend and no more.
    fn decide_pinned(&self, query: &Query, PinnedBackend { backend: index, within }: PinnedBackend) -> Decision {
        if !query.attempts.is_empty() || !query.rows.is(index as usize, RowState::Ready) {
            return Decision::Reject(Rejection::default());
        }
        let backend = self.snapshot.view.backend(index);
        let total = Some(backend.timeouts.total.min(within));
        let dispatch = Dispatch { backend: Some(index), total, ..Dispatch::default() };
        match backend.tier {
            Tier::Primary => Decision::Primary(dispatch),
            Tier::Fallback => Decision::Fallback(dispatch),
        }
    }
}
