//! List prices for a configuration that lacks them, from a dated file (`prices/catalogue.toml`, which says where its figures are
//! from). They are written into the configuration; nothing else reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use pointsman_core::table::{Backend, Pattern};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{Config, ConfigError, Env, parse, read};

const CATALOGUE: &str = include_str!("prices/catalogue.toml");

/// The file of list prices.
#[derive(Deserialize)]
struct Catalogue {
    compiled: String,
    provider: Vec<Provider>,
}

/// The list prices of one provider.
#[derive(Deserialize)]
struct Provider {
    host: String,
    /// The day to which its sources go.
    checked: String,
    sources: Vec<String>,
    models: BTreeMap<String, Table>,
}

/// A configuration with prices filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Filled {
    /// The whole text; none where the prices could not be put into it, so that they have to be copied.
    pub text: Option<String>,
    /// Each backend that got prices.
    pub added: Vec<Added>,
    /// Backends and models that they send, for which no list price is known.
    pub unknown: Vec<(String, String)>,
    /// The day on which the list was put together.
    pub compiled: String,
}

/// Prices that a catalogue adds to a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    /// The backend's id.
    pub backend: String,
    /// Models, by the name sent.
    pub models: Vec<String>,
    /// The lines to write behind it.
    pub lines: String,
    /// The day to which the sources go.
    pub checked: String,
    /// Addresses that the figures are from.
    pub sources: Vec<String>,
}

/// Fills in the prices that a configuration lacks and the list has. Prices that are there stay as they are.
///
/// # Errors
/// The file cannot be read, or is no configuration.
pub fn fill_prices(path: &Path, env: &dyn Env) -> Result<Filled, ConfigError> {
    let text = read(path)?;
    let name = path.display().to_string();
    let config = parse(&text, &name, env)?.config;
    let catalogue = catalogue();
    let (mut added, mut unknown) = (Vec::new(), Vec::new());
    for one in &config.backends {
        let provider = one.base_url.host().and_then(|host| catalogue.provider.iter().find(|p| p.host == host));
        added.push(provider.and_then(|provider| prices_for(&one.backend, provider)));
        let is_known = |model: &str| provider.is_some_and(|provider| listed(provider, model).is_some());
        let lacking = exact_names(&one.backend).filter(|model| one.backend.price(model).is_none() && !is_known(model));
        unknown.extend(lacking.map(|model| (one.backend.id.to_string(), model.to_owned())));
    }
    let filled = inserted(&text, &added).filter(|filled| is_filled(filled, &name, env, &config, &added));
    let compiled = catalogue.compiled;
    Ok(Filled { text: filled, added: added.into_iter().flatten().collect(), unknown, compiled })
}

fn catalogue() -> Catalogue {
    toml::from_str(CATALOGUE).expect("a test reads the list of prices")
}

/// The names that a backend sends, where they are written out.
fn exact_names(backend: &Backend) -> impl Iterator<Item = &str> {
    backend.routes.iter().filter(|r| r.is_served() && !r.sent.contains('*')).map(|route| route.sent.as_str())
}

fn prices_for(backend: &Backend, provider: &Provider) -> Option<Added> {
    let mut models: Vec<&str> = exact_names(backend).filter(|model| listed(provider, model).is_some()).collect();
    let patterns: Vec<Pattern> =
        backend.routes.iter().filter(|r| r.sent.contains('*')).filter_map(|r| Pattern::parse(&r.sent)).collect();
    let may_send = |model: &str| backend.routes.is_empty() || patterns.iter().any(|p| p.capture(model).is_some());
    models.extend(provider.models.keys().map(String::as_str).filter(|model| may_send(model)));
    models.retain(|model| backend.price(model).is_none());
    models.sort_unstable();
    models.dedup();
    if models.is_empty() {
        return None;
    }
    let mut lines =
        format!("# List prices of {} ({}), by `pointsman config prices`.\n", provider.host, provider.checked);
    for model in &models {
        if let Some(price) = listed(provider, model) {
            write_price(&mut lines, model, price);
        }
    }
    Some(Added {
        backend: backend.id.to_string(),
        models: models.into_iter().map(str::to_owned).collect(),
        lines,
        checked: provider.checked.clone(),
        sources: provider.sources.clone(),
    })
}

/// The list price of a model; a dated version of one has the price of it.
fn listed<'p>(provider: &'p Provider, model: &str) -> Option<&'p Table> {
    provider.models.get(model).or_else(|| provider.models.get(undated(model)?))
}

/// The name without a date behind it: `gpt-4o-2024-08-06`, `claude-haiku-4-5-20251001`.
fn undated(model: &str) -> Option<&str> {
    let is_date = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        (lengths == [8] || lengths == [4, 2, 2]) && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_digit()))
    };
    let cut = |length: usize| {
        let (name, date) = model.split_at_checked(model.len().checked_sub(length)?)?;
        name.strip_suffix('-').filter(|name| !name.is_empty() && is_date(date))
    };
    cut(10).or_else(|| cut(8))
}

fn write_price(lines: &mut String, model: &str, price: &Table) {
    let quoted = Value::String(model.to_owned());
    let mut put = |header: String, table: &Table| {
        writeln!(lines, "{header}").expect("a string takes all that is written");
        for (key, value) in table.iter().filter(|(_, value)| !value.is_array()) {
            writeln!(lines, "{key} = {value}").expect("a string takes all that is written");
        }
    };
    put(format!("[backend.price.{quoted}]"), price);
    for tier in price.get("tiers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table) {
        put(format!("[[backend.price.{quoted}.tiers]]"), tier);
    }
}

/// The text with each backend's lines at the end of its section; `None` where the sections are not found.
fn inserted(text: &str, added: &[Option<Added>]) -> Option<String> {
    let ends = section_ends(text);
    if ends.len() != added.len() {
        return None;
    }
    let mut out = String::with_capacity(text.len() + 4_096);
    let mut from = 0;
    for (end, added) in ends.into_iter().zip(added) {
        out.push_str(&text[from..end]);
        if let Some(added) = added {
            if !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&added.lines);
        }
        from = end;
    }
    out.push_str(&text[from..]);
    Some(out)
}

/// The ends of the sections `[[backend]]`, behind their last line that is not blank or a comment.
fn section_ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let (mut at, mut end) = (0, None);
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let squeezed: String = bare.chars().filter(|c| !c.is_whitespace()).collect();
        at += line.len();
        if squeezed.starts_with("[[backend]]") {
            ends.extend(end.replace(at));
        } else if bare.starts_with('[') && !squeezed.starts_with("[backend.") && !squeezed.starts_with("[[backend.") {
            ends.extend(end.take());
        } else if !bare.is_empty() && !bare.starts_with('#') && end.is_some() {
            end = Some(at);
        }
    }
    ends.extend(end);
    ends
}

/// Returns true if the text is the same configuration, and has the prices.
fn is_filled(text: &str, name: &str, env: &dyn Env, before: &Config, added: &[Option<Added>]) -> bool {
    let Ok(filled) = parse(text, name, env) else { return false };
    let backends = filled.config.backends.iter().zip(&before.backends);
    filled.config.backends.len() == before.backends.len()
        && backends.zip(added).all(|((now, before), added)| {
            let has = |model: &String| now.backend.price(model).is_some();
            now.backend.id == before.backend.id
                && now.base_url == before.base_url
                && now.backend.routes == before.backend.routes
                && added.as_ref().is_none_or(|added| added.models.iter().all(has))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Filled {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pointsman.toml");
        std::fs::write(&file, text).unwrap();
        fill_prices(&file, &[]).unwrap()
    }

    #[test]
    fn every_price_of_the_list_is_one_that_a_configuration_may_have() {
        let catalogue = catalogue();
        let is_day = |day: &str| day.len() == 10 && day.starts_with("20");
        assert!(is_day(&catalogue.compiled));
        for provider in &catalogue.provider {
            assert!(
                is_day(&provider.checked) && provider.checked <= catalogue.compiled && !provider.sources.is_empty()
            );
            let text = format!("[[backend]]\nid = \"a\"\nbase_url = \"https://{}/v1\"\n", provider.host);
            let Filled { text, added, unknown, .. } = filled(&text);
            let config = parse(&text.unwrap(), "p.toml", &[]).unwrap().config;
            assert_eq!((added.len(), added[0].models.len(), unknown.len()), (1, provider.models.len(), 0));
            for (model, listed) in &provider.models {
                let price = config.backends[0].backend.price(model).unwrap();
                assert_eq!(listed["input_per_mtok"].as_float(), Some(price.input_per_mtok), "{model}");
                assert!(price.output_per_mtok > price.cached_input_per_mtok.unwrap_or(0.0), "{model}");
                assert!(price.tiers.iter().all(|tier| tier.price.input_per_mtok > price.input_per_mtok), "{model}");
            }
        }
    }

    #[test]
    fn only_what_is_missing_is_filled_in_and_the_rest_stays_byte_for_byte() {
        let text = "# mine\n[[backend]]\nid = \"a\"\nbase_url = \"https://api.openai.com/v1\"\n\
            models = { \"cheap\" = \"gpt-4o-mini-2024-07-18\", \"gpt-4o\" = \"gpt-4o\", \"odd\" = \"gpt-odd\" }\n\
            [backend.price.\"gpt-4o\"]\ninput_per_mtok = 9.0\noutput_per_mtok = 9.0\n\n# the other one\n[[backend]]\nid = \"b\"\n\
            base_url = \"https://api.anthropic.com/v1\"\ndialect = \"anthropic\"\nmodels = [\"claude-haiku-4-5-20251001\"]\n\n[server]\nlisten = \"127.0.0.1:0\"\n";
        let Filled { text: with_prices, added, unknown, .. } = filled(text);
        let with_prices = with_prices.unwrap();
        assert_eq!(unknown, [("a".to_owned(), "gpt-odd".to_owned())]);
        let models: Vec<&str> = added.iter().flat_map(|one| &one.models).map(String::as_str).collect();
        assert_eq!(models, ["gpt-4o-mini-2024-07-18", "claude-haiku-4-5-20251001"]);
        let without = added.iter().fold(with_prices.clone(), |text, one| text.replacen(&one.lines, "", 1));
        assert_eq!(without, text);
        let config = parse(&with_prices, "p.toml", &[]).unwrap().config;
        let price = |backend: usize, model: &str| config.backends[backend].backend.price(model).unwrap().clone();
        assert_eq!((price(0, "gpt-4o").input_per_mtok, price(0, "gpt-4o-mini-2024-07-18").output_per_mtok), (9.0, 0.6));
        assert_eq!(price(1, "claude-haiku-4-5-20251001").cache_write_1h_per_mtok, Some(2.0));
        assert_eq!(filled(&with_prices).added, [], "what is there is not written again");
    }

    #[test]
    fn prices_that_cannot_be_placed_are_told_to_be_copied() {
        let text = "backend = [{ id = \"a\", base_url = \"https://api.openai.com/v1\", models = [\"gpt-4o\"] }]\n";
        let Filled { text, added, .. } = filled(text);
        assert_eq!((text, added[0].models.len()), (None, 1));
        assert!(added[0].lines.contains("[backend.price.\"gpt-4o\"]"));
    }

    #[test]
    fn a_date_behind_a_name_is_cut_off() {
        assert_eq!(undated("gpt-4o-2024-08-06"), Some("gpt-4o"));
        assert_eq!(undated("claude-haiku-4-5-20251001"), Some("claude-haiku-4-5"));
        for name in ["gpt-4o", "2024-08-06", "-20251001", "kimi-k2-0905", "", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"] {
            assert_eq!(undated(name), None, "{name}");
        }
    }
}
