//! LiteLLM's `config.yaml` as a `pointsman.toml`: what has a counterpart is carried over, the rest is named in comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use super::overlay::Env;

type Rest = BTreeMap<String, Value>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    model_list: Vec<Entry>,
    router_settings: Rest,
    litellm_settings: Rest,
    general_settings: Rest,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    model_name: String,
    litellm_params: Rest,
    model_info: Rest,
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

/// A backend in the making: what entries must share to become one, and what sets them apart.
#[derive(Clone, PartialEq)]
struct Target {
    provider: &'static str,
    base_url: String,
    dialect: &'static str,
    api_key: String,
    headers: BTreeMap<String, String>,
    tier: &'static str,
    /// rpm, tpm, max_concurrency, weight: limits are the entry's own, so entries that have any are not merged.
    limits: BTreeMap<&'static str, u64>,
    total_ms: Option<u64>,
}

#[derive(Clone)]
struct Made {
    target: Target,
    models: BTreeMap<String, String>,
    prices: BTreeMap<String, (f64, f64)>,
}

/// Converts; the error is one sentence with the place in the YAML. The text parses as a configuration once the
/// variables it names are set.
pub fn import_litellm(yaml: &str, env: &dyn Env) -> Result<String, String> {
    let file: File =
        serde_saphyr::from_str(yaml).map_err(|error| format!("this is not a LiteLLM configuration: {error}"))?;
    if file.model_list.is_empty() {
        return Err("there is no model_list in this file".to_owned());
    }
    let mut import = Import { env, notes: Vec::new() };
    let backends = import.backends(&file);
    let settings = import.settings(&file);
    Ok(import.write(&backends, &settings))
}

struct Import<'a> {
    env: &'a dyn Env,
    /// What could not be carried over.
    notes: Vec<String>,
}

impl Import<'_> {
    fn backends(&mut self, file: &File) -> Vec<Made> {
        let mut backends: Vec<Made> = Vec::new();
        let mut made: Vec<(String, Made)> = Vec::new();
        for (index, entry) in file.model_list.iter().enumerate() {
            match self.entry(entry, lowest_order(file, &entry.model_name)) {
                Ok(one) => made.push((entry.model_name.clone(), one)),
                Err(why) => self.notes.push(format!("model_list[{index}] (model_name {:?}): {why}", entry.model_name)),
            }
        }
        for (_, one) in &made {
            join(&mut backends, one.clone());
        }
        for (asked, group) in self.fallbacks(file) {
            let members: Vec<&Made> = made.iter().filter(|(name, _)| *name == group).map(|(_, one)| one).collect();
            if members.is_empty() {
                self.notes.push(format!("the fallback {asked} -> {group}: no entry of model_list has that model_name"));
            }
            for one in members {
                let mut one = one.clone();
                one.target.tier = "fallback";
                one.models = one.models.into_values().map(|sent| (asked.clone(), sent.replace('*', &asked))).collect();
                join(&mut backends, one);
            }
        }
        backends
    }

    fn entry(&mut self, entry: &Entry, lowest_order: f64) -> Result<Made, String> {
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
                Some(name) => {
                    self.env.var(name).ok_or_else(|| format!("its api_base is in {name}, which is not set here"))?
                }
            },
        };
        let api_key = match text(params, "api_key") {
            Some(key) => reference(&key),
            None if provider.base_url.is_empty() => String::new(),
            None => format!("env:{}", provider.variable),
        };
        let left: Vec<&str> = params.keys().map(String::as_str).filter(|key| !CARRIED.contains(key)).collect();
        if !left.is_empty() {
            self.notes.push(format!("model_name {:?}: litellm_params {}", entry.model_name, left.join(", ")));
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

    /// Pairs of a model name asked for, and the model_name whose entries stand in for it.
    fn fallbacks(&mut self, file: &File) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for settings in [&file.router_settings, &file.litellm_settings] {
            let lists = settings.get("fallbacks").and_then(Value::as_array).into_iter().flatten();
            for (asked, groups) in lists.filter_map(Value::as_object).flatten() {
                for group in groups.as_array().into_iter().flatten() {
                    match group.as_str() {
                        Some(group) => pairs.push((asked.clone(), group.to_owned())),
                        None => self.notes.push(format!("a fallback of {asked} that is more than a name")),
                    }
                }
            }
            for group in settings.get("default_fallbacks").and_then(Value::as_array).into_iter().flatten() {
                pairs.extend(group.as_str().map(|group| ("*".to_owned(), group.to_owned())));
            }
        }
        pairs
    }

    /// The sections beside `[[backend]]`.
    fn settings(&mut self, file: &File) -> String {
        let mut out = String::new();
        let retries = number(&file.router_settings, "num_retries").or(number(&file.litellm_settings, "num_retries"));
        if let Some(retries) = retries.filter(|retries| *retries >= 0.0) {
            put(&mut out, format_args!("[policy.settings]\nmax_pool_retries = {}\n\n", retries as u64));
        }
        if let Some(key) = text(&file.general_settings, "master_key") {
            put(&mut out, format_args!("[[client]]\nname = \"master\"\nkey = {}\n\n", quoted(&reference(&key))));
        }
        let carried = ["fallbacks", "default_fallbacks", "num_retries", "master_key"];
        let sections = [
            ("router_settings", &file.router_settings),
            ("litellm_settings", &file.litellm_settings),
            ("general_settings", &file.general_settings),
            ("", &file.rest),
        ];
        for (name, section) in sections {
            let left: Vec<&str> = section.keys().map(String::as_str).filter(|key| !carried.contains(key)).collect();
            if !left.is_empty() {
                self.notes.push(format!("{name}{}{}", if name.is_empty() { "" } else { ": " }, left.join(", ")));
            }
        }
        out
    }

    fn write(&self, backends: &[Made], settings: &str) -> String {
        let mut out = String::from("# Converted from a LiteLLM configuration. Check it: pointsman config check FILE\n");
        if !self.notes.is_empty() {
            out.push_str("#\n# Not carried over:\n");
            for note in &self.notes {
                put(&mut out, format_args!("# - {}\n", note.replace(['\n', '\r'], " ")));
            }
        }
        put(&mut out, format_args!("\n{settings}"));
        let mut ids = BTreeSet::new();
        for made in backends {
            let suffix = if made.target.tier == "fallback" { "-fallback" } else { "" };
            let stem = format!("{}{suffix}", made.target.provider.replace('_', "-"));
            let id = (1..).map(|n| format!("{stem}-{n}")).find(|id| ids.insert(id.clone()));
            made.write(&id.unwrap_or(stem), &mut out);
        }
        out
    }
}

impl Made {
    fn write(&self, id: &str, out: &mut String) {
        let Target { base_url, dialect, api_key, headers, tier, limits, total_ms, .. } = &self.target;
        put(
            out,
            format_args!("[[backend]]\nid = {}\ntier = \"{tier}\"\nbase_url = {}\n", quoted(id), quoted(base_url)),
        );
        put(out, format_args!("dialect = \"{dialect}\"\n"));
        if !api_key.is_empty() {
            put(out, format_args!("api_key = {}\n", quoted(api_key)));
        }
        for (key, value) in limits {
            put(out, format_args!("{key} = {value}\n"));
        }
        if let Some(ms) = total_ms {
            put(out, format_args!("timeouts = {{ total_ms = {ms} }}\n"));
        }
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter().map(|(k, v)| format!("{} = {}", quoted(k), quoted(v))).collect::<Vec<_>>().join(", ")
        };
        if !headers.is_empty() {
            put(out, format_args!("headers = {{ {} }}\n", pairs(headers)));
        }
        put(out, format_args!("models = {{ {} }}\n", pairs(&self.models)));
        for (model, (input, output)) in &self.prices {
            put(out, format_args!("[backend.price.{}]\n", quoted(model)));
            put(out, format_args!("input_per_mtok = {input:?}\noutput_per_mtok = {output:?}\n"));
        }
        out.push('\n');
    }
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

/// Entries that differ only in their models become one backend.
fn join(backends: &mut Vec<Made>, one: Made) {
    let fits = |b: &&mut Made| {
        b.target == one.target
            && one.target.limits.is_empty()
            && !one.models.keys().any(|asked| b.models.contains_key(asked))
    };
    match backends.iter_mut().find(fits) {
        Some(backend) => {
            backend.models.extend(one.models);
            backend.prices.extend(one.prices);
        }
        None => backends.push(one),
    }
}

fn lowest_order(file: &File, model_name: &str) -> f64 {
    let orders = file
        .model_list
        .iter()
        .filter(|e| e.model_name == model_name)
        .filter_map(|e| number(&e.litellm_params, "order"));
    let lowest = orders.fold(f64::INFINITY, f64::min);
    if lowest.is_finite() { lowest } else { 1.0 }
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

fn reference(value: &str) -> String {
    value.strip_prefix("os.environ/").map_or_else(|| value.to_owned(), |name| format!("env:{name}"))
}

fn text(map: &Rest, key: &str) -> Option<String> {
    map.get(key)?.as_str().map(str::to_owned)
}

/// A number, also when it is written as text.
fn number(map: &Rest, key: &str) -> Option<f64> {
    let value = map.get(key)?;
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};
    use pointsman_core::table::{Dialect, Tier};

    const ENV: [(&str, &str); 5] = [
        ("NVIDIA_NIM_API_KEY", "n"),
        ("OPENAI_API_KEY", "o"),
        ("ANTHROPIC_API_KEY", "a"),
        ("MASTER", "m"),
        ("BASE", "http://b/v1"),
    ];

    fn import(yaml: &str) -> (String, Config) {
        let text = import_litellm(yaml, &ENV).unwrap();
        let config = parse(&text, "imported.toml", &ENV).unwrap_or_else(|error| panic!("{error}\n{text}")).config;
        (text, config)
    }

    const YAML: &str = r#"
model_list:
  - model_name: llama
    litellm_params: { model: nvidia_nim/meta/llama-3.1-70b-instruct, rpm: 40, tpm: "100000", order: 1, temperature: 0.1 }
  - model_name: llama
    litellm_params: { model: openai/llama-70b, api_base: os.environ/BASE, api_key: os.environ/OPENAI_API_KEY, order: 2 }
  - model_name: gpt
    litellm_params: { model: gpt-4o-mini, timeout: 30 }
    model_info: { input_cost_per_token: 0.00000015, output_cost_per_token: 6.0e-07 }
  - model_name: gpt-large
    litellm_params: { model: openai/gpt-4o, timeout: 30 }
  - model_name: claude
    litellm_params: { model: anthropic/claude-sonnet-4-5, max_parallel_requests: 4 }
  - model_name: cloudy
    litellm_params: { model: bedrock/anthropic.claude-v2 }
router_settings:
  routing_strategy: least-busy
  num_retries: 2
  fallbacks: [{ llama: ["gpt"] }, { gpt: ["nothing"] }]
general_settings: { master_key: os.environ/MASTER, database_url: "postgres://secret" }
"#;

    #[test]
    fn a_model_list_becomes_backends() {
        let (text, config) = import(YAML);
        let seen: Vec<(&str, Tier, Dialect)> =
            config.backends.iter().map(|b| (&*b.backend.id, b.backend.tier, b.backend.dialect)).collect();
        assert_eq!(
            seen,
            [
                ("nvidia-nim-1", Tier::Primary, Dialect::Openai),
                ("openai-fallback-1", Tier::Fallback, Dialect::Openai),
                ("openai-1", Tier::Primary, Dialect::Openai),
                ("anthropic-1", Tier::Primary, Dialect::Anthropic),
                ("openai-fallback-2", Tier::Fallback, Dialect::Openai),
            ],
            "{text}"
        );
        let backend = |i: usize| &config.backends[i].backend;
        assert_eq!((backend(0).limits.rpm, backend(0).limits.tpm), (Some(40), Some(100_000)));
        assert_eq!(backend(0).sent_model("llama").as_deref(), Some("meta/llama-3.1-70b-instruct"));
        assert_eq!(config.backends[1].base_url.to_string(), "http://b/v1");
        assert_eq!(backend(2).sent_model("gpt-large").as_deref(), Some("gpt-4o"));
        assert_eq!(backend(2).price("gpt-4o-mini").unwrap().input_per_mtok, 0.15);
        assert_eq!(backend(2).timeouts.total.as_secs(), 30);
        assert_eq!(backend(3).limits.max_concurrency, Some(4));
        assert_eq!(backend(4).sent_model("llama").as_deref(), Some("gpt-4o-mini"));
        assert_eq!(config.policy.settings["max_pool_retries"], 2);
        assert_eq!(config.client_of("m"), Some(0));
    }

    #[test]
    fn what_is_left_behind_is_named() {
        let (text, _) = import(YAML);
        for note in ["bedrock", "temperature", "routing_strategy", "gpt -> nothing", "database_url"] {
            assert!(text.lines().any(|line| line.starts_with("# - ") && line.contains(note)), "{note}:\n{text}");
        }
        assert!(!text.contains("postgres://"), "{text}");
    }

    #[test]
    fn wildcards_stay_wildcards() {
        let (_, config) = import("model_list: [{ model_name: \"openai/*\", litellm_params: { model: \"openai/*\" } }]");
        assert_eq!(config.backends[0].backend.sent_model("openai/gpt-5").as_deref(), Some("gpt-5"));
    }

    #[test]
    fn other_files_are_refused_in_a_sentence() {
        assert!(import_litellm("a: [", &ENV).unwrap_err().contains("not a LiteLLM configuration"));
        assert!(import_litellm("a: 1", &ENV).unwrap_err().contains("no model_list"));
        assert!(import_litellm("", &ENV).is_err());
    }
}
