//! One entry of a `model_list`: its provider, where it is reached, its limits and prices, and what of it is left.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Entry;
use super::fields::{Fields, number};
use super::providers::Provider;
use super::report::Origin;
use crate::overlay::Env;

/// Identity of a backend: entries that share it become one, because a provider limits by key.
#[derive(Clone, PartialEq)]
pub(super) struct Target {
    pub(super) provider: &'static str,
    pub(super) base_url: String,
    pub(super) dialect: &'static str,
    pub(super) api_key: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) tier: &'static str,
}

/// The contents of an entry.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) target: Target,
    /// Values of rpm, tpm, max_concurrency and weight.
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) total_ms: Option<u64>,
    pub(super) sent: String,
    pub(super) price: Option<(f64, f64)>,
    /// Remarks about what was not taken over as it stands.
    pub(super) remarks: Vec<String>,
}

/// The sections of an entry, by the names they are reported by.
const PARAMS: &str = "litellm_params.";
const INFO: &str = "model_info.";
const ITSELF: &str = "";

/// Reads an entry of this order, of which `lowest` is the first of its group.
pub(super) fn read(entry: &Entry, lowest: Option<f64>, timeout: Option<f64>, env: &dyn Env) -> Result<Read, String> {
    let sections = vec![(PARAMS, &entry.litellm_params), (INFO, &entry.model_info), (ITSELF, &entry.rest)];
    let mut fields = Fields::new(sections, env);
    let fields = &mut fields;
    let model = fields.text(PARAMS, "model").ok_or("it has no litellm_params.model")?;
    let (provider, sent) = provider_of(fields, &model)?;
    let mut remarks = Vec::new();
    let base_url = base_url(fields, provider, &mut remarks, env)?;
    let api_key = match fields.text(PARAMS, "api_key") {
        Some(key) => reference(&key),
        None if provider.variable.is_empty() || (provider.base_url.is_empty() && !is_azure(provider)) => String::new(),
        None => format!("env:{}", provider.variable),
    };
    let order = number(&entry.litellm_params, "order");
    if order.is_some() {
        fields.took(PARAMS, "order");
    }
    let tier = match (order, lowest) {
        (Some(order), Some(lowest)) if order <= lowest => "primary",
        (None, None) => "primary",
        // LiteLLM comes to those without an order last.
        (Some(_) | None, Some(_)) | (Some(_), None) => "fallback",
    };
    let own = fields.number(&[(PARAMS, "timeout")], SECONDS, is_seconds);
    let target = Target {
        provider: provider.name,
        base_url,
        dialect: provider.dialect,
        api_key,
        headers: headers(fields),
        tier,
    };
    let (limits, price) = (limits(fields), price(fields));
    if !sent.contains("embed") {
        remarks.extend(price.as_ref().and_then(|price| price.missing.map(missing_price)));
    }
    remarks.extend(left(fields));
    Ok(Read {
        target,
        limits,
        total_ms: own.or(timeout).map(|seconds| (seconds * 1000.0) as u64),
        price: price.map(|price| price.usd_per_mtok),
        sent,
        remarks,
    })
}

/// The base URL of an entry: the one that it names, or the provider's usual one.
fn base_url(
    fields: &mut Fields<'_>,
    provider: &Provider,
    remarks: &mut Vec<String>,
    env: &dyn Env,
) -> Result<String, String> {
    match fields.text(PARAMS, "api_base").or_else(|| fields.text(PARAMS, "base_url")) {
        None if provider.base_url.is_empty() => {
            Err(format!("litellm_params.api_base is missing, and {} has no usual one", provider.name))
        }
        None => Ok(provider.base_url.to_owned()),
        Some(base) => {
            let base = match base.strip_prefix("os.environ/") {
                None => base,
                Some(name) => {
                    let base = env.var(name);
                    base.ok_or_else(|| format!("litellm_params.api_base is in {name}, which is not set here"))?
                }
            };
            let base_url = provider.base_url(&base);
            if base_url != base.trim_end_matches('/') {
                remarks.push(format!("litellm_params.api_base became {base_url}, the OpenAI-compatible API there"));
            }
            Ok(base_url)
        }
    }
}

fn is_azure(provider: &Provider) -> bool {
    provider.name.starts_with("azure")
}

/// Finds the provider of `openai/gpt-5`, and the model name to send.
fn provider_of(fields: &mut Fields<'_>, model: &str) -> Result<(&'static Provider, String), String> {
    let known = |name: &str| {
        Provider::named(name).ok_or_else(|| {
            format!(
                "litellm_params.model: {name} is none of the providers with the openai or the anthropic dialect at a \
                 plain URL that are known here; if it has such an API, call it openai/MODEL with an api_base"
            )
        })
    };
    if let Some(name) = fields.text(PARAMS, "custom_llm_provider") {
        let sent = model.strip_prefix(&format!("{name}/")).unwrap_or(model);
        return Ok((known(&name)?, sent.to_owned()));
    }
    match model.split_once('/') {
        Some((name, sent)) => Ok((known(name)?, sent.to_owned())),
        None if model.starts_with("claude") => Ok((known("anthropic")?, model.to_owned())),
        None => Ok((known("openai")?, model.to_owned())),
    }
}

/// Lists the keys of the entry that were not taken over.
fn left(fields: &Fields<'_>) -> Option<String> {
    let told = |(name, why): (String, Option<String>)| match why {
        Some(why) => format!("{name} ({why})"),
        None if name == "litellm_params.api_version" => format!("{name} (Azure's version 1 API needs none)"),
        None => name,
    };
    let left: Vec<String> = fields.left().into_iter().map(told).collect();
    (!left.is_empty()).then(|| format!("not carried over: {}", left.join(", ")))
}

fn limits(fields: &mut Fields<'_>) -> BTreeMap<&'static str, u64> {
    let mut limit = |key: &str| {
        let places = [(PARAMS, key), (ITSELF, key), (INFO, key)];
        fields.number(&places, "a whole number from 1", |n| (1.0..4e9).contains(&n) && n.fract() == 0.0)
    };
    [("rpm", "rpm"), ("tpm", "tpm"), ("max_concurrency", "max_parallel_requests"), ("weight", "weight")]
        .into_iter()
        .filter_map(|(ours, theirs)| Some((ours, limit(theirs)? as u64)))
        .collect()
}

fn headers(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    const EXTRA: &str = "extra_headers";
    let mut headers = BTreeMap::new();
    match fields.get(PARAMS, EXTRA).map(Value::as_object) {
        None => {}
        Some(None) => fields.refused(PARAMS, EXTRA, "it is no map"),
        Some(Some(extra)) => {
            fields.took(PARAMS, EXTRA);
            for (name, value) in extra {
                match value.as_str() {
                    Some(value) => {
                        headers.insert(name.clone(), reference(value));
                    }
                    None => fields.refused(PARAMS, &format!("{EXTRA}.{name}"), "it is no text"),
                }
            }
        }
    }
    if let Some(organization) = fields.text(PARAMS, "organization") {
        headers.insert("OpenAI-Organization".to_owned(), reference(&organization));
    }
    headers
}

/// The price of an entry.
struct EntryPrice {
    /// Prices of input and output, USD per million tokens.
    usd_per_mtok: (f64, f64),
    /// The one of both that the entry does not have.
    missing: Option<&'static str>,
}

fn missing_price(key: &'static str) -> String {
    format!(
        "there is no {key}: such tokens count as $0; LiteLLM takes it from a list, and `pointsman config prices` has one"
    )
}

fn price(fields: &mut Fields<'_>) -> Option<EntryPrice> {
    let mut cost = |key: &str| {
        let places = [(PARAMS, key), (ITSELF, key), (INFO, key)];
        fields.number(&places, "a number from 0", |n| n >= 0.0)
    };
    let per_million = |usd: f64| (usd * 1e12).round() / 1e6;
    let (input, output) = (cost("input_cost_per_token"), cost("output_cost_per_token"));
    let missing = match (input, output) {
        (None, None) => return None,
        (Some(_), Some(_)) => None,
        (None, Some(_)) => Some("input_cost_per_token"),
        (Some(_), None) => Some("output_cost_per_token"),
    };
    Some(EntryPrice { usd_per_mtok: (per_million(input.unwrap_or(0.0)), per_million(output.unwrap_or(0.0))), missing })
}

/// A timeout that can be carried over: 1 ms to a year.
pub(super) fn is_seconds(seconds: f64) -> bool {
    (0.001..=31_536_000.0).contains(&seconds)
}

/// Description of the values that [`is_seconds`] accepts.
pub(super) const SECONDS: &str = "a number of seconds above 0";

/// `os.environ/NAME` as we write it.
pub(super) fn reference(value: &str) -> String {
    value.strip_prefix("os.environ/").map_or_else(|| value.to_owned(), |name| format!("env:{name}"))
}

/// The least order of a group; none where no entry of it has one.
pub(super) fn lowest_order<'e>(group: impl Iterator<Item = &'e Entry>) -> Option<f64> {
    group.filter_map(|entry| number(&entry.litellm_params, "order")).reduce(f64::min)
}

/// An entry that was read, and where it stands.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) origin: Origin,
    pub(super) model_name: String,
    pub(super) read: Read,
}
