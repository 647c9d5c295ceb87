//! Made-up clients: who asks what, when.

use std::sync::Arc;
use std::time::Duration;

use pointsman_core::contract::{NONE, Operation};
use pointsman_core::exchange::Facts;
use pointsman_core::table::Table;
use pointsman_core::time::Timestamp;
use pointsman_engine::Texts;

use crate::dice::Dice;
use crate::world::Ask;

/// Requests that come at random, now few, now many.
pub(super) struct Traffic {
    dice: Dice,
    models: Vec<(Arc<str>, Arc<Texts>)>,
    clients: u32,
    now: Timestamp,
    left: u64,
    mean_gap: Duration,
    /// Requests of a burst that are still to come.
    burst: u64,
}

impl Traffic {
    /// So many requests from `start` on, for the models and by the clients of this table.
    pub(super) fn new(seed: u64, table: &Table, start: Timestamp, exchanges: u64) -> Self {
        let mut dice = Dice::new(seed, 3);
        let name = |model: &str| {
            let texts = Texts { model: model.to_owned(), path: "/v1/chat/completions".to_owned(), ..Texts::default() };
            (Arc::from(model), Arc::new(texts))
        };
        let mut models: Vec<_> = table.models.iter().map(|model| name(model)).collect();
        if models.is_empty() {
            models.push(name("any"));
        }
        models.push(name("nobody's"));
        let mean_gap = Duration::from_secs_f64(dice.magnitude(0.1, 10.0));
        let clients = table.clients.len() as u32;
        Self { dice, models, clients, now: start, left: exchanges, mean_gap, burst: 0 }
    }

    /// The next request, and when it comes.
    pub(super) fn next(&mut self) -> Option<(Timestamp, Ask)> {
        self.left = self.left.checked_sub(1)?;
        self.now = self.now + self.gap();
        Some((self.now, self.ask()))
    }

    fn gap(&mut self) -> Duration {
        /// Once in so many requests a burst begins.
        const CALM: u64 = 100;
        match self.burst.checked_sub(1) {
            Some(left) => {
                self.burst = left;
                self.dice.gap(self.mean_gap / 50)
            }
            None => {
                if self.dice.one_in(CALM) {
                    self.burst = self.dice.between(2, 60);
                }
                self.dice.gap(self.mean_gap)
            }
        }
    }

    fn ask(&mut self) -> Ask {
        let d = &mut self.dice;
        let last = self.models.len() as u64 - 1;
        // Now and then one that nobody serves.
        let model = if d.one_in(500) { last } else { d.below(last) };
        let (model, texts) = self.models[model as usize].clone();
        let operation = if d.one_in(20) { Operation::Embedding } else { Operation::Chat };
        let facts = Facts {
            operation,
            streaming: operation == Operation::Chat && d.one_in(2),
            priority: if d.one_in(5) { d.pick(&[-1, 1, 10]) } else { 0 },
            prompt_tokens: d.magnitude(10.0, 10_000.0) as u32,
            max_tokens: if d.one_in(3) { d.between(1, 4_000) as u32 } else { 0 },
            client: d.below(u64::from(self.clients) + 1).checked_sub(1).map_or(NONE, |client| client as u32),
            session: if d.one_in(4) { d.between(1, 50) } else { 0 },
            translatable: false,
            idempotent: true,
        };
        Ask { model, facts, texts, patience: None }
    }
}
