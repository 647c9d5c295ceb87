//! The backend table: everything about backends that does not change between two configurations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::Columns;
pub use crate::dialect::Dialect;
pub use crate::lane::{Lane, Tier};
use crate::usage::ServiceTier;

/// The model of a request that names none.
pub const UNKNOWN_MODEL: &str = "unknown";

/// Limits of a backend or of a client key; none is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Requests a minute, at least 1.
    pub rpm: Option<u32>,
    /// Requests of those that may go at once, the rest spaced, at least 1; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Tokens a minute, at least 1.
    pub tpm: Option<u32>,
    /// Requests at a time, at least 1.
    pub max_concurrency: Option<u32>,
    /// Requests in 24 hours, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpd: Option<u32>,
    /// Tokens in 24 hours, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpd: Option<u32>,
}

/// Time limits of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To have a connection, TLS included.
    pub connect: Duration,
    /// From sending to the response head.
    pub first_byte: Duration,
    /// From sending to the first content of a stream.
    pub first_token: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// From sending to the end of the attempt; once its content flows, a stream has no such limit.
    pub total: Duration,
    /// From sending to the end of a stream; none: a stream that flows has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(3_000),
            first_byte: Duration::from_millis(30_000),
            first_token: Duration::from_millis(12_000),
            idle: Duration::from_millis(15_000),
            total: Duration::from_millis(600_000),
            stream_total: None,
        }
    }
}

/// Prices in USD per million tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// Price of prompt tokens, USD per million.
    pub input_per_mtok: f64,
    /// Price of answer tokens, USD per million.
    pub output_per_mtok: f64,
    /// Prompt tokens that the provider had cached; the input price where it is not given.
    pub cached_input_per_mtok: Option<f64>,
    /// Prompt tokens that the provider wrote to a cache for minutes; the input price where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_per_mtok: Option<f64>,
    /// Those for an hour; the price of those for minutes where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h_per_mtok: Option<f64>,
    /// Prompt tokens that are sound; the input price where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input_per_mtok: Option<f64>,
    /// Prompt tokens that are pictures; the input price where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_input_per_mtok: Option<f64>,
    /// Answer tokens that are sound; the output price where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output_per_mtok: Option<f64>,
    /// Factors of all these prices for requests that are served in another way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_tiers: BTreeMap<ServiceTier, f64>,
    /// Prices of requests with longer prompts, by ascending length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<PriceTier>,
}

/// The price of requests with long prompts, in place of the ordinary one, for all their tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceTier {
    /// It is for prompts of more tokens than this.
    pub above_input_tokens: u64,
    /// The price; it has no tiers itself.
    #[serde(flatten)]
    pub price: Price,
}

/// A model name as asked for: literal, or with one `*` that stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// A name, which matches itself.
    Exact(String),
    /// Matches names with this prefix and suffix.
    Glob {
        /// Text before the `*`, may be empty.
        prefix: String,
        /// Text after the `*`, may be empty.
        suffix: String,
    },
}

impl Pattern {
    /// Reads a pattern; none when it has more than one `*` or is empty.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('*') {
            None if text.is_empty() => None,
            None => Some(Pattern::Exact(text.to_owned())),
            Some((_, suffix)) if suffix.contains('*') => None,
            Some((prefix, suffix)) => Some(Pattern::Glob { prefix: prefix.to_owned(), suffix: suffix.to_owned() }),
        }
    }

    /// Returns the text that the `*` stands for in `name`, empty for an exact match; `None` if the name does not
    /// match.
    pub fn capture<'a>(&self, name: &'a str) -> Option<&'a str> {
        match self {
            Pattern::Exact(text) => (text == name).then_some(""),
            Pattern::Glob { prefix, suffix } => name.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str()),
        }
    }

    /// Returns true for `*`, which matches every name.
    pub fn is_any(&self) -> bool {
        matches!(self, Pattern::Glob { prefix, suffix } if prefix.is_empty() && suffix.is_empty())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(text) => f.write_str(text),
            Pattern::Glob { prefix, suffix } => write!(f, "{prefix}*{suffix}"),
        }
    }
}

/// One line of a backend's `models`: what is asked for, and what is sent instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Model names that clients may ask for.
    pub asked: Pattern,
    /// Model name sent upstream; a `*` in it is replaced by the text that the pattern's `*` stood for. Empty: the
    /// name is excepted, this backend does not serve it.
    pub sent: String,
}

impl Route {
    /// False for a name that is excepted.
    pub fn is_served(&self) -> bool {
        !self.sent.is_empty()
    }

    /// The name to send for `name`, if this route is for it.
    pub fn sent(&self, name: &str) -> Option<String> {
        let captured = self.asked.capture(name)?;
        Some(match self.asked {
            Pattern::Exact(_) => self.sent.clone(),
            Pattern::Glob { .. } => self.sent.replacen('*', captured, 1),
        })
    }
}

/// One routable target, without its key: the core never sees a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name in configuration, logs and metrics; unique.
    #[serde(with = "crate::forms::text")]
    pub id: Arc<str>,
    /// Cost class of the backend.
    pub tier: Tier,
    /// Wire format of its API.
    pub dialect: Dialect,
    /// Share of traffic relative to the others of its tier; at least 1.
    pub weight: u32,
    /// Limits of the whole backend.
    pub limits: Limits,
    /// Limits of single models beside those, by patterns of the name sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_limits: BTreeMap<String, Limits>,
    /// Model names, exact ones before globs. Empty: the backend takes any request, model or not.
    pub routes: Vec<Route>,
    /// Prices by the model name sent.
    pub prices: BTreeMap<String, Price>,
    /// Time limits of its attempts.
    pub timeouts: Timeouts,
    /// The operator's own words about it.
    pub labels: BTreeMap<String, String>,
    /// Optional capabilities, such as `prefill`.
    pub capabilities: BTreeMap<String, bool>,
}

impl Price {
    /// Returns true if all tokens are free at this price.
    pub fn is_zero(&self) -> bool {
        let (input, output) = self.dearest();
        input == 0.0 && output == 0.0
    }

    /// The factor of the prices for a request that is served in this way; 1 where none is known.
    pub fn factor(&self, service_tier: Option<ServiceTier>) -> f64 {
        service_tier.and_then(|tier| self.service_tiers.get(&tier).copied()).unwrap_or(1.0)
    }

    /// The price of a request whose prompt has so many tokens.
    pub fn for_prompt(&self, input_tokens: u64) -> &Price {
        let tier = self.tiers.iter().rfind(|tier| input_tokens > tier.above_input_tokens);
        tier.map_or(self, |tier| &tier.price)
    }

    /// The highest price of a prompt token and of an answer token, whatever they are and however long the prompt is.
    pub fn dearest(&self) -> (f64, f64) {
        self.tiers
            .iter()
            .map(|tier| tier.price.dearest())
            .fold(self.own_dearest(), |dearest, tier| (dearest.0.max(tier.0), dearest.1.max(tier.1)))
    }

    /// The same of a prompt of so many tokens.
    pub fn dearest_for(&self, input_tokens: u64) -> (f64, f64) {
        self.for_prompt(input_tokens).own_dearest()
    }

    fn own_dearest(&self) -> (f64, f64) {
        let own_input = [
            Some(self.input_per_mtok),
            self.cached_input_per_mtok,
            self.cache_write_per_mtok,
            self.cache_write_1h_per_mtok,
            self.audio_input_per_mtok,
            self.image_input_per_mtok,
        ];
        let input = own_input.into_iter().flatten().fold(0.0, f64::max);
        (input, self.output_per_mtok.max(self.audio_output_per_mtok.unwrap_or(0.0)))
    }
}

impl Backend {
    /// A primary of the default dialect that serves every model, without limits and prices.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            tier: Tier::Primary,
            dialect: Dialect::default(),
            weight: 1,
            limits: Limits::default(),
            model_limits: BTreeMap::new(),
            routes: Vec::new(),
            prices: BTreeMap::new(),
            timeouts: Timeouts::default(),
            labels: BTreeMap::new(),
            capabilities: BTreeMap::new(),
        }
    }

    /// The model name to send for the one asked; none when it does not serve it.
    pub fn sent_model(&self, asked: &str) -> Option<String> {
        if self.routes.is_empty() {
            return Some(asked.to_owned());
        }
        self.route(asked)?.sent(asked)
    }

    /// Returns true if it serves this model.
    pub fn serves(&self, asked: &str) -> bool {
        self.routes.is_empty() || self.route(asked).is_some()
    }

    /// Returns true if it serves this model under a name of its own: not when it forwards any name, but where `*` is
    /// sent as one model, that is the name.
    pub fn names(&self, asked: &str) -> bool {
        self.route(asked).is_some_and(|route| !route.asked.is_any() || !route.sent.contains('*'))
    }

    /// Returns true if it serves this model by a route other than `*`.
    pub fn lists(&self, asked: &str) -> bool {
        self.route(asked).is_some_and(|route| !route.asked.is_any())
    }

    /// The one model that `*` is sent as; none where there is no `*`, or it is sent as asked.
    pub fn stand_in(&self) -> Option<&str> {
        let star = self.routes.iter().find(|route| route.asked.is_any())?;
        (star.is_served() && !star.sent.contains('*')).then_some(star.sent.as_str())
    }

    /// Returns true if it serves every model under the name that is asked for.
    pub fn serves_all(&self) -> bool {
        let is_as_asked = |route: &Route| route.asked.to_string() == route.sent;
        self.routes.is_empty()
            || self.routes.iter().all(is_as_asked) && self.routes.iter().any(|route| route.asked.is_any())
    }

    /// Returns true if it serves every name that is not excepted.
    pub fn has_star(&self) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|route| route.asked.is_any() && route.is_served())
    }

    /// Returns true if it serves names that are not listed.
    pub fn any_model(&self) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|r| matches!(r.asked, Pattern::Glob { .. }) && r.is_served())
    }

    /// The first route for this name; none where that says that the name is not served.
    fn route(&self, asked: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.asked.capture(asked).is_some()).filter(|route| route.is_served())
    }

    /// Returns true if it has a limit of a day, of its own or of a model.
    pub fn has_day_limit(&self) -> bool {
        let all = std::iter::once(&self.limits).chain(self.model_limits.values());
        all.into_iter().any(|limits| limits.rpd.is_some() || limits.tpd.is_some())
    }

    /// The names to ask for so that `sent` is sent, by patterns; those that are listed in [`Table::models`] are left out.
    pub fn asked_for(&self, sent: &str) -> Vec<String> {
        if self.routes.is_empty() {
            return vec![sent.to_owned()];
        }
        let asked = |route: &Route| {
            let Pattern::Glob { prefix, suffix } = &route.asked else { return None };
            let captured = Pattern::parse(&route.sent).filter(|_| route.sent.contains('*'))?.capture(sent)?.to_owned();
            Some(format!("{prefix}{captured}{suffix}"))
        };
        let leads_there = |name: &String| self.sent_model(name).as_deref() == Some(sent);
        let mut names: Vec<String> = self.routes.iter().filter_map(asked).filter(leads_there).collect();
        names.dedup();
        names
    }

    /// The price of a model by the name sent; a `*` entry is the price of all others.
    pub fn price(&self, sent: &str) -> Option<&Price> {
        self.prices.get(sent).or_else(|| self.prices.get("*"))
    }

    /// Returns true for a primary that has no price at all.
    pub fn is_unpriced_primary(&self) -> bool {
        self.tier == Tier::Primary && self.prices.is_empty()
    }

    /// Returns true if a request for this model is free here: at a price of zero, and at a primary without a price. A
    /// fallback without a price is not free: its price is unknown.
    pub fn is_free(&self, asked: &str) -> bool {
        let sent = self.sent_model(asked);
        let price = self.price(sent.as_deref().unwrap_or(asked));
        price.map_or(self.tier == Tier::Primary, Price::is_zero)
    }
}

/// All backends of one configuration. Its order is the contract's order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Backends, at most [`Table::MAX_BACKENDS`].
    pub backends: Vec<Backend>,
    /// Model names that can be asked for, in alphabetical order, each once.
    pub models: Vec<String>,
    /// Names of the configured client keys.
    pub clients: Vec<String>,
    /// The columns of a query's rows: those of this version, in a recorded table those of that day.
    #[serde(default = "Columns::of_1_0_0", skip_serializing_if = "Columns::are_of_1_0_0")]
    pub columns: Columns,
}

impl Table {
    /// More backends than this are refused.
    pub const MAX_BACKENDS: usize = 1_024;

    /// A table over these backends; the model list is made from their exact routes.
    pub fn new(backends: Vec<Backend>, clients: Vec<String>) -> Self {
        let mut models: Vec<String> = backends
            .iter()
            .flat_map(|b| &b.routes)
            .filter(|r| r.is_served())
            .filter_map(|r| match &r.asked {
                Pattern::Exact(name) => Some(name.clone()),
                Pattern::Glob { .. } => None,
            })
            .collect();
        models.sort_unstable();
        models.dedup();
        Self { backends, models, clients, columns: Columns::default() }
    }

    /// The index of a model name in [`Table::models`].
    pub fn model_index(&self, asked: &str) -> Option<u32> {
        self.models.binary_search_by(|m| m.as_str().cmp(asked)).ok().map(|i| i as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(asked: &str, to: &str, name: &str) -> Option<String> {
        Route { asked: Pattern::parse(asked).unwrap(), sent: to.to_owned() }.sent(name)
    }

    #[test]
    fn a_route_renames_exactly_or_by_its_star() {
        assert_eq!(sent("llama", "meta/llama", "llama").as_deref(), Some("meta/llama"));
        assert_eq!(sent("llama", "meta/llama", "llama-2"), None);
        assert_eq!(sent("*", "*", "anything").as_deref(), Some("anything"));
        assert_eq!(sent("llama-*", "meta/llama-*-instruct", "llama-70b").as_deref(), Some("meta/llama-70b-instruct"));
        assert_eq!(sent("gpt-*", "one-model", "gpt-5").as_deref(), Some("one-model"));
    }

    #[test]
    fn a_providers_models_are_listed_by_the_names_that_lead_to_them() {
        let route =
            |(asked, sent): &(&str, &str)| Route { asked: Pattern::parse(asked).unwrap(), sent: (*sent).to_owned() };
        let asked = |routes: &[(&str, &str)], sent: &str| {
            Backend { routes: routes.iter().map(route).collect(), ..Backend::new("a") }.asked_for(sent)
        };
        assert_eq!(asked(&[], "m"), ["m"]);
        assert_eq!(asked(&[("*", "*")], "m"), ["m"]);
        assert_eq!(asked(&[("llama-*", "meta/llama-*-instruct")], "meta/llama-70b-instruct"), ["llama-70b"]);
        assert_eq!(asked(&[("gpt-*", "gpt-*"), ("*", "gpt-4.1-mini")], "gpt-4o"), ["gpt-4o"]);
        assert!(asked(&[("gpt-*", "gpt-*"), ("*", "gpt-4.1-mini")], "whisper-1").is_empty());
        assert!(asked(&[("a", "b"), ("gpt-*", "")], "b").is_empty());
    }

    #[test]
    fn a_primary_without_a_price_is_free_and_a_fallback_is_not() {
        let price = |usd| Price { output_per_mtok: usd, ..Price::default() };
        let prices = |list: &[(&str, f64)]| list.iter().map(|(sent, usd)| ((*sent).to_owned(), price(*usd))).collect();
        let is_free = |tier, list: &[(&str, f64)]| {
            let route = Route { asked: Pattern::parse("m").unwrap(), sent: "meta/m".to_owned() };
            let backend = Backend { tier, prices: prices(list), routes: vec![route], ..Backend::new("a") };
            backend.is_free("m")
        };
        for (list, primary, fallback) in [
            (&[][..], true, false),
            (&[("meta/m", 0.0)], true, true),
            (&[("meta/m", 0.1)], false, false),
            (&[("*", 0.1)], false, false),
            (&[("*", 0.1), ("meta/m", 0.0)], true, true),
            (&[("m", 0.1)], true, false),
        ] {
            assert_eq!((is_free(Tier::Primary, list), is_free(Tier::Fallback, list)), (primary, fallback), "{list:?}");
        }
        assert!(!Price { cached_input_per_mtok: Some(0.1), ..Price::default() }.is_zero());
        let tier = PriceTier { above_input_tokens: 1, price: price(0.1) };
        assert!(!Price { tiers: vec![tier], ..Price::default() }.is_zero());
    }

    #[test]
    fn a_price_is_recorded_as_before_where_it_has_nothing_new() {
        let price = Price { input_per_mtok: 1.0, output_per_mtok: 2.0, ..Price::default() };
        let text = r#"{"input_per_mtok":1.0,"output_per_mtok":2.0,"cached_input_per_mtok":null}"#;
        assert_eq!(serde_json::to_string(&price).unwrap(), text);
        let tier = PriceTier { above_input_tokens: 200_000, price: price.clone() };
        let tiered = Price { cache_write_per_mtok: Some(3.0), tiers: vec![tier], ..price.clone() };
        assert_eq!(serde_json::from_str::<Price>(&serde_json::to_string(&tiered).unwrap()).unwrap(), tiered);
        assert_eq!(serde_json::from_str::<Price>(text).unwrap(), price);
    }

    #[test]
    fn overlapping_prefix_and_suffix_do_not_match_twice() {
        assert_eq!(sent("aa*aa", "*", "aaa"), None);
    }

    #[test]
    fn two_stars_are_no_pattern() {
        assert_eq!(Pattern::parse("a*b*"), None);
    }
}
