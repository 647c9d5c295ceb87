//! A table seen through the slots its backends have in the fleet, and who serves what.

use std::sync::Arc;

use crate::affinity::Home;
use crate::contract::{NONE, Operation};
use crate::dialect::translate::Translation;
use crate::origin::Origin;
use crate::rank::Rank;
use crate::suited::{takes_model, takes_operation};
use crate::table::{Backend, Table};
use crate::usage::ServiceTier;

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

/// Backends for a request that asks a model which is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutModel {
    /// Any: they do not differ in what they serve, and send it as it is asked for.
    Any,
    /// Only those that serve every model as it is asked for.
    ServingAll,
    /// None: there is a choice of models, and nobody serves them all.
    None,
}

/// The label of a backend that names the provider's account behind its key: what one key of it has made, the others have too.
pub const ACCOUNT: &str = "account";

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

    /// The same with a home. One that is no candidate is none; one that binds leaves no other candidate but those of the same
    /// account.
    pub(crate) fn at_home(&self, want: Want, home: Option<Home>) -> Want {
        let Some(home) = home.filter(|home| want.candidates.binary_search(&home.backend).is_ok()) else {
            return Want { home: None, ..want };
        };
        if !home.is_binding {
            return Want { home: Some(home), ..want };
        }
        Want { home: Some(home), ..want.among(|index| self.is_same_account(home.backend, index)) }
    }

    /// Returns true if two backends are one, or two keys of one account: their operator gives them the same [`ACCOUNT`].
    fn is_same_account(&self, one: u32, other: u32) -> bool {
        let account = |index| self.backend(index).labels.get(ACCOUNT);
        let dialect = |index| self.backend(index).dialect;
        one == other || account(one).is_some() && account(one) == account(other) && dialect(one) == dialect(other)
    }

    /// The same of those backends only whose cost can be counted.
    pub(crate) fn priced_of(&self, want: Want) -> Want {
        let model = want.model.clone();
        want.among(|index| self.is_priced(index, &model))
    }

    /// Returns true if the cost of a model at a backend can be counted: it has a price, or it is a primary without any price,
    /// which is free, in a table where others have prices. Where nobody has one, prices were forgotten.
    fn is_priced(&self, index: u32, model: &str) -> bool {
        let backend = self.backend(index);
        let sent = backend.sent_model(model);
        backend.price(sent.as_deref().unwrap_or(model)).is_some()
            || backend.is_unpriced_primary() && self.table.backends.iter().any(|other| !other.prices.is_empty())
    }

    /// Returns true if a backend may serve this for free. `translatable`: the request may be translated.
    pub fn serves_free(&self, model: &Arc<str>, operation: Operation, translatable: bool) -> bool {
        let want = if translatable { self.want_across(model, operation, 0) } else { self.want(model, operation, 0) };
        want.candidates.iter().any(|index| self.backend(*index).is_free(model) && self.is_priced(*index, model))
    }

    /// The highest prices of a prompt token and an answer token, USD per million, at the backends that may serve this and
    /// whose cost can be counted, for a prompt of so many tokens and this service tier; `None` where there are backends and none of them has a
    /// price.
    pub fn dearest(
        &self,
        model: &Arc<str>,
        operation: Operation,
        translatable: bool,
        prompt_tokens: u32,
        service_tier: Option<ServiceTier>,
    ) -> Option<(f64, f64)> {
        let want = if translatable { self.want_across(model, operation, 0) } else { self.want(model, operation, 0) };
        let is_known = want.candidates.is_empty();
        let priced = self.priced_of(want);
        if priced.candidates.is_empty() && !is_known {
            return None;
        }
        let prices = priced.candidates.iter().filter_map(|index| {
            let backend = self.backend(*index);
            backend.price(&backend.sent_model(model)?).map(|price| {
                let ((input, output), factor) = (price.dearest_for(prompt_tokens.into()), price.factor(service_tier));
                (input * factor, output * factor)
            })
        });
        let (input, output) =
            prices.fold((0.0, 0.0), |dearest, price| (f64::max(dearest.0, price.0), f64::max(dearest.1, price.1)));
        Some((input, if operation.has_answer_tokens() { output } else { 0.0 }))
    }

    /// Backends that a request of this operation may go to whose model is not known, though a model is asked: the choice
    /// must not be luck, and no name can be changed.
    pub fn without_model(&self, operation: Operation) -> WithoutModel {
        let takers = || self.table.backends.iter().filter(|b| takes_operation(&self.table, b, operation));
        let Some(first) = takers().next() else { return WithoutModel::Any };
        let is_renamed = |b: &Backend| b.routes.iter().any(|route| route.asked.to_string() != route.sent);
        if takers().all(Backend::serves_all) || takers().all(|b| b.routes == first.routes && !is_renamed(b)) {
            return WithoutModel::Any;
        }
        if takers().any(Backend::serves_all) { WithoutModel::ServingAll } else { WithoutModel::None }
    }

    /// The same of those backends only that serve every model as it is asked for.
    pub(crate) fn serving_all_of(&self, want: Want) -> Want {
        Want { foreign: Arc::default(), ..want.among(|index| self.backend(index).serves_all()) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::table::Price;
    use crate::table::{Pattern, Route, Tier};

    fn backend(tier: Tier, dialect: Dialect, routes: &[(&str, &str)], prices: &[(&str, f64)]) -> Backend {
        let route =
            |(asked, sent): &(&str, &str)| Route { asked: Pattern::parse(asked).unwrap(), sent: (*sent).to_owned() };
        let price = |(sent, usd): &(&str, f64)| {
            ((*sent).to_owned(), Price { input_per_mtok: *usd, output_per_mtok: 2.0 * usd, ..Price::default() })
        };
        Backend {
            tier,
            dialect,
            routes: routes.iter().map(route).collect(),
            prices: prices.iter().map(price).collect(),
            ..Backend::new("a")
        }
    }

    fn view_of(backends: Vec<Backend>) -> View {
        View::new(Arc::new(Table::new(backends, Vec::new())), Vec::new())
    }

    fn view(backends: &[(Dialect, &[(&str, &str)])]) -> View {
        view_of(backends.iter().map(|(dialect, routes)| backend(Tier::Primary, *dialect, routes, &[])).collect())
    }

    #[test]
    fn what_has_no_price_is_not_free_for_a_budget() {
        let openai = |tier, prices: &[(&str, f64)]| backend(tier, Dialect::OPENAI, &[("m", "m"), ("n", "n")], prices);
        let dearest = |backends: Vec<Backend>, model: &str| {
            view_of(backends).dearest(&Arc::from(model), Operation::Chat, false, 0, None)
        };
        assert_eq!(dearest(vec![openai(Tier::Primary, &[])], "m"), None, "nobody has a price");
        assert_eq!(dearest(vec![openai(Tier::Fallback, &[])], "m"), None);
        let priced = || openai(Tier::Fallback, &[("m", 3.0)]);
        assert_eq!(dearest(vec![priced()], "m"), Some((3.0, 6.0)));
        assert_eq!(dearest(vec![priced()], "n"), None, "it has prices, and none for this");
        assert_eq!(dearest(vec![openai(Tier::Primary, &[("m", 0.0)])], "n"), None);
        assert_eq!(dearest(vec![openai(Tier::Primary, &[]), priced()], "n"), Some((0.0, 0.0)), "a free primary");
        assert_eq!(dearest(vec![openai(Tier::Primary, &[("*", 9.0)]), priced()], "m"), Some((9.0, 18.0)));
        assert_eq!(dearest(vec![priced()], "other"), Some((0.0, 0.0)), "nobody serves it");
    }

    #[test]
    fn a_request_whose_model_is_not_known_goes_nowhere_by_luck() {
        const OPEN: &[(&str, &str)] = &[];
        const STAR: &[(&str, &str)] = &[("*", "*")];
        for (backends, expected) in [
            (&[OPEN][..], WithoutModel::Any),
            (&[OPEN, STAR], WithoutModel::Any),
            (&[&[("a", "a")]], WithoutModel::Any),
            (&[&[("a", "a"), ("b", "b")], &[("a", "a"), ("b", "b")]], WithoutModel::Any),
            (&[&[("a", "x/a")]], WithoutModel::None),
            (&[&[("a", "a")], &[("b", "b")]], WithoutModel::None),
            (&[&[("a", "a")], &[("*", "b")]], WithoutModel::None),
            (&[&[("a", "a")], &[("b", ""), ("*", "*")]], WithoutModel::None),
            (&[&[("a", "a")], OPEN], WithoutModel::ServingAll),
            (&[&[("a", "a")], STAR], WithoutModel::ServingAll),
        ] {
            let backends: Vec<_> = backends.iter().map(|routes| (Dialect::OPENAI, *routes)).collect();
            assert_eq!(view(&backends).without_model(Operation::Chat), expected, "{backends:?}");
        }
        let two = view(&[(Dialect::OPENAI, &[("a", "a")]), (Dialect::ANTHROPIC, &[("b", "b")])]);
        assert_eq!(two.without_model(Operation::Chat), WithoutModel::Any, "only one takes chats as they are");
        let alike = view(&[(Dialect::OPENAI, &[("a", "a")]), (Dialect::OPENAI, &[("b", "b")])]);
        assert_eq!(alike.without_model(Operation::Other), WithoutModel::None);
    }
}
