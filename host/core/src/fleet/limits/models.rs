//! Limits of single models on a backend, counted by the name that is sent.

use std::collections::HashMap;
use std::time::Duration;

use super::RateLimits;
use crate::contract::NONE;
use crate::table::{Backend, Limits, Pattern};
use crate::time::Timestamp;

/// Models counted per backend; beyond it the one that was used longest ago is dropped.
const MAX_MODELS: usize = 1_024;

/// The limits of a backend's models.
#[derive(Debug, Default)]
pub struct ModelRates {
    /// None where it has none.
    rules: Option<Box<Rules>>,
    known: HashMap<String, OfModel>,
}

#[derive(Debug)]
struct Rules {
    /// The backend, which knows the name sent for a name asked.
    backend: Backend,
    /// Exact names first, then the longer patterns.
    limits: Vec<(Pattern, Limits)>,
}

#[derive(Debug)]
struct OfModel {
    rates: RateLimits,
    max_concurrency: Option<u32>,
    in_flight: u32,
    used_at: Timestamp,
}

impl Rules {
    fn limits(&self, sent: &str) -> Option<Limits> {
        self.limits.iter().find(|(pattern, _)| pattern.capture(sent).is_some()).map(|(_, limits)| *limits)
    }
}

impl OfModel {
    fn new(limits: Limits, now: Timestamp) -> Self {
        Self { rates: RateLimits::new(limits), max_concurrency: limits.max_concurrency, in_flight: 0, used_at: now }
    }
}

impl ModelRates {
    /// Changes the limits; units already used stay used.
    pub fn set(&mut self, backend: &Backend) {
        if backend.model_limits.is_empty() {
            *self = Self::default();
            return;
        }
        let mut limits: Vec<(Pattern, Limits)> =
            backend.model_limits.iter().filter_map(|(text, limits)| Some((Pattern::parse(text)?, *limits))).collect();
        limits.sort_by_key(|(pattern, _)| match pattern {
            Pattern::Exact(_) => 0,
            Pattern::Glob { prefix, suffix } => usize::MAX - prefix.len() - suffix.len(),
        });
        let rules = Rules { backend: backend.clone(), limits };
        self.known.retain(|sent, model| match rules.limits(sent) {
            Some(limits) => {
                model.rates.set(limits);
                model.max_concurrency = limits.max_concurrency;
                true
            }
            None => false,
        });
        self.rules = Some(Box::new(rules));
    }

    /// Makes all of it unused.
    pub fn reset(&mut self) {
        self.known.values_mut().for_each(|model| model.rates.reset());
    }

    /// The name sent for a name asked, where this backend limits it.
    fn sent(&self, asked: &str) -> Option<(String, Limits)> {
        let rules = self.rules.as_ref()?;
        let sent = rules.backend.sent_model(asked).unwrap_or_else(|| asked.to_owned());
        let limits = rules.limits(&sent)?;
        Some((sent, limits))
    }

    fn of(&self, asked: &str) -> Option<&OfModel> {
        self.rules.as_ref()?;
        let (sent, _) = self.sent(asked)?;
        self.known.get(&sent)
    }

    fn of_mut(&mut self, asked: &str) -> Option<&mut OfModel> {
        self.rules.as_ref()?;
        let (sent, _) = self.sent(asked)?;
        self.known.get_mut(&sent)
    }

    /// Counts a request that is sent now.
    pub fn take(&mut self, now: Timestamp, asked: &str, tokens: u32) {
        let Some((sent, limits)) = self.sent(asked) else { return };
        if self.known.len() >= MAX_MODELS && !self.known.contains_key(&sent) {
            let idle = self.known.iter().filter(|(_, model)| model.in_flight == 0);
            if let Some(oldest) = idle.min_by_key(|(_, model)| model.used_at).map(|(name, _)| name.clone()) {
                self.known.remove(&oldest);
            }
        }
        let model = self.known.entry(sent).or_insert_with(|| OfModel::new(limits, now));
        model.rates.take(now, tokens);
        model.in_flight += 1;
        model.used_at = now;
    }

    /// Takes what was used of a model's day before a restart; see [`RateLimits::restore_day`].
    pub fn restore_day(&mut self, at: Timestamp, sent: &str, requests: u32, tokens: u32) {
        let Some(limits) = self.rules.as_ref().and_then(|rules| rules.limits(sent)) else { return };
        let model = self.known.entry(sent.to_owned()).or_insert_with(|| OfModel::new(limits, at));
        model.rates.restore_day(at, requests, tokens);
    }

    /// Counts the end of a request.
    pub fn release(&mut self, asked: &str) {
        if let Some(model) = self.of_mut(asked) {
            model.in_flight = model.in_flight.saturating_sub(1);
        }
    }

    /// Applies a change to the counts of a model.
    pub fn update(&mut self, asked: &str, change: impl FnOnce(&mut RateLimits)) {
        if let Some(model) = self.of_mut(asked) {
            change(&mut model.rates);
        }
    }

    /// Time until a request may be sent; `None` when another has to end first.
    pub fn ready_in(&self, now: Timestamp, asked: &str, tokens: u32) -> Option<Duration> {
        let Some(model) = self.of(asked) else { return Some(Duration::ZERO) };
        let is_full = model.max_concurrency.is_some_and(|max| model.in_flight >= max);
        (!is_full).then(|| model.rates.ready_in(now, tokens))
    }

    /// Requests and tokens that may be sent now, and places of requests under way; [`NONE`] without a limit.
    pub fn left(&self, now: Timestamp, asked: &str) -> (u32, u32, u32) {
        match (self.of(asked), self.sent(asked)) {
            (Some(model), _) => {
                let places = model.max_concurrency.map_or(NONE, |max| max.saturating_sub(model.in_flight));
                (model.rates.requests_left(now), model.rates.tokens_left(now), places)
            }
            (None, Some((_, limits))) => {
                let unused = RateLimits::new(limits);
                (unused.requests_left(now), unused.tokens_left(now), limits.max_concurrency.unwrap_or(NONE))
            }
            (None, None) => (NONE, NONE, NONE),
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::table::Route;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn backend(limits: &[(&str, Limits)]) -> Backend {
        let route = |asked: &str, sent: &str| Route { asked: Pattern::parse(asked).unwrap(), sent: sent.to_owned() };
        Backend {
            model_limits: limits.iter().map(|(model, limits)| ((*model).to_owned(), *limits)).collect(),
            routes: vec![route("small", "p/small"), route("little", "p/small"), route("*", "*")],
            ..Backend::new("a")
        }
    }

    fn rates(limits: &[(&str, Limits)]) -> ModelRates {
        let mut rates = ModelRates::default();
        rates.set(&backend(limits));
        rates
    }

    #[test]
    fn names_that_are_sent_as_one_model_share_its_limit() {
        let mut rates = rates(&[("p/small", Limits { rpm: Some(1), ..Limits::default() })]);
        rates.take(at(0), "small", 10);
        assert!(rates.ready_in(at(1), "little", 1).is_some_and(|wait| wait > Duration::from_secs(59)));
        assert_eq!(rates.ready_in(at(1), "other", 1), Some(Duration::ZERO));
        assert_eq!((rates.left(at(1), "little").0, rates.left(at(1), "other").0), (0, NONE));
    }

    #[test]
    fn a_star_counts_each_model_by_itself_and_the_exact_name_goes_first() {
        let one = Limits { rpd: Some(1), ..Limits::default() };
        let mut rates = rates(&[("*", one), ("p/*", Limits { max_concurrency: Some(1), ..Limits::default() })]);
        rates.take(at(0), "x", 1);
        assert!(rates.ready_in(at(1), "x", 1).is_some_and(|wait| wait > Duration::from_secs(3_600)));
        assert_eq!(rates.ready_in(at(1), "y", 1), Some(Duration::ZERO));
        rates.take(at(1), "small", 1);
        assert_eq!((rates.ready_in(at(2), "little", 1), rates.left(at(2), "small").2), (None, 0));
        rates.release("little");
        assert_eq!(rates.ready_in(at(2), "small", 1), Some(Duration::ZERO));
    }

    #[test]
    fn a_change_of_the_limits_keeps_what_was_used() {
        let mut rates = rates(&[("x", Limits { rpm: Some(2), ..Limits::default() })]);
        rates.take(at(0), "x", 1);
        rates.set(&backend(&[("x", Limits { rpm: Some(1), ..Limits::default() })]));
        assert_eq!(rates.left(at(1), "x").0, 0);
        rates.set(&backend(&[]));
        assert_eq!(rates.left(at(1), "x"), (NONE, NONE, NONE));
    }
}
