//! Prices that are not there, and prices that are nobody's.

use std::collections::{BTreeSet, HashSet};

use pointsman_core::table::{Backend, Pattern, Tier};

use super::{backend_at, names};
use crate::checked::Config;
use crate::convert::Check;
use crate::decode::nearest;
use crate::raw::RawPrice;
use crate::tree::Path;

/// Prices of a backend whose names are looked into.
const MAX_LOOKS: u32 = 100;

impl Check<'_, '_> {
    /// Without a price, spend counts as $0, and a budget never ends.
    pub(super) fn advise_on_prices(&mut self, config: &Config, index: usize) {
        let backend = &config.backends[index].backend;
        let unpriced = unpriced(backend);
        let mut has_typo = false;
        let sent = SentNames::of(backend);
        // To look for the name that was meant takes the longer the more there are, and many typos are none.
        let mut looks = MAX_LOOKS;
        for key in backend.prices.keys().filter(|key| *key != "*" && !sent.has(key)) {
            looks -= 1;
            if looks == 0 {
                break;
            }
            let Some(near) = meant(backend, key, &unpriced) else { continue };
            has_typo |= near.is_some();
            let at = backend_at(index).key("price").key(key);
            let id = &backend.id;
            let help = match near {
                Some(near) => format!("prices go by the name that is sent: write [backend.price.\"{near}\"]"),
                None => format!("it sends {}; take the price out", names(&sent_names(backend))),
            };
            self.warn(&at, format!("there is a price for `{key}`, which `{id}` never sends")).help(help);
        }
        if backend.tier == Tier::Fallback && !unpriced.is_empty() && !has_typo {
            let place = backend_at(index);
            let at = if backend.prices.is_empty() { place.key("models") } else { place.key("price") };
            let shown: Vec<&str> = unpriced.iter().map(String::as_str).collect();
            let id = &backend.id;
            self.warn(&at, format!("the fallback `{id}` has no price for {}: its spend counts as $0", names(&shown)))
                .help(format!(
                    "write [backend.price.\"{}\"] with input_per_mtok and output_per_mtok, in USD; 0 for both if it is free",
                    shown[0]
                ));
        }
    }

    /// A budget is charged by prices.
    pub(super) fn advise_on_budgets(&mut self, config: &Config) {
        let Some(index) = config.clients.iter().position(|client| client.budget_usd_per_day.is_some()) else { return };
        let at = Path::of("client").index(index).key("budget_usd_per_day");
        let name = &config.clients[index].name;
        if config.backends.iter().all(|one| one.backend.prices.is_empty()) {
            let message = format!(
                "client `{name}` has a budget, and no backend has a price: its requests are refused, because their cost could not be counted"
            );
            let help = "write [backend.price.\"MODEL\"], 0 for what is free, or one [budget.default_price]; `pointsman config prices` knows the usual ones";
            self.warn(&at, message).help(help);
            return;
        }
        for one in config.backends.iter().map(|one| &one.backend) {
            let unpriced = unpriced(one);
            let shown: Vec<&str> = unpriced.iter().map(String::as_str).collect();
            let id = &one.id;
            if one.is_unpriced_primary() {
                let message =
                    format!("`{id}` is a primary without a price, and counts as free for the budget of `{name}`");
                self.warn(&at, message).help("write its prices; 0 says that it is free");
            } else if !shown.is_empty() {
                let message = format!(
                    "`{id}` has no price for {}: `{name}`, which has a budget, is not served there",
                    names(&shown)
                );
                self.warn(&at, message).help("write [backend.price.\"MODEL\"], or one [budget.default_price]");
            }
        }
    }
}

/// Operations of models that have a price for only one side of tokens, by parts of their usual names.
const ONE_SIDED: [&str; 10] =
    ["embed", "bge-", "rerank", "moderat", "tts", "whisper", "transcri", "image", "dall-e", "speech"];

/// No list price is that low; a price of a single token is.
const LEAST_PLAUSIBLE_USD_PER_MTOK: f64 = 0.000_5;

impl Check<'_, '_> {
    /// A price that is half there, or of another unit, counts as nearly nothing.
    pub(in crate::convert) fn advise_on_half_price(&mut self, at: &Path, model: &str, raw: &RawPrice) {
        let sides = [("input_per_mtok", raw.input_per_mtok), ("output_per_mtok", raw.output_per_mtok)];
        for (key, usd) in sides {
            if let Some(usd) = usd.filter(|usd| *usd > 0.0 && *usd < LEAST_PLAUSIBLE_USD_PER_MTOK) {
                let message = format!("`{key}` of {usd} USD is for a million tokens; is it the price of one?");
                let per_mtok = format!("{:.4}", usd * 1e6);
                let per_mtok = per_mtok.trim_end_matches('0').trim_end_matches('.');
                self.warn(&at.key(key), message).help(format!("a price of {usd} for each token is {key} = {per_mtok}"));
            }
        }
        let lower = model.to_ascii_lowercase();
        if ONE_SIDED.iter().any(|word| lower.contains(word)) {
            return;
        }
        let (there, missing) = match sides {
            [(there, Some(usd)), (missing, None)] | [(missing, None), (there, Some(usd))] if usd > 0.0 => {
                (there, missing)
            }
            _ => return,
        };
        let tokens = if missing.starts_with("input") { "prompts" } else { "answers" };
        self.warn(at, format!("the price of `{model}` has {there} and no {missing}: its {tokens} count as $0"))
            .help(format!("add {missing}, in USD per million tokens; 0 says that they are free"));
    }
}

/// The names that are sent and have no price; patterns only where the backend has no price at all.
fn unpriced(backend: &Backend) -> Vec<String> {
    if backend.prices.contains_key("*") {
        return Vec::new();
    }
    if backend.routes.is_empty() {
        return if backend.prices.is_empty() { vec!["*".to_owned()] } else { Vec::new() };
    }
    let has_price =
        |sent: &str| backend.prices.contains_key(sent) || (sent.contains('*') && !backend.prices.is_empty());
    let mut known = HashSet::new();
    let served = backend.routes.iter().filter(|route| route.is_served()).map(|route| &route.sent);
    served.filter(|sent| !has_price(sent) && known.insert(*sent)).cloned().collect()
}

/// The names that a backend sends, but for any name.
struct SentNames<'a> {
    exact: HashSet<&'a str>,
    patterns: Vec<Pattern>,
}

impl<'a> SentNames<'a> {
    fn of(backend: &'a Backend) -> Self {
        let served = backend.routes.iter().filter(|route| route.is_served()).map(|route| route.sent.as_str());
        let (patterns, exact): (Vec<&str>, Vec<&str>) = served.partition(|sent| sent.contains('*'));
        let patterns: BTreeSet<&str> = patterns.into_iter().filter(|sent| *sent != "*").collect();
        Self { exact: exact.into_iter().collect(), patterns: patterns.into_iter().filter_map(Pattern::parse).collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.exact.contains(name) || self.patterns.iter().any(|pattern| pattern.capture(name).is_some())
    }
}

/// The name that was probably meant by a price's, which is not sent; none where it may be right.
fn meant<'u>(backend: &Backend, key: &str, unpriced: &'u [String]) -> Option<Option<&'u str>> {
    let served = || backend.routes.iter().filter(|route| route.is_served());
    // The name asked for stands where the name sent should.
    let renamed = served().find(|route| route.asked.to_string() == key).map(|route| route.sent.as_str());
    let renamed = renamed.and_then(|sent| unpriced.iter().find(|name| *name == sent));
    let near = renamed.map(String::as_str).or_else(|| nearest(key, unpriced)).filter(|near| *near != "*");
    // What is sent as it is asked may have any name: then only what is very like a name is a mistake.
    let sends_any = backend.routes.is_empty() || served().any(|route| route.sent == "*");
    (!sends_any || near.is_some()).then_some(near)
}

fn sent_names(backend: &Backend) -> Vec<&str> {
    let mut names: Vec<&str> =
        backend.routes.iter().filter(|route| route.is_served()).map(|route| route.sent.as_str()).collect();
    names.dedup();
    names
}
