//! The health of a backend's models, by the names that are sent: names that are sent as one model cool as one.

use std::borrow::Cow;
use std::sync::Arc;

use super::parts::{Part, PartCharge, Parts};
use crate::fleet::health::Health;
use crate::table::{Backend, Route, UNKNOWN_MODEL};
use crate::time::Timestamp;

/// Models with a health of their own per backend.
const MAX_MODELS: usize = 1_024;

/// The health of the models that have failed. Its methods take the name that was asked for.
#[derive(Debug)]
pub(super) struct Models {
    parts: Parts<Arc<str>>,
    /// The backend's routes; empty where each name is sent as it is asked for.
    routes: Vec<Route>,
}

impl Models {
    pub(super) fn new() -> Self {
        Self { parts: Parts::new(MAX_MODELS), routes: Vec::new() }
    }

    /// Takes the backend's routes. What is under way was counted by the old ones, and is counted no longer.
    pub(super) fn set_routes(&mut self, backend: &Backend) {
        let is_renamed = |route: &Route| route.is_served() && route.asked.to_string() != route.sent;
        let routes = if backend.routes.iter().any(is_renamed) { &backend.routes[..] } else { &[] };
        if self.routes != routes {
            self.routes = routes.to_vec();
            self.parts.forget_under_way();
        }
    }

    /// The name that is sent for the one asked; as asked where it is not served.
    pub(super) fn sent(&self, asked: &Arc<str>) -> Arc<str> {
        match self.key(asked) {
            Cow::Borrowed(_) => asked.clone(),
            Cow::Owned(sent) => sent.into(),
        }
    }

    fn key<'a>(&self, asked: &'a str) -> Cow<'a, str> {
        if self.routes.is_empty() || asked == UNKNOWN_MODEL {
            return Cow::Borrowed(asked);
        }
        let route = self.routes.iter().find(|route| route.asked.capture(asked).is_some());
        let sent = route.filter(|route| route.is_served()).and_then(|route| route.sent(asked));
        sent.filter(|sent| sent != asked).map_or(Cow::Borrowed(asked), Cow::Owned)
    }

    pub(super) fn get(&self, asked: &str) -> Option<&Part> {
        if self.parts.is_empty() { None } else { self.parts.get(&*self.key(asked)) }
    }

    pub(super) fn get_mut(&mut self, asked: &str) -> Option<&mut Part> {
        if self.parts.is_empty() { None } else { self.parts.get_mut(&*self.key(asked)) }
    }

    /// Counts an attempt that is sent.
    pub(super) fn record_sent(&mut self, now: Timestamp, asked: &str) -> PartCharge {
        if self.parts.is_empty() { PartCharge::default() } else { self.parts.record_sent(now, &*self.key(asked)) }
    }

    /// Undoes the count of an attempt that ended.
    pub(super) fn release(&mut self, asked: &str, charge: PartCharge) {
        if !self.parts.is_empty() {
            self.parts.release(&*self.key(asked), charge);
        }
    }

    /// Takes back a probe that neither succeeded nor failed.
    pub(super) fn return_probe(&mut self, asked: &str, charge: PartCharge) {
        if !self.parts.is_empty() {
            self.parts.return_probe(&*self.key(asked), charge);
        }
    }

    /// The part of an attempt that was counted for it.
    pub(super) fn counted(&mut self, asked: &str, charge: PartCharge) -> Option<&mut Part> {
        if self.parts.is_empty() { None } else { self.parts.counted(&*self.key(asked), charge) }
    }

    /// Drops a part that is healthy and idle.
    pub(super) fn drop_healthy(&mut self, now: Timestamp, asked: &str) {
        self.parts.drop_healthy(now, &*self.key(asked));
    }

    /// The health of a model by the name that is sent; `None` when there is no room for another.
    pub(super) fn health(&mut self, now: Timestamp, sent: &Arc<str>) -> Option<&mut Health> {
        self.parts.health(now, sent)
    }

    /// All that have failed, by the names that are sent.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Part)> {
        self.parts.iter()
    }

    pub(super) fn healths_mut(&mut self) -> impl Iterator<Item = &mut Health> {
        self.parts.healths_mut()
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Kind;
    use crate::table::Pattern;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn models(routes: &[(&str, &str)]) -> Models {
        let route =
            |(asked, sent): &(&str, &str)| Route { asked: Pattern::parse(asked).unwrap(), sent: (*sent).to_owned() };
        let mut models = Models::new();
        models.set_routes(&Backend { routes: routes.iter().map(route).collect(), ..Backend::new("a") });
        models
    }

    fn cools(models: &mut Models, asked: &str) {
        let sent = models.sent(&asked.into());
        *models.health(NOW, &sent).unwrap() =
            Health::restored(NOW + std::time::Duration::from_secs(9), Kind::RateLimited, 1);
    }

    #[test]
    fn names_that_are_sent_as_one_model_cool_as_one() {
        let mut models = models(&[("small", "p/small"), ("gpt-*", ""), ("q/*", "*"), ("*", "p/small")]);
        cools(&mut models, "small");
        for (asked, is_cooling) in
            [("small", true), ("anything", true), ("q/p/small", true), ("q/p/big", false), ("gpt-5", false)]
        {
            assert_eq!(models.get(asked).is_some(), is_cooling, "{asked}");
        }
        assert_eq!(models.iter().map(|(sent, _)| &**sent).collect::<Vec<_>>(), ["p/small"]);
        assert!(models.get(UNKNOWN_MODEL).is_none(), "a request without a model is sent without one");
    }

    #[test]
    fn a_name_that_is_sent_as_it_is_asked_for_is_its_own() {
        let mut models = models(&[("gpt-*", "gpt-*"), ("*", "*")]);
        assert!(models.routes.is_empty(), "nothing to look up");
        cools(&mut models, "gpt-5");
        assert!(models.get("gpt-5").is_some() && models.get("gpt-4").is_none());
    }

    #[test]
    fn other_routes_keep_cooldowns_by_the_name_sent_and_count_nothing_that_the_old_ones_counted() {
        let mut models = models(&[("small", "p/small")]);
        cools(&mut models, "small");
        let charge = models.record_sent(NOW, "small");
        assert_eq!(models.get("small").unwrap().in_flight, 1);
        let route = Route { asked: Pattern::parse("tiny").unwrap(), sent: "p/small".to_owned() };
        models.set_routes(&Backend { routes: vec![route], ..Backend::new("a") });
        assert_eq!(models.get("tiny").map(|part| part.in_flight), Some(0));
        models.release("small", charge);
        assert_eq!(models.get("tiny").map(|part| part.in_flight), Some(0));
    }
}
