//! One entry of a `model_list`: its provider, where it is reached, its limits and prices, and what of it is left.

use std::collections::BTreeMap;

use serde_json::Value;

use super::providers::Provider;
use super::report::Origin;
use super::{Entry, Rest};
use crate::config::overlay::Env;

/// What entries must share to be one backend: one key at one provider has one limit there.
#[derive(Clone, PartialEq)]
pub(super) struct Target {
    pub(super) provider: &'static str,
    pub(super) base_url: String,
    pub(super) dialect: &'static str,
    pub(super) api_key: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) tier: &'static str,
}

/// What an entry says.
#[derive(Clone)]
pub(super) struct Read {
    pub(super) target: Target,
    /// rpm, tpm, max_concurrency, weight.
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) total_ms: Option<u64>,
    pub(super) sent: String,
    pub(super) price: Option<(f64, f64)>,
    /// Remarks about what was not taken over as it stands.
    pub(super) remarks: Vec<String>,
}

/// The parameters of an entry that are carried over.
const CARRIED: [&str; 15] = [
    "model",
    "custom_llm_provider",
    "api_base",
    "base_url",
    "api_key",
    "rpm",
    "tpm",
    "order",
    "weight",
    "max_parallel_requests",
    "timeout",
    "extra_headers",
    "organization",
    "input_cost_per_token",
    "output_cost_per_token",
];

/// The same of the entry itself and of its `model_info`.
const CARRIED_BESIDE: [&str; 4] = ["rpm", "tpm", "input_cost_per_token", "output_cost_per_token"];

/// Reads an entry of this order, of which `lowest` is the first of its group.
pub(super) fn read(entry: &Entry, lowest: Option<f64>, timeout: Option<f64>, env: &dyn Env) -> Result<Read, String> {
    let params = &entry.litellm_params;
    let model = text(params, "model").ok_or("it has no litellm_params.model")?;
    let (provider, sent) = provider_of(params, &model)?;
    let mut remarks = Vec::new();
    let base_url = match text(params, "api_base").or_else(|| text(params, "base_url")) {
        None if provider.base_url.is_empty() => {
            return Err(format!("litellm_params.api_base is missing, and {} has no usual one", provider.name));
        }
        None => provider.base_url.to_owned(),
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
            base_url
        }
    };
    let api_key = match text(params, "api_key") {
        Some(key) => reference(&key),
        None if provider.variable.is_empty() || (provider.base_url.is_empty() && !is_azure(provider)) => String::new(),
        None => format!("env:{}", provider.variable),
    };
    remarks.extend(left(entry));
    let order = number(params, "order");
    let tier = match (order, lowest) {
        (Some(order), Some(lowest)) if order <= lowest => "primary",
        (None, None) => "primary",
        // LiteLLM comes to those without an order last.
        (Some(_) | None, Some(_)) | (Some(_), None) => "fallback",
    };
    let seconds = number(params, "timeout").or(timeout);
    let target = Target {
        provider: provider.name,
        base_url,
        dialect: provider.dialect,
        api_key,
        headers: headers(params),
        tier,
    };
    Ok(Read {
        target,
        limits: limits(entry),
        total_ms: seconds.map(|seconds| (seconds * 1000.0) as u64).filter(|ms| *ms > 0),
        price: price(entry),
        sent,
        remarks,
    })
}

fn is_azure(provider: &Provider) -> bool {
    provider.name.starts_with("azure")
}

/// Which provider `openai/gpt-5` is of, and the name it is sent by.
fn provider_of(params: &Rest, model: &str) -> Result<(&'static Provider, String), String> {
    let known = |name: &str| {
        Provider::named(name).ok_or_else(|| {
            format!("litellm_params.model: {name} speaks neither the openai nor the anthropic dialect at a plain URL")
        })
    };
    if let Some(name) = text(params, "custom_llm_provider") {
        let sent = model.strip_prefix(&format!("{name}/")).unwrap_or(model);
        return Ok((known(&name)?, sent.to_owned()));
    }
    match model.split_once('/') {
        Some((name, sent)) => Ok((known(name)?, sent.to_owned())),
        None if model.starts_with("claude") => Ok((known("anthropic")?, model.to_owned())),
        None => Ok((known("openai")?, model.to_owned())),
    }
}

/// What is in the entry and has no counterpart.
fn left(entry: &Entry) -> Vec<String> {
    let of = |section: &str, map: &Rest, carried: &[&str]| -> Vec<String> {
        map.keys().filter(|key| !carried.contains(&key.as_str())).map(|key| format!("{section}{key}")).collect()
    };
    let mut left = of("litellm_params.", &entry.litellm_params, &CARRIED);
    left.extend(of("model_info.", &entry.model_info, &CARRIED_BESIDE));
    left.extend(of("", &entry.rest, &CARRIED_BESIDE));
    if left.is_empty() {
        return Vec::new();
    }
    let why = match left.iter().all(|key| key == "litellm_params.api_version") {
        true => " (Azure's version 1 API needs none)",
        false => "",
    };
    vec![format!("not carried over: {}{why}", left.join(", "))]
}

fn limits(entry: &Entry) -> BTreeMap<&'static str, u64> {
    let value = |key: &str| number(&entry.litellm_params, key).or_else(|| number(&entry.rest, key));
    [("rpm", "rpm"), ("tpm", "tpm"), ("max_concurrency", "max_parallel_requests"), ("weight", "weight")]
        .into_iter()
        .filter_map(|(ours, theirs)| Some((ours, value(theirs).filter(|n| (1.0..4e9).contains(n))? as u64)))
        .collect()
}

fn headers(params: &Rest) -> BTreeMap<String, String> {
    let extra = params.get("extra_headers").and_then(Value::as_object).into_iter().flatten();
    let mut headers: BTreeMap<String, String> =
        extra.filter_map(|(name, value)| Some((name.clone(), reference(value.as_str()?)))).collect();
    if let Some(organization) = text(params, "organization") {
        headers.insert("OpenAI-Organization".to_owned(), reference(&organization));
    }
    headers
}

/// Input and output, in USD per million tokens.
fn price(entry: &Entry) -> Option<(f64, f64)> {
    let cost = |key: &str| number(&entry.litellm_params, key).or_else(|| number(&entry.model_info, key));
    let per_million = |usd: f64| (usd * 1e12).round() / 1e6;
    let (input, output) = (cost("input_cost_per_token"), cost("output_cost_per_token"));
    (input.is_some() || output.is_some())
        .then(|| (per_million(input.unwrap_or(0.0).max(0.0)), per_million(output.unwrap_or(0.0).max(0.0))))
}

/// `os.environ/NAME` as we write it.
pub(super) fn reference(value: &str) -> String {
    value.strip_prefix("os.environ/").map_or_else(|| value.to_owned(), |name| format!("env:{name}"))
}

/// A text; none when it is missing or something else.
pub(super) fn text(map: &Rest, key: &str) -> Option<String> {
    map.get(key)?.as_str().map(str::to_owned)
}

/// A number, also when it is written as text.
pub(super) fn number(map: &Rest, key: &str) -> Option<f64> {
    let value = map.get(key)?;
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
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
