//! A client's money lasts the day.
//!
//! What counts is the client's spending since midnight UTC, and with it what is under way: the price of each attempt is put
//! aside in the shared state for one to two minutes, because what an exchange spends is known only at its end. So a
//! burst overshoots by no more than its estimates are wrong. Money that was put aside and is spent meanwhile counts
//! twice for that long, which errs on the safe side.
//!
//! | spent of the cap | what it does |
//! |---|---|
//! | below `careful_at` | the better of two primaries, a wait for one, the cheapest fallback, emergency |
//! | below `save_at` | the cheapest primary, longer waits (`careful_wait_ms`), nothing else |
//! | below the cap | asks for the cheaper model (`cheaper_models`), wherever that is cheapest; without one as above |
//! | all, or all with this request | refuses, and says when to come again |
//!
//! Requests without a client key, whose spending nobody counts, and clients without a cap are served as in the first line.

mod purse;
mod settings;

use pointsman_sdk::{
    Attempt, Candidate, Choose, Decision, Dispatch, Policy, Query, Rejection, Roster, State, Table, Tier, note,
    until_midnight_utc_ms,
};

use crate::purse::{Level, Purse};
use crate::settings::Settings;

/// The policy.
pub struct BudgetGuard {
    settings: Settings,
    roster: Roster,
    clients: Vec<String>,
    /// By client, in millionths of a USD.
    caps: Vec<Option<u64>>,
    /// By model, the one to ask for instead.
    cheaper_models: Vec<Option<usize>>,
}

pointsman_sdk::export!(BudgetGuard);

impl Policy for BudgetGuard {
    fn configure(settings: &str, table: &Table) -> Result<Self, String> {
        let settings = Settings::parse(settings)?;
        let (caps, cheaper_models) = (settings.caps_microusd(table)?, settings.cheaper_models(table)?);
        Ok(Self { settings, roster: Roster::new(table), clients: table.clients.clone(), caps, cheaper_models })
    }

    fn decide(&mut self, query: &Query) -> Decision {
        let Some(purse) = self.purse(query) else {
            return self.as_usual(query).unwrap_or_else(Decision::exhausted);
        };
        let decision = match purse.level(self.settings.careful_at, self.settings.save_at) {
            Level::Plenty => self.as_usual(query),
            Level::Careful => self.careful(query),
            Level::Saving => self.cheaper_model(query).or_else(|| self.saving(query)),
            Level::Over => return self.refuse(&purse),
        };
        let decision = decision.unwrap_or_else(Decision::exhausted);
        if purse.put_aside(self.price_microusd(&decision, query)) { decision } else { self.refuse(&purse) }
    }
}

impl BudgetGuard {
    fn purse(&self, query: &Query) -> Option<Purse<'_>> {
        let client = query.request.client?;
        let price = |attempt: &Attempt| self.roster.get(query, attempt.backend)?.price_microusd(&query.request);
        let own = query.attempts.iter().filter_map(price).sum();
        Purse::of(self.clients.get(client)?, *self.caps.get(client)?, own, query.now_ms)
    }

    fn as_usual(&self, query: &Query) -> Option<Decision> {
        let (request, mut dice) = (&query.request, query.dice());
        let (primaries, fallbacks) = (self.open(query, Tier::Primary), self.open(query, Tier::Fallback));
        let send = |c: Candidate| c.send();
        (primaries.clone().ready().least_tried(query).two_choices(request, &mut dice).map(send))
            .or_else(|| primaries.wait(query, self.settings.patience()))
            .or_else(|| {
                fallbacks.clone().ready().least_tried(query).cheapest(request).two_choices(request, &mut dice).map(send)
            })
            .or_else(|| fallbacks.wait(query, self.settings.patience()))
            .or_else(|| self.roster.candidates(query).emergency(query, self.settings.patience()))
    }

    fn careful(&self, query: &Query) -> Option<Decision> {
        note("the client's budget runs low: the cheapest primary, and no fallback");
        self.cheapest(query, self.open(query, Tier::Primary))
    }

    fn saving(&self, query: &Query) -> Option<Decision> {
        let is_cheaper_model = query.request.model.is_some_and(|model| self.cheaper_models.contains(&Some(model)));
        if !is_cheaper_model {
            return self.careful(query);
        }
        let anywhere = self.roster.candidates(query).with_retries_left(query, self.settings.max_pool_retries);
        self.cheapest(query, anywhere)
    }

    fn cheapest<'a>(&self, query: &'a Query<'a>, candidates: impl Choose<'a>) -> Option<Decision> {
        let ready = candidates.clone().ready().least_tried(query).least_by(|c| price_or_tier(c, query));
        (ready.two_choices(&query.request, &mut query.dice()).map(|c| c.send()))
            .or_else(|| candidates.wait(query, self.settings.careful_patience()))
    }

    /// Asks for another model, before the first attempt. The rows are about the one asked for now, so whoever serves only
    /// the other may be ready or not; if not, the question comes again, with rows about that model.
    fn cheaper_model(&self, query: &Query) -> Option<Decision> {
        let model = self.cheaper_models.get(query.request.model?).copied().flatten()?;
        if !query.attempts.is_empty() {
            return None;
        }
        let open = |c: &Candidate| matches!(c.row().state(), State::Ready | State::Unsuited);
        let price = |c: &Candidate| c.price_as_microusd(&query.request, model);
        let serving = self.roster.all(query).filter(|c| open(c) && c.route(model).is_some());
        let choice = serving.least_by(|c| price(c).unwrap_or_else(|| unpriced(c))).weighted(&mut query.dice())?;
        note("the client's budget is nearly spent: the cheaper model is asked for");
        let dispatch = Dispatch::to(choice.index()).with_model(model);
        Some(match choice.tier() {
            Tier::Primary => Decision::Primary(dispatch),
            Tier::Fallback => Decision::Fallback(dispatch),
        })
    }

    /// Returns the expected cost of the attempt in millionths of a USD; 0 without a known price, or when nothing is
    /// sent.
    fn price_microusd(&self, decision: &Decision, query: &Query) -> u64 {
        let price = || {
            let candidate = self.roster.get(query, decision.backend()?)?;
            let other = decision.dispatch()?.model.map(|model| model as usize);
            candidate.price_as_microusd(&query.request, other.or(query.request.model)?)
        };
        price().unwrap_or(0)
    }

    fn refuse(&self, purse: &Purse) -> Decision {
        const UNDER_WAY_MS: u32 = 60_000;
        let midnight_ms = until_midnight_utc_ms(purse.now_ms);
        // What is only put aside may come back.
        let is_spent = purse.spent >= purse.cap;
        let (what, retry_after_ms) =
            if is_spent { ("is spent", midnight_ms) } else { ("would be exceeded", UNDER_WAY_MS.min(midnight_ms)) };
        let usd = |microusd: u64| microusd as f64 / 1e6;
        Decision::Reject(Rejection {
            status: self.settings.refuse_status,
            kind: "budget_exceeded".to_owned(),
            message: format!(
                "Today's budget of {} {what}: {:.4} of {:.4} USD, and {:.4} under way. The day ends at midnight UTC, in {} minutes.",
                purse.client,
                usd(purse.spent),
                usd(purse.cap),
                usd(purse.under_way),
                midnight_ms.div_ceil(60_000),
            ),
            retry_after_ms: Some(retry_after_ms),
        })
    }

    fn open<'a>(&'a self, query: &'a Query<'a>, tier: Tier) -> impl Choose<'a> {
        self.roster.candidates(query).of(tier).with_retries_left(query, self.settings.max_pool_retries)
    }
}

fn price_or_tier(c: &Candidate, query: &Query) -> u64 {
    c.price_microusd(&query.request).unwrap_or_else(|| unpriced(c))
}

/// A primary without a price is taken to be free, a fallback without one to be the dearest of all.
fn unpriced(c: &Candidate) -> u64 {
    match c.tier() {
        Tier::Primary => 0,
        Tier::Fallback => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use pointsman_sdk::testing::{Case, Given, case, fallback, primary};
    use pointsman_sdk::{Lane, Outcome};

    use super::*;

    /// By a client that has spent so much of 1 USD.
    fn spent(usd: f64, backends: impl IntoIterator<Item = Given>) -> Case {
        case(backends).client("agent", (usd * 1e6) as u64, Some(1_000_000))
    }

    fn decision(case: &Case) -> Decision {
        case.decision::<BudgetGuard>()
    }

    fn rejection(case: &Case) -> Rejection {
        match decision(case) {
            Decision::Reject(rejection) => rejection,
            other => panic!("{other:?}"),
        }
    }

    fn cooling() -> Given {
        primary("free").cooling(Outcome::RateLimited, 40_000)
    }

    /// One USD for a million tokens: 1500 millionths for a usual request.
    fn paid() -> Given {
        fallback("paid").price(1.0, 1.0)
    }

    #[test]
    fn with_plenty_left_it_pays_rather_than_wait_long() {
        assert_eq!(decision(&spent(0.49, [cooling(), paid()])), Decision::fallback(1));
        assert_eq!(decision(&spent(0.49, [primary("free"), paid()])), Decision::primary(0));
    }

    #[test]
    fn from_the_first_threshold_on_it_waits_longer_and_never_pays_for_a_fallback() {
        let careful = spent(0.5, [cooling(), paid()]);
        assert_eq!(decision(&careful), Decision::wait_for_primary(30_000));
        assert_eq!(decision(&careful.after_waits(6)), Decision::exhausted());
        let priced = primary("priced").price(0.1, 0.1);
        assert_eq!(decision(&spent(0.5, [priced, primary("free")])), Decision::primary(1));
    }

    #[test]
    fn from_the_second_on_it_asks_for_the_cheaper_model_where_that_is_cheapest() {
        let big = primary("big").models(&["big"]).price(3.0, 9.0);
        let small = |id: &str, usd| fallback(id).models(&["small"]).price(usd, usd);
        let case = spent(0.8, [big, small("b", 0.2).unsuited(), small("c", 0.1).unsuited(), small("d", 0.0).drained()])
            .settings(r#"{"cheaper_models": {"big": "small"}}"#);
        assert_eq!(decision(&case), Decision::Fallback(Dispatch::to(2).with_model(1)));
        let mut asked = case.after_in(Lane::Fallback, 2, Outcome::ServerError).model("small");
        asked.backends[0] = asked.backends[0].clone().unsuited();
        asked.backends[1] = small("b", 0.2);
        asked.backends[2] = small("c", 0.1);
        assert_eq!(decision(&asked), Decision::fallback(1), "the model stays, and another backend goes first");
        assert_eq!(decision(&spent(0.8, [cooling(), paid()])), Decision::wait_for_primary(30_000), "none is named");
    }

    #[test]
    fn beyond_the_cap_it_says_when_the_day_ends() {
        const SIX_PM_MS: u64 = 18 * 3_600_000;
        let over = spent(1.0, [primary("free")]).at_ms(SIX_PM_MS);
        let refused = rejection(&over);
        assert_eq!((refused.status, refused.retry_after_ms), (429, Some(6 * 3_600_000)));
        assert!(refused.message.contains("in 360 minutes"), "{}", refused.message);
        assert_eq!(rejection(&over.settings(r#"{"refuse_status": 402}"#)).status, 402);
    }

    #[test]
    fn a_burst_cannot_overshoot() {
        // 0.01 USD are left of the cap, and each request costs 0.0015.
        let burst = case([paid()]).client("agent", 0, Some(10_000)).settings(r#"{"careful_at": 1, "save_at": 1}"#);
        let sent = (0..20).filter(|_| decision(&burst) == Decision::fallback(0)).count();
        assert_eq!(sent, 6);
        let refused = rejection(&burst);
        assert_eq!(refused.retry_after_ms, Some(60_000), "nothing is spent yet: {}", refused.message);
        let later = burst.at_ms(1_000_000 + 120_000);
        assert_eq!(decision(&later), Decision::fallback(0), "what was put aside came back");
    }

    #[test]
    fn a_retry_is_not_stopped_by_what_its_first_attempt_put_aside() {
        let last = case([paid()]).client("agent", 0, Some(2_000)).settings(r#"{"careful_at": 1, "save_at": 1}"#);
        assert_eq!(decision(&last), Decision::fallback(0));
        assert_eq!(decision(&last.clone().after(0, Outcome::ServerError)), Decision::fallback(0));
        assert_eq!(rejection(&last).kind, "budget_exceeded", "another exchange is");
    }

    #[test]
    fn caps_come_from_the_settings_before_the_configuration() {
        let of = |settings| decision(&spent(0.6, [cooling(), paid()]).settings(settings));
        assert_eq!(of(r#"{"caps_usd": {"agent": 10}}"#), Decision::fallback(1));
        assert_eq!(of(r#"{"default_cap_usd": 10}"#), Decision::fallback(1));
        let nobody = case([cooling(), paid()]);
        assert_eq!(decision(&nobody), Decision::fallback(1), "without a key nobody counts");
        assert_eq!(decision(&nobody.client("agent", 9_000_000, None)), Decision::fallback(1), "without a cap");
    }

    #[test]
    fn wrong_settings_are_named() {
        let table = spent(0.0, [paid()]).table();
        let error = |json| BudgetGuard::configure(json, &table).err().unwrap_or_default();
        for (json, word) in [
            (r#"{"caps_usd": {"nobody": 1}}"#, "no [[client]] named \"nobody\""),
            (r#"{"caps_usd": {"agent": -1}}"#, "`caps_usd.agent`"),
            (r#"{"careful_at": 0.9}"#, "`careful_at`: 0.9 is not within 0 to 0.8"),
            (r#"{"cheaper_models": {"m": "tiny"}}"#, "the model \"tiny\""),
            (r#"{"refuse_status": 500}"#, "neither 402 nor 429"),
        ] {
            assert!(error(json).contains(word), "{json}: {}", error(json));
        }
    }
}
