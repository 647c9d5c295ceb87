//! Choosing one backend among those that are ready.

use pointsman_sdk::{Dice, Operation, Query};

use crate::history::History;
use crate::is_healthy;
use crate::pools::{Candidate, Pool, Pools};

/// Pools up to this size are looked at whole; of larger ones, a sample by weight.
const LOOK_AT_MOST: usize = 16;

/// Number of ready ones of a large pool that are compared. Two already keep loads close to even ("the power of two
/// choices", Mitzenmacher 2001); four also find a healthy one when half are not.
const SAMPLE: usize = 4;

/// The best ready candidate, one not tried yet if there is one.
pub(crate) fn best(query: &Query, history: &History, pool: &Pool) -> Option<usize> {
    if pool.candidates().is_empty() {
        return None;
    }
    let mut dice = Dice::new(query.seed);
    if let Some(home) = at_home(query, history, pool) {
        return Some(home);
    }
    if history.is_empty() {
        return best_of(query, pool, &mut dice, |_| true);
    }
    best_of(query, pool, &mut dice, |c| !history.tried(c.index))
        .or_else(|| best_of(query, pool, &mut dice, |c| history.usable(c.index)))
}

/// The candidate that holds the prompt cache of the request's session, or the things it asks about. It is left while it is not
/// ready, ails or is nearly full, and after an attempt in this exchange.
fn at_home(query: &Query, history: &History, pool: &Pool) -> Option<usize> {
    const NEARLY_FULL_PERMILLE: u32 = 900;
    let is_told =
        query.request.session != 0 || matches!(query.request.operation, Operation::Stored | Operation::AnthropicOther);
    if !is_told {
        return None;
    }
    let home = pool.candidates().iter().find(|c| query.backend(c.index).home() != 0)?;
    let row = query.backend(home.index);
    let stays = row.is_ready() && is_healthy(row) && !history.tried(home.index);
    (stays && home.load.permille(row) < NEARLY_FULL_PERMILLE).then_some(home.index)
}

#[inline]
fn best_of(query: &Query, pool: &Pool, dice: &mut Dice, allowed: impl Fn(&Candidate) -> bool) -> Option<usize> {
    let mut shortlist = Shortlist::new(query);
    let candidates = pool.candidates();
    let fits = |c: &Candidate| query.backend(c.index).is_ready() && allowed(c);
    if candidates.len() <= LOOK_AT_MOST {
        for candidate in candidates.iter().filter(|c| fits(c)) {
            shortlist.push(candidate, candidate.load.weight);
        }
        return shortlist.draw(dice);
    }
    for _ in 0..2 * SAMPLE {
        // The draw was by weight already, so each counts the same from here on.
        let candidate = &candidates[pool.at_weight(dice.below(pool.weight()))];
        if fits(candidate) && !shortlist.has(candidate.index) {
            shortlist.push(candidate, 1);
            if shortlist.len == SAMPLE {
                break;
            }
        }
    }
    if shortlist.len == 0 {
        // Few are ready: look for them one by one, from a place that differs from query to query.
        let (after, before) = candidates.split_at(dice.below(candidates.len() as u32) as usize);
        for candidate in before.iter().chain(after).filter(|c| fits(c)).take(SAMPLE) {
            shortlist.push(candidate, candidate.load.weight);
        }
    }
    shortlist.draw(dice)
}

/// Ready candidates, what each costs, and its share if it is one of the cheap ones.
struct Shortlist<'a> {
    query: &'a Query<'a>,
    entries: [(usize, u64, u32); LOOK_AT_MOST],
    len: usize,
    least: u64,
}

impl<'a> Shortlist<'a> {
    fn new(query: &'a Query<'a>) -> Self {
        Self { query, entries: [(0, 0, 0); LOOK_AT_MOST], len: 0, least: u64::MAX }
    }

    #[inline]
    fn push(&mut self, candidate: &Candidate, share: u32) {
        let cost = candidate.load.cost(self.query.backend(candidate.index), self.query.request.streaming);
        self.least = self.least.min(cost);
        self.entries[self.len] = (candidate.index, cost, share);
        self.len += 1;
    }

    fn has(&self, index: usize) -> bool {
        self.entries[..self.len].iter().any(|entry| entry.0 == index)
    }

    /// One of those within a quarter of the cheapest, by share.
    #[inline]
    fn draw(&self, dice: &mut Dice) -> Option<usize> {
        let limit = self.least.saturating_add(self.least / 4);
        let near = || self.entries[..self.len].iter().filter(|entry| entry.1 <= limit);
        let total = near().fold(0u32, |sum, entry| sum.saturating_add(entry.2));
        let mut point = dice.below(total);
        near()
            .find(|entry| {
                let here = point < entry.2;
                point = point.saturating_sub(entry.2);
                here
            })
            .map(|entry| entry.0)
    }
}

/// The ready fallback to spend money on: healthy before ailing, not tried before tried, cheap before dear, and known
/// prices before unknown ones; what is equal in all that is chosen like a primary.
pub(crate) fn cheapest(query: &Query, history: &History, pool: &Pool, pools: &Pools) -> Option<usize> {
    let rank = |c: &Candidate| {
        let tried = history.tried(c.index);
        (!is_healthy(query.backend(c.index)), tried, price_rank(query, pools, c.index))
    };
    let ready = || {
        let fits = |c: &&Candidate| query.backend(c.index).is_ready() && history.may_fall_back_to(c.index);
        pool.candidates().iter().filter(fits)
    };
    let first = ready().map(rank).min()?;
    if let Some(home) = at_home(query, history, pool)
        && ready().any(|c| c.index == home && rank(c) == first)
    {
        return Some(home);
    }
    let mut shortlist = Shortlist::new(query);
    for candidate in ready().filter(|c| rank(c) == first).take(LOOK_AT_MOST) {
        shortlist.push(candidate, candidate.load.weight);
    }
    shortlist.draw(&mut Dice::new(query.seed))
}

/// Cost of this request there, in millionths of a USD; the largest number where no price is known.
fn price_rank(query: &Query, pools: &Pools, backend: usize) -> u64 {
    /// The length of an answer when the client did not limit it.
    const USUAL_ANSWER_TOKENS: u32 = 500;
    let Some((input, output)) = query.request.model.and_then(|model| pools.price(backend, model)) else {
        return u64::MAX;
    };
    let answer = match query.request.max_tokens {
        0 => USUAL_ANSWER_TOKENS,
        most => most.min(USUAL_ANSWER_TOKENS),
    };
    // USD per million tokens times tokens is millionths of a USD.
    (f64::from(query.request.prompt_tokens) * input + f64::from(answer) * output) as u64
}

/// The candidate for the emergency lane: not the last one again while there is another, the fewest emergency attempts,
/// never tried before tried, the soonest to recover, the least loaded.
pub(crate) fn last_resort<'a>(
    query: &Query,
    history: &History,
    candidates: impl Iterator<Item = &'a Candidate>,
) -> Option<usize> {
    let mut dice = Dice::new(query.seed);
    let rank = |c: &&Candidate| {
        let row = query.backend(c.index);
        let cost = c.load.cost(row, query.request.streaming);
        let turn = (history.is_last(c.index), history.emergencies_of(c.index), history.tried(c.index));
        (turn, row.ready_ms(), cost, dice.below(u32::MAX))
    };
    candidates.min_by_key(rank).map(|c| c.index)
}
