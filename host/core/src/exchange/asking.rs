//! The question: what the policy is shown, and how often it may be asked.

use super::dispatching::MAX_LOST_RACES;
use super::waiting::MAX_EMPTY_WAITS;
use super::{Action, Exchange, Phase, Shown};
use crate::contract::{BackendRow, Column, Query, RequestFacts, RowState, Rows};
use crate::fleet::{Fleet, Permit};
use crate::time::{Timestamp, millis_u32};

impl Exchange {
    pub(super) fn ask(&mut self, fleet: &mut Fleet, now: Timestamp, held: Option<Permit>) -> Action {
        if self.spent(now) >= self.budgets.max_total {
            self.give_up_permit(fleet, held);
            return Action::Reject(self.out_of_time());
        }
        // Each question follows the arrival, an attempt, a wait, an empty wait or a lost race, and each of these has its
        // own bound; the sum is a second lock on the same door.
        let b = &self.budgets;
        let most = [b.max_attempts, b.max_waits, MAX_EMPTY_WAITS, MAX_LOST_RACES, 1];
        if self.asked >= most.into_iter().fold(0, u32::saturating_add) {
            self.give_up_permit(fleet, held);
            return self.exhausted(fleet, now);
        }
        self.asked += 1;
        let rows = fleet.rows(now, &self.view, &self.want, held.as_ref());
        let shown = self.shown(&rows);
        let query = self.query(fleet, now, rows);
        self.phase = Phase::Asking { held, shown };
        Action::Ask(query)
    }

    pub(super) fn shown(&self, rows: &[BackendRow]) -> Vec<Shown> {
        let one = |&index: &u32| {
            let row = &rows[index as usize];
            let open_to_emergency = row.number(Column::EmergencyMs) == 0;
            Shown { index, ready: row.is(RowState::Ready), open_to_emergency }
        };
        self.want.candidates.iter().map(one).collect()
    }

    pub(super) fn query(&self, fleet: &mut Fleet, now: Timestamp, rows: Vec<BackendRow>) -> Query {
        let elapsed = now.since(self.arrived);
        let f = &self.facts;
        Query {
            now_ms: now.as_millis(),
            seed: fleet.seed(),
            request: RequestFacts {
                model: self.view.model_index(&self.want.model),
                operation: f.operation,
                client: f.client,
                streaming: f.streaming,
                priority: f.priority,
                prompt_tokens: f.prompt_tokens,
                max_tokens: f.max_tokens,
                session: f.session,
                elapsed_ms: millis_u32(elapsed),
                remaining_ms: millis_u32(self.budgets.max_total.saturating_sub(self.spent(now))),
            },
            attempts: self.attempt_facts.clone(),
            waits: self.waits + self.empty_waits,
            waited_ms: millis_u32(self.waited),
            rows: Rows::new(rows, &self.view.table.columns),
        }
    }
}
