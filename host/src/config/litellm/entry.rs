//! One entry of a `model_list`: its provider, where it is reached, and its limits and prices.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Entry, Rest};
use crate::config::overlay::Env;

/// A backend in the making: what entries must share to become one, and what sets them apart.
#[derive(Clone, PartialEq)]
pub(super) struct Target {
    pub(super) provider: &'static str,
    pub(super) base_url: String,
    pub(super) dialect: &'static str,
    pub(super) api_key: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) tier: &'static str,
    /// rpm, tpm, max_concurrency, weight: limits are the entry's own, so entries that have any are not merged.
    pub(super) limits: BTreeMap<&'static str, u64>,
    pub(super) total_ms: Option<u64>,
}

/// A backend with its models and their prices.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) target: Target,
    pub(super) models: BTreeMap<String, String>,
    pub(super) prices: BTreeMap<String, (f64, f64)>,
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

/// Reads an entry; what is in it and cannot be carried over is noted.
pub(super) fn read(entry: &Entry, lowest_order: f64, env: &dyn Env, notes: &mut Vec<String>) -> Result<Made, String> {
    let params = &entry.litellm_params;
    let model = text(params, "model").ok_or("it has no litellm_params.model")?;
    let (provider, sent) = provider_of(params, &model)?;
    let base_url = match text(params, "api_base").or_else(|| text(params, "base_url")) {
        None if provider.base_url.is_empty() => {
            return Err(format!("{} needs an api_base", provider.name));
        }
        None => provider.base_url.to_owned(),
        Some(base) => match base.strip_prefix("os.environ/") {
            None => base,
            Some(name) => env.var(name).ok_or_else(|| format!("its api_base is in {name}, which is not set here"))?,
        },
    };
    let api_key = match text(params, "api_key") {
        Some(key) => reference(&key),
        None if provider.base_url.is_empty() => String::new(),
        None => format!("env:{}", provider.variable),
    };
    let left: Vec<&str> = params.keys().map(String::as_str).filter(|key| !CARRIED.contains(key)).collect();
    if !left.is_empty() {
        notes.push(format!("model_name {:?}: litellm_params {}", entry.model_name, left.join(", ")));
    }
    let order = number(params, "order").unwrap_or(lowest_order);
    let target = Target {
        provider: provider.name,
        base_url,
        dialect: provider.dialect,
        api_key,
        headers: headers(params),
        tier: if order > lowest_order { "fallback" } else { "primary" },
        limits: limits(params),
        total_ms: number(params, "timeout").map(|seconds| (seconds * 1000.0) as u64).filter(|ms| *ms > 0),
    };
    let prices = price(entry).map(|price| (sent.clone(), price)).into_iter().collect();
    Ok(Made { target, models: BTreeMap::from([(entry.model_name.clone(), sent)]), prices })
}

/// Which provider `openai/gpt-5` is of, and the name it is sent by.
fn provider_of(params: &Rest, model: &str) -> Result<(&'static Provider, String), String> {
    let known = |name: &str| PROVIDERS.iter().find(|p| p.name == name).ok_or_else(|| foreign(name));
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

fn limits(params: &Rest) -> BTreeMap<&'static str, u64> {
    [("rpm", "rpm"), ("tpm", "tpm"), ("max_concurrency", "max_parallel_requests"), ("weight", "weight")]
        .into_iter()
        .filter_map(|(ours, theirs)| Some((ours, number(params, theirs).filter(|n| (1.0..4e9).contains(n))? as u64)))
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

fn foreign(provider: &str) -> String {
    format!("{provider} speaks neither the openai nor the anthropic dialect at a plain URL")
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

/// How LiteLLM spells a provider, and how it is reached.
struct Provider {
    name: &'static str,
    /// Empty: every entry says its own.
    base_url: &'static str,
    dialect: &'static str,
    /// Where LiteLLM looks for the key when an entry has none.
    variable: &'static str,
}

const fn provider(name: &'static str, base_url: &'static str, variable: &'static str) -> Provider {
    Provider { name, base_url, dialect: "openai", variable }
}

const OPENAI: Provider = provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY");

const ANTHROPIC: Provider =
    Provider { dialect: "anthropic", ..provider("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY") };

static PROVIDERS: [Provider; 16] = [
    OPENAI,
    ANTHROPIC,
    provider("nvidia_nim", "https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    provider("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    provider("together_ai", "https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    provider("fireworks_ai", "https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    provider("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    provider("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    provider("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    provider("xai", "https://api.x.ai/v1", "XAI_API_KEY"),
    provider("cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    provider("hosted_vllm", "", "HOSTED_VLLM_API_KEY"),
    provider("openai_like", "", "OPENAI_LIKE_API_KEY"),
    provider("custom_openai", "", "OPENAI_API_KEY"),
    provider("lm_studio", "", "LM_STUDIO_API_KEY"),
];
