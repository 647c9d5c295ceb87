//! A table seen through the slots its backends have in the fleet, and who serves what.

use std::sync::Arc;

use crate::affinity::Home;
use crate::contract::{NONE, Operation};
use crate::dialect::translate::Translation;
use crate::origin::Origin;
use crate::rank::Rank;
use crate::suited::{takes_model, takes_operation};
use crate::table::{Backend, Table};

/// One configuration's table together with the fleet's slots of its backends; pinned by every exchange for its life.
#[derive(Debug)]
pub struct View {
    /// The configured backends and models.
    pub table: Arc<Table>,
    /// The fleet's slot of each backend, in the table's order.
    pub(crate) slots: Vec<Arc<Slot>>,
    /// Indices of the backends that serve each listed model, per operation.
    listed: Vec<[Arc<[u32]>; Operation::ALL.len()]>,
}

/// A backend's place in the fleet; it is freed when no view holds it any more.
#[derive(Debug)]
pub(crate) struct Slot(pub(crate) usize);

/// Requirements of an exchange on a backend.
#[derive(Clone, Debug)]
pub struct Want {
    /// The model as the client names it.
    pub model: Arc<str>,
    /// Indices of the backends that serve it, ascending.
    pub candidates: Arc<[u32]>,
    /// Those of them that need the request translated, ascending; used when no other is ready.
    pub foreign: Arc<[u32]>,
    /// Estimated tokens, prompt and answer, that a token limit is charged with.
    pub tokens: u32,
    /// Its rank among those who wait.
    pub rank: Rank,
    /// The request that it is for.
    pub origin: Origin,
    /// The backend that holds what it builds on.
    pub home: Option<Home>,
}

impl Want {
    /// The same of those backends only that `keep` keeps.
    pub(crate) fn among(self, keep: impl Fn(u32) -> bool) -> Self {
        let kept = |all: &[u32]| all.iter().copied().filter(|index| keep(*index)).collect();
        Self { candidates: kept(&self.candidates), foreign: kept(&self.foreign), ..self }
    }
}

impl View {
    pub(crate) fn new(table: Arc<Table>, slots: Vec<Arc<Slot>>) -> Self {
        let of = |model: &String| Operation::ALL.map(|operation| candidates(&table, model, operation).into());
        let listed = table.models.iter().map(of).collect();
        Self { table, slots, listed }
    }

    /// Builds the want of a request for this model and operation, with the rank of a newcomer of priority 0.
    pub fn want(&self, model: &Arc<str>, operation: Operation, tokens: u32) -> Want {
        let candidates = match self.table.model_index(model) {
            Some(i) => self.listed[i as usize][operation as usize].clone(),
            None => candidates(&self.table, model, operation).into(),
        };
        Want {
            model: model.clone(),
            candidates,
            foreign: Arc::default(),
            tokens,
            rank: Rank::newcomer(0),
            origin: Origin::unknown(operation),
            home: None,
        }
    }

    /// The same of a request that can be translated: the backends of the other dialect count too.
    pub fn want_across(&self, model: &Arc<str>, operation: Operation, tokens: u32) -> Want {
        let want = self.want(model, operation, tokens);
        let foreign: Arc<[u32]> = self.foreign(model, operation).collect();
        if foreign.is_empty() {
            return want;
        }
        let mut candidates: Vec<u32> = want.candidates.iter().chain(&*foreign).copied().collect();
        candidates.sort_unstable();
        Want { candidates: candidates.into(), foreign, ..want }
    }

    /// The same of those backends only that cost nothing for it.
    pub(crate) fn free_of(&self, want: Want) -> Want {
        let model = want.model.clone();
        want.among(|index| self.backend(index).is_free(&model))
    }

    /// The same with a home. One that is no candidate is none; one that binds leaves no other candidate.
    pub(crate) fn at_home(&self, want: Want, home: Option<Home>) -> Want {
        let Some(home) = home.filter(|home| want.candidates.binary_search(&home.backend).is_ok()) else {
            return Want { home: None, ..want };
        };
        if !home.is_binding {
            return Want { home: Some(home), ..want };
        }
        Want { home: Some(home), ..want.among(|index| index == home.backend) }
    }

    /// Returns true if a backend may serve this for free. `crosses`: the request may be translated.
    pub fn serves_free(&self, model: &Arc<str>, operation: Operation, translatable: bool) -> bool {
        let want = if translatable { self.want_across(model, operation, 0) } else { self.want(model, operation, 0) };
        want.candidates.iter().any(|index| self.backend(*index).is_free(model))
    }

    /// The backends that serve this model by name, but in another dialect that the operation can be translated to.
    /// One that takes any model as it is asked for is none of them: it would be asked for the other provider's models.
    pub fn foreign(&self, model: &str, operation: Operation) -> impl Iterator<Item = u32> {
        let serves = move |b: &Backend| Translation::of(operation, b.dialect).is_some() && b.names(model);
        (0..).zip(&self.table.backends).filter(move |(_, b)| serves(b)).map(|(i, _)| i)
    }

    /// The backend at an index of the table.
    pub fn backend(&self, index: u32) -> &Backend {
        &self.table.backends[index as usize]
    }

    /// The contract's index of a model name.
    pub fn model_index(&self, model: &str) -> u32 {
        self.table.model_index(model).unwrap_or(NONE)
    }
}

fn candidates(table: &Table, model: &str, operation: Operation) -> Vec<u32> {
    let serves = |b: &Backend| takes_operation(table, b, operation) && takes_model(b, model, operation);
    (0..).zip(&table.backends).filter(|(_, b)| serves(b)).map(|(i, _)| i).collect()
}
