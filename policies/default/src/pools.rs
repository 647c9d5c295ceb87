//! Backends that may serve each model, worked out once in `configure`.

use std::collections::BTreeMap;

use pointsman_sdk::{Load, Table, Tier, pool};

/// A backend that may serve the model asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Index into the table's backends.
    pub index: usize,
    /// Limits that its load is measured against.
    pub load: Load,
}

/// The candidates of one tier for one model.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    candidates: Vec<Candidate>,
    /// Sum of the weights up to and with each candidate; weights beyond `u32` stop counting.
    weights: Vec<u32>,
}

impl Pool {
    fn new(table: &Table, indices: &[usize]) -> Self {
        let candidates: Vec<Candidate> =
            indices.iter().map(|&index| Candidate { index, load: Load::of(&table.backends[index]) }).collect();
        let weights = candidates
            .iter()
            .scan(0u32, |sum, c| {
                *sum = sum.saturating_add(c.load.weight);
                Some(*sum)
            })
            .collect();
        Self { candidates, weights }
    }

    /// In the order of the table.
    #[inline]
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Sum of all weights.
    pub(crate) fn weight(&self) -> u32 {
        self.weights.last().copied().unwrap_or(0)
    }

    /// The place of the candidate at this point of the weights laid end to end.
    pub(crate) fn at_weight(&self, point: u32) -> usize {
        self.weights.partition_point(|&sum| sum <= point).min(self.candidates.len().saturating_sub(1))
    }
}

/// Both tiers for one model.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Backends of the tier primary.
    pub primary: Pool,
    /// Backends of the tier fallback.
    pub fallback: Pool,
}

/// The pools of every model. Models served by the same backends share theirs.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pairs: Vec<Pair>,
    by_model: Vec<usize>,
    /// For a name that is not listed: everyone; the row's state says who serves it.
    unlisted: usize,
    /// USD per million tokens (input, output) by backend and model.
    prices: BTreeMap<(usize, usize), (f64, f64)>,
}

impl Pools {
    /// The pools of this table.
    pub(crate) fn new(table: &Table) -> Self {
        let mut pairs = Vec::new();
        let mut known = BTreeMap::new();
        let mut place = |model: Option<usize>| {
            let key = (pool(table, Tier::Primary, model), pool(table, Tier::Fallback, model));
            *known.entry(key).or_insert_with_key(|(primary, fallback)| {
                pairs.push(Pair { primary: Pool::new(table, primary), fallback: Pool::new(table, fallback) });
                pairs.len() - 1
            })
        };
        let unlisted = place(None);
        let by_model = (0..table.models.len()).map(|model| place(Some(model))).collect();
        Self { pairs, by_model, unlisted, prices: prices(table) }
    }

    /// The pools of this model.
    #[inline]
    pub(crate) fn of(&self, model: Option<usize>) -> &Pair {
        let place = model.and_then(|m| self.by_model.get(m)).copied().unwrap_or(self.unlisted);
        &self.pairs[place]
    }

    /// USD per million prompt and answer tokens, where both are known.
    pub(crate) fn price(&self, backend: usize, model: usize) -> Option<(f64, f64)> {
        self.prices.get(&(backend, model)).copied()
    }
}

fn prices(table: &Table) -> BTreeMap<(usize, usize), (f64, f64)> {
    let of_backend = |(index, backend): (usize, &pointsman_sdk::Backend)| {
        let of_route =
            move |r: &pointsman_sdk::Route| Some(((index, r.model), (r.input_per_mtok?, r.output_per_mtok?)));
        backend.routes.iter().filter_map(of_route).collect::<Vec<_>>()
    };
    table.backends.iter().enumerate().flat_map(of_backend).collect()
}
