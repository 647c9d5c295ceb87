//! Money: what each attempt costs, and what each client key has spent today.

use std::collections::HashSet;
use std::sync::Arc;

use pointsman_config::{Client, Config};
use pointsman_core::exchange::Facts;
use pointsman_core::outcome::Kind;
use pointsman_core::record::AttemptRecord;
use pointsman_core::time::Timestamp;
use pointsman_core::view::View;

use super::{Found, Rule};
use crate::world::{Ask, Finished, Scene};

/// Sums of floating-point numbers differ by less than this, USD.
const ROUNDING_USD: f64 = 1e-9;

/// Spend of all client keys, by the judge's own books.
pub(super) struct Money {
    clients: Vec<Purse>,
    /// Exchanges under way that were let in over their client's budget, and must cost nothing.
    free_only: HashSet<u64>,
}

struct Purse {
    budget_usd: Option<f64>,
    free_when_over_budget: bool,
    spent_usd: f64,
    day: u64,
}

impl Money {
    pub(super) fn new(config: &Config) -> Self {
        let purse = |client: &Client| Purse {
            budget_usd: client.budget_usd_per_day,
            free_when_over_budget: client.free_when_over_budget,
            spent_usd: 0.0,
            day: 0,
        };
        Self { clients: config.clients.iter().map(purse).collect(), free_only: HashSet::new() }
    }

    /// Somebody was let in: what it was told is what was spent, and less than its budget, or it may use what costs nothing.
    pub(super) fn arrived(&mut self, now: Timestamp, exchange: u64, ask: &Ask) -> Found {
        let Some(purse) = self.clients.get_mut(ask.facts.client as usize) else { return Ok(()) };
        let spent = purse.today(now);
        let told = ask.texts.spending.today_microusd;
        if told.abs_diff((spent * 1e6).round() as u64) > 1 {
            return Err((
                Rule::Spend,
                format!("its key is told to have spent {told} microUSD today, and spent {spent} USD"),
            ));
        }
        match purse.budget_usd {
            Some(budget) if spent > budget + ROUNDING_USD => {
                if !purse.free_when_over_budget {
                    return Err((Rule::Spend, format!("it was let in when {spent} USD of {budget} were spent")));
                }
                self.free_only.insert(exchange);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn finished(&mut self, scene: &Scene<'_>, facts: &Facts, finished: &Finished<'_>) -> Found {
        let mut sum = 0.0;
        for attempt in finished.attempts {
            sum += cost(scene.view, attempt)?;
        }
        if self.free_only.remove(&scene.exchange) && sum > 0.0 {
            return Err((Rule::Spend, format!("it cost {sum} USD although its client's budget was spent before")));
        }
        if let Some(purse) = self.clients.get_mut(facts.client as usize) {
            purse.today(scene.now);
            purse.spent_usd += sum;
        }
        Ok(())
    }
}

impl Purse {
    fn today(&mut self, now: Timestamp) -> f64 {
        let day = now.as_millis() / 86_400_000;
        if day != self.day {
            (self.day, self.spent_usd) = (day, 0.0);
        }
        self.spent_usd
    }
}

/// Computes an attempt's cost from its tokens, and compares it with the recorded one.
fn cost(view: &View, attempt: &AttemptRecord) -> Result<f64, (Rule, String)> {
    let backend = view.table.backends.iter().find(|b| Arc::ptr_eq(&b.id, &attempt.backend) || b.id == attempt.backend);
    let price = backend.and_then(|b| b.price(&attempt.model_sent)).cloned().unwrap_or_default();
    let (input, output) = (attempt.usage.input_tokens as f64, attempt.usage.output_tokens as f64);
    let cost = if brings_tokens(attempt.outcome) {
        (input * price.input_per_mtok + output * price.output_per_mtok) / 1e6
    } else {
        0.0
    };
    if (cost - attempt.cost_usd).abs() > ROUNDING_USD {
        let (kind, told) = (attempt.outcome.as_str(), attempt.cost_usd);
        return Err((Rule::Spend, format!("an attempt that was {kind} cost {cost} USD and is remembered as {told}")));
    }
    Ok(cost)
}

/// Returns true if an attempt with this outcome delivers an answer or a part of one.
fn brings_tokens(kind: Kind) -> bool {
    match kind {
        Kind::Answered | Kind::Cut | Kind::Stalled | Kind::TimedOut | Kind::Malformed | Kind::NotResumed => true,
        Kind::RateLimited
        | Kind::OutOfCredit
        | Kind::Overloaded
        | Kind::ServerError
        | Kind::Refused
        | Kind::TooLong
        | Kind::ModelMissing
        | Kind::Unauthorised
        | Kind::ConnectFailed
        | Kind::Reset
        | Kind::ClientGone => false,
    }
}
