//! The fleet as operators and error messages describe it.

use std::sync::Arc;

use super::health::{Health, is_exclusion};
use super::member::{PartsUsed, Stats};
use super::members::Fleet;
use crate::contract::{Operation, RowState};
use crate::origin::Origin;
use crate::outcome::Kind;
use crate::time::Timestamp;
use crate::view::{Slot, View, Want};

/// A backend's present state, for the operator.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Id of the backend.
    pub id: Arc<str>,
    /// State of the backend as a whole, without its models' cooldowns.
    pub state: RowState,
    /// Cooldown of the backend as a whole: its end and its cause.
    pub cooldown: Option<(Timestamp, Kind)>,
    /// Number of its models in cooldown.
    pub models_cooling: usize,
    /// Cooldowns of its models, the one that ends last first; at most [`MAX_MODEL_COOLDOWNS`].
    pub model_cooldowns: Vec<ModelCooldown>,
    /// Cooldowns of its operations, the one that ends last first; at most [`MAX_MODEL_COOLDOWNS`].
    pub operation_cooldowns: Vec<OperationCooldown>,
    /// Number of attempts under way.
    pub in_flight: u32,
    /// The most attempts under way: as configured, else as learned from refusals; `None`: no ceiling is known.
    pub most_in_flight: Option<u32>,
    /// Requests that may be sent now; `None`: no limit is known.
    pub requests_left: Option<u32>,
    /// Tokens that may be sent now; `None`: no limit is known.
    pub tokens_left: Option<u32>,
    /// Failures of the whole backend since the last answer.
    pub failures: u32,
    /// Moving averages and counts of its attempts.
    pub stats: Stats,
}

/// Counts of a view's backends by whether they take requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServingCounts {
    /// Number of backends in the configuration.
    pub configured: usize,
    /// Backends that the operator took out of service.
    pub drained: usize,
    /// Backends excluded as a whole: the key is refused, or the credit used up.
    pub excluded: usize,
}

impl ServingCounts {
    /// Backends that take requests now or after a wait: cooldowns after a rate limit or an error end by themselves.
    pub fn serving(self) -> usize {
        self.configured - self.drained - self.excluded
    }
}

/// Model cooldowns listed in one [`Overview`].
pub const MAX_MODEL_COOLDOWNS: usize = 16;

/// The cooldown of one model on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCooldown {
    /// The model as it is named to the backend.
    pub model: Arc<str>,
    /// Time at which the cooldown ends.
    pub until: Timestamp,
    /// Kind of the outcome that caused it.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
}

/// The cooldown of one operation on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationCooldown {
    /// The operation, or the words of its path.
    pub operation: Arc<str>,
    /// Time at which the cooldown ends.
    pub until: Timestamp,
    /// Kind of the outcome that caused it.
    pub reason: Kind,
    /// Failures since the last answer.
    pub failures: u32,
}

impl Fleet {
    /// Describes every backend of a view.
    pub fn overview(&self, now: Timestamp, view: &View) -> Vec<Overview> {
        let one = |slot: &Arc<Slot>| {
            let member = self.member(slot.0);
            let (state, cooldown) = member.own_state(now);
            let mut model_cooldowns: Vec<ModelCooldown> = member
                .cooldowns(now)
                .filter_map(|(model, h)| {
                    let Health { until, reason, failures, .. } = *h;
                    Some(ModelCooldown { model: model?.clone(), until, reason, failures })
                })
                .collect();
            let models_cooling = model_cooldowns.len();
            model_cooldowns.sort_by(|a, b| (b.until, &a.model).cmp(&(a.until, &b.model)));
            model_cooldowns.truncate(MAX_MODEL_COOLDOWNS);
            let mut operation_cooldowns: Vec<OperationCooldown> = member
                .operation_cooldowns(now)
                .map(|(operation, h)| {
                    let Health { until, reason, failures, .. } = *h;
                    OperationCooldown { operation: operation.as_str().into(), until, reason, failures }
                })
                .collect();
            operation_cooldowns.sort_by(|a, b| (b.until, &a.operation).cmp(&(a.until, &b.operation)));
            operation_cooldowns.truncate(MAX_MODEL_COOLDOWNS);
            let (requests_left, tokens_left) = member.left(now);
            Overview {
                id: member.id.clone(),
                state,
                cooldown,
                models_cooling,
                model_cooldowns,
                operation_cooldowns,
                in_flight: member.in_flight,
                most_in_flight: member.most_in_flight(),
                requests_left,
                tokens_left,
                failures: member.failures(),
                stats: member.stats,
            }
        };
        view.slots.iter().map(one).collect()
    }

    /// Counts the backends of a view that take requests.
    pub fn serving_counts(&self, now: Timestamp, view: &View) -> ServingCounts {
        let mut counts = ServingCounts { configured: view.slots.len(), ..ServingCounts::default() };
        for slot in &view.slots {
            match self.member(slot.0).own_state(now) {
                (RowState::Drained, _) => counts.drained += 1,
                (RowState::Cooling, Some((_, reason))) if is_exclusion(reason) => counts.excluded += 1,
                (
                    RowState::Ready | RowState::Throttled | RowState::Cooling | RowState::Probing | RowState::Unsuited,
                    _,
                ) => {}
            }
        }
        counts
    }

    /// A backend's state for what is wanted, and the cooldown that causes it: the backend's own or that of the wanted
    /// model, whichever lasts longer.
    pub fn state_for(
        &self,
        now: Timestamp,
        view: &View,
        want: &Want,
        index: u32,
    ) -> (RowState, Option<(Timestamp, Kind)>) {
        self.member(view.slots[index as usize].0).state_for(now, want.parts(), want.tokens)
    }

    /// Kind and number of the failures since its last answer that a request would meet at a backend; `None`: none.
    pub fn last_failure(&self, now: Timestamp, view: &View, want: &Want, index: u32) -> Option<(Kind, u32)> {
        self.member(view.slots[index as usize].0).last_failure(now, want.parts())
    }

    /// Returns true if a backend has answered a request for this model since the start of the process.
    pub fn has_served(&self, view: &View, index: u32, model: &str) -> bool {
        view.slots.get(index as usize).is_some_and(|slot| self.member(slot.0).has_served(model))
    }

    /// Returns true if a backend's cooldown for this model is over and its probe has not been sent.
    pub fn is_probe_due(&self, now: Timestamp, view: &View, index: u32, model: &str) -> bool {
        let origin = Origin::unknown(Operation::Chat);
        let parts = PartsUsed::of(&origin, model);
        view.slots.get(index as usize).is_some_and(|slot| self.member(slot.0).is_probe_due(now, parts))
    }
}
