//! A configuration for the providers whose keys are in the environment, for a start without a file.

mod fallback;
mod known;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use http::Uri;
use toml::{Table, Value};

use super::diagnostic::ConfigError;
use super::overlay::Env;
use fallback::{stand_ins, unused};
use known::{PROVIDERS, Provider};

/// The listener's address where the environment sets none.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Ends of the variables in which SDKs and tools look for a provider's base URL; the first that is set counts.
const BASE_URL_NAMES: [&str; 4] = ["BASE_URL", "API_BASE", "API_BASE_URL", "API_URL"];

/// A configuration written from the environment.
#[derive(Debug)]
pub(super) struct Discovered {
    /// The text of a `pointsman.toml`.
    pub(super) text: String,
    /// Variables that were not used, with the reason.
    pub(super) remarks: Vec<String>,
}

/// A provider with a key in the environment.
struct Found {
    provider: &'static Provider,
    /// References to its API keys.
    keys: Vec<String>,
    base_url: String,
}

/// Writes a configuration for the providers whose keys are in the environment: `NAME`, a comma-separated list in `NAME`, and
/// `NAME_1`, `NAME_2`, ... are several backends. Free, rate-limited ones are primary. Paid ones are fallback, where a cheap
/// model stands in for those that they do not have; or primary where nothing is free. `OPENAI_BASE_URL` and the like are
/// honoured.
pub(super) fn discover(env: &dyn Env) -> Result<Discovered, ConfigError> {
    let mut remarks = Vec::new();
    let mut found = Vec::new();
    for provider in &PROVIDERS {
        let keys = keys(provider, env);
        if !keys.is_empty() {
            found.push(Found { provider, keys, base_url: base_url(provider, env, &mut remarks)? });
        }
    }
    if found.is_empty() {
        let names: Vec<String> = PROVIDERS.iter().map(Provider::variable).collect();
        let help = format!(
            "write a pointsman.toml, or export one of {}; or see it work without any key: pointsman demo",
            names.join(", ")
        );
        return Err(ConfigError::whole(
            "there is no pointsman.toml here and no provider's key in the environment",
            help,
        ));
    }
    let any_free = found.iter().any(|found| found.provider.free);
    let is_fallback = |found: &Found| any_free && !found.provider.free;
    let paid: Vec<&Found> = found.iter().filter(|found| is_fallback(found)).collect();
    remarks.extend(unused(&found, &paid, env));
    let stand_ins = stand_ins(&paid, env, &mut remarks)?;
    let mut backends = Vec::new();
    for one in &found {
        let tier = if is_fallback(one) { "fallback" } else { "primary" };
        let stand_in = stand_ins.get(one.provider.id).map(String::as_str).filter(|model| !model.is_empty());
        for (index, key) in one.keys.iter().enumerate() {
            backends.push(Value::Table(backend(one, index + 1, key, tier, &models(one, &found, stand_in))));
        }
    }
    let file = Table::from_iter([("backend".to_owned(), Value::Array(backends))]);
    Ok(Discovered { text: format!("# Written from the environment.\n\n{file}"), remarks })
}

fn backend(found: &Found, number: usize, key: &str, tier: &str, models: &BTreeMap<String, Value>) -> Table {
    let Provider { id, dialect, prices, .. } = found.provider;
    let mut backend = Table::new();
    let mut put = |name: &str, value: Value| backend.insert(name.to_owned(), value);
    put("id", format!("{id}-{number}").into());
    put("tier", tier.into());
    put("base_url", found.base_url.as_str().into());
    put("dialect", (*dialect).into());
    put("api_key", key.into());
    if let Some(rpm) = found.provider.rpm {
        put("rpm", i64::from(rpm).into());
    }
    if !models.is_empty() {
        put("models", Value::Table(models.clone().into_iter().collect()));
    }
    if models.get("*").is_some_and(Value::is_str) {
        // Embeddings of another model are of no use beside those one has.
        put("capabilities", Table::from_iter([("embeddings".to_owned(), false.into())]).into());
    }
    let price = |(model, input, output, cached): &(&str, f64, f64, Option<f64>)| {
        let mut price = Table::from_iter([
            ("input_per_mtok".to_owned(), Value::Float(*input)),
            ("output_per_mtok".to_owned(), Value::Float(*output)),
        ]);
        price.extend(cached.map(|cached| ("cached_input_per_mtok".to_owned(), Value::Float(cached))));
        ((*model).to_owned(), Value::Table(price))
    };
    if !prices.is_empty() {
        put("price", Value::Table(prices.iter().map(price).collect()));
    }
    backend
}

/// Lists the models of a backend: any model for the only provider; with several, its own models and those of none of
/// the others.
fn models(one: &Found, found: &[Found], stand_in: Option<&str>) -> BTreeMap<String, Value> {
    let own = one.provider;
    let mut models = BTreeMap::new();
    if found.len() == 1 {
        return models;
    }
    // A marketplace's names are also those of free providers; the models that it has must not be replaced elsewhere.
    let others = found.iter().map(|other| other.provider).filter(|other| other.id != own.id);
    for other in others.filter(|other| !other.is_marketplace || stand_in.is_some()) {
        models.extend(other.models.iter().map(|name| ((*name).to_owned(), Value::Boolean(false))));
    }
    let mut serve = |names: &[&str], as_what: Value| {
        models.extend(names.iter().map(|name| ((*name).to_owned(), as_what.clone())));
    };
    let takes_all = own.free || (own.is_marketplace && stand_in.is_none());
    let rest = match stand_in {
        Some(model) => Some(Value::from(model)),
        None => takes_all.then_some(Value::Boolean(true)),
    };
    let not_others: Vec<&str> = found.iter().flat_map(|other| other.provider.not_its_own).copied().collect();
    match &rest {
        Some(rest) => serve(&not_others, rest.clone()),
        None => serve(own.not_its_own, Value::Boolean(false)),
    }
    serve(own.models, Value::Boolean(true));
    if let Some(rest) = rest {
        serve(&["*"], rest);
    }
    // Nothing is excepted, so anything is served.
    if takes_all && models.values().all(|as_what| *as_what == Value::Boolean(true)) { BTreeMap::new() } else { models }
}

/// Returns the base URL: the provider's usual one, or that of `OPENAI_BASE_URL` and the like. Without a path the
/// usual one is added, as the provider's SDK does.
fn base_url(provider: &Provider, env: &dyn Env, remarks: &mut Vec<String>) -> Result<String, ConfigError> {
    let names = BASE_URL_NAMES.iter().map(|end| format!("{}_{end}", provider.prefix));
    let set = |name: String| {
        let text = env.var(&name)?.trim().trim_matches(['"', '\'']).trim().to_owned();
        (!text.is_empty()).then_some((name, text))
    };
    let Some((variable, text)) = names.filter_map(set).next() else { return Ok(provider.base_url.to_owned()) };
    let text = text.trim_end_matches('/');
    let uri = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let Some(uri) = uri.filter(|uri| uri.host().is_some() && uri.query().is_none()) else {
        let help = format!("write {variable}={}, or unset it", provider.base_url);
        return Err(ConfigError::whole(format!("the environment variable {variable} is not a base URL"), help));
    };
    let listen = env.var("POINTSMAN__SERVER__LISTEN").unwrap_or_else(|| DEFAULT_LISTEN.to_owned());
    if is_listener(&uri, &listen) {
        remarks.push(format!(
            "{variable} is where Pointsman itself listens, so {} is reached at {}",
            provider.id, provider.base_url
        ));
        return Ok(provider.base_url.to_owned());
    }
    let usual = provider.base_url.parse::<Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    Ok(if uri.path() == "/" { format!("{text}{usual}") } else { text.to_owned() })
}

/// Clients are pointed at the proxy by the same variables.
fn is_listener(uri: &Uri, listen: &str) -> bool {
    let Ok(listen) = listen.replace("localhost", "127.0.0.1").parse::<SocketAddr>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).replace("localhost", "127.0.0.1");
    let is_ours = host
        .parse()
        .is_ok_and(|ip: std::net::IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback()));
    is_ours && uri.port_u16() == Some(listen.port())
}

/// References to the provider's keys, each key once.
fn keys(provider: &Provider, env: &dyn Env) -> Vec<String> {
    let variable = provider.variable();
    let number = |name: &String| name.strip_prefix(&variable)?.strip_prefix('_')?.parse::<u32>().ok();
    let mut numbered: Vec<(u32, String)> =
        env.names().into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    numbered.sort_unstable();
    let mut seen = HashSet::new();
    let mut references = Vec::new();
    for name in std::iter::once(variable.clone()).chain(numbered.into_iter().map(|(_, name)| name)) {
        let value = env.var(&name).unwrap_or_default();
        let entries: Vec<&str> = value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        for (index, entry) in entries.iter().enumerate() {
            if seen.insert((*entry).to_owned()) {
                references.push(if value.contains(',') {
                    format!("env:{name}#{}", index + 1)
                } else {
                    format!("env:{name}")
                });
            }
        }
    }
    references
}

#[cfg(test)]
mod tests;
