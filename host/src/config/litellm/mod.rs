//! LiteLLM's `config.yaml` as a `pointsman.toml`: what has a counterpart is carried over, the rest is named in comments.

mod entry;
mod write;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::overlay::Env;
use entry::{Made, number, reference, text};
use write::{put, quoted};

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

/// Converts; the error is one sentence with the place in the YAML. The text parses as a configuration once the
/// variables it names are set.
pub fn import_litellm(yaml: &str, env: &dyn Env) -> Result<String, String> {
    let file: File = serde_saphyr::from_str(yaml)
        .map_err(|error| format!("this is not a LiteLLM configuration: {}", error.without_snippet()))?;
    if file.model_list.is_empty() {
        return Err("there is no model_list in this file".to_owned());
    }
    let mut import = Import { env, notes: Vec::new() };
    let backends = import.backends(&file);
    let settings = import.settings(&file);
    Ok(write::file(&import.notes, &settings, &backends))
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
            match entry::read(entry, lowest_order(file, &entry.model_name), self.env, &mut self.notes) {
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
