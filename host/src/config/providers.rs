//! Providers found by their usual environment variables, for a start without a file.

use std::collections::HashSet;
use std::fmt::Write;

use super::diagnostic::ConfigError;
use super::overlay::Env;

/// What is known of a provider beforehand.
struct Provider {
    id: &'static str,
    variable: &'static str,
    base_url: &'static str,
    dialect: &'static str,
    /// Free with a rate limit: worth waiting for. The others cost money.
    free: bool,
    /// Requests a minute of its free keys, where it is the same for everyone.
    rpm: Option<u32>,
    /// Names that are its own. Empty: a marketplace that serves anyone's models.
    models: &'static [&'static str],
}

impl Provider {
    const fn paid(id: &'static str, variable: &'static str, base_url: &'static str) -> Self {
        Self { id, variable, base_url, dialect: "openai", free: false, rpm: None, models: &[] }
    }

    const fn serving(self, models: &'static [&'static str]) -> Self {
        Self { models, ..self }
    }
}

const PROVIDERS: [Provider; 13] = [
    // 40 requests a minute is what a free key of build.nvidia.com shows as its rate limit.
    Provider {
        free: true,
        rpm: Some(40),
        ..Provider::paid("nvidia", "NVIDIA_API_KEY", "https://integrate.api.nvidia.com/v1")
    },
    // Limits differ by model (https://console.groq.com/docs/rate-limits): left to its 429s and headers.
    Provider { free: true, ..Provider::paid("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1") },
    // Limits differ by model (https://inference-docs.cerebras.ai/support/rate-limits).
    Provider { free: true, ..Provider::paid("cerebras", "CEREBRAS_API_KEY", "https://api.cerebras.ai/v1") },
    Provider::paid("siliconflow", "SILICONFLOW_API_KEY", "https://api.siliconflow.cn/v1"),
    Provider::paid("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
    Provider::paid("together", "TOGETHER_API_KEY", "https://api.together.xyz/v1"),
    Provider::paid("fireworks", "FIREWORKS_API_KEY", "https://api.fireworks.ai/inference/v1"),
    Provider::paid("openai", "OPENAI_API_KEY", "https://api.openai.com/v1").serving(&[
        "gpt-*",
        "chatgpt-*",
        "o1*",
        "o3*",
        "o4*",
        "ft:*",
        "text-embedding-*",
        "dall-e-*",
        "tts-*",
        "whisper-*",
        "omni-*",
        "codex-*",
    ]),
    Provider {
        dialect: "anthropic",
        ..Provider::paid("anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com/v1")
    }
    .serving(&["claude-*"]),
    Provider::paid("gemini", "GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai")
        .serving(&["gemini-*", "gemma-*", "models/*"]),
    Provider::paid("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1").serving(&[
        "mistral-*",
        "ministral-*",
        "codestral-*",
        "devstral-*",
        "magistral-*",
        "pixtral-*",
        "voxtral-*",
        "open-mi*",
    ]),
    Provider::paid("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1").serving(&["deepseek-*"]),
    Provider::paid("xai", "XAI_API_KEY", "https://api.x.ai/v1").serving(&["grok-*"]),
];

/// Writes a configuration for the providers whose keys are in the environment: `NAME`, a comma-separated list in
/// `NAME`, and `NAME_1`, `NAME_2`, ... are several backends. Free, rate-limited ones are primary; paid ones are
/// fallback, or primary where nothing is free.
pub fn discover(env: &dyn Env) -> Result<String, ConfigError> {
    let found: Vec<(&Provider, Vec<String>)> =
        PROVIDERS.iter().map(|p| (p, keys(p, env))).filter(|(_, keys)| !keys.is_empty()).collect();
    if found.is_empty() {
        let names: Vec<&str> = PROVIDERS.iter().map(|p| p.variable).collect();
        let help = format!(
            "write a pointsman.toml, or export one of {}; or see it work without any key: pointsman demo",
            names.join(", ")
        );
        return Err(ConfigError::whole(
            "there is no pointsman.toml here and no provider's key in the environment",
            help,
        ));
    }
    let any_free = found.iter().any(|(provider, _)| provider.free);
    let alone = found.len() == 1;
    let mut text = String::from("# Written from the environment.\n");
    for (provider, keys) in found {
        let tier = if provider.free || !any_free { "primary" } else { "fallback" };
        for (index, key) in keys.iter().enumerate() {
            text.push_str(&backend(provider, index + 1, key, tier, alone));
        }
    }
    Ok(text)
}

fn backend(provider: &Provider, number: usize, key: &str, tier: &str, alone: bool) -> String {
    let Provider { id, base_url, dialect, .. } = provider;
    let mut text = format!(
        "\n[[backend]]\nid = \"{id}-{number}\"\ntier = \"{tier}\"\nbase_url = \"{base_url}\"\ndialect = \"{dialect}\"\napi_key = \"{key}\"\n"
    );
    let mut line = |line: std::fmt::Arguments<'_>| text.write_fmt(line).expect("writing to a string cannot fail");
    if let Some(rpm) = provider.rpm {
        line(format_args!("rpm = {rpm}\n"));
    }
    // The only provider gets every request; one of several only those for its own models.
    if !alone && !provider.models.is_empty() {
        line(format_args!("models = {:?}\n", provider.models));
    }
    text
}

/// References to the provider's keys, each key once.
fn keys(provider: &Provider, env: &dyn Env) -> Vec<String> {
    let variable = provider.variable;
    let number = |name: &String| name.strip_prefix(variable)?.strip_prefix('_')?.parse::<u32>().ok();
    let mut numbered: Vec<(u32, String)> =
        env.names().into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
    numbered.sort_unstable();
    let mut seen = HashSet::new();
    let mut references = Vec::new();
    for name in std::iter::once(variable.to_owned()).chain(numbered.into_iter().map(|(_, name)| name)) {
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
mod tests {
    use super::*;
    use crate::config::{Config, parse};
    use pointsman_core::table::Tier;

    fn found<const N: usize>(env: [(&str, &str); N]) -> Config {
        let text = discover(&env).unwrap();
        let loaded = parse(&text, "env", &env).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(loaded.warnings, []);
        loaded.config
    }

    fn tiers(config: &Config) -> Vec<(&str, Tier)> {
        config.backends.iter().map(|b| (&*b.backend.id, b.backend.tier)).collect()
    }

    #[test]
    fn free_keys_are_primary_and_paid_ones_fallback() {
        let config = found([("OPENAI_API_KEY", "sk-1"), ("NVIDIA_API_KEY", "nv-1")]);
        assert_eq!(tiers(&config), [("nvidia-1", Tier::Primary), ("openai-1", Tier::Fallback)]);
        assert_eq!(config.backends[0].backend.limits.rpm, Some(40));
        assert_eq!(config.backends[1].backend.sent_model("gpt-5").as_deref(), Some("gpt-5"));
        assert_eq!(config.backends[1].backend.sent_model("meta/llama"), None);
    }

    #[test]
    fn a_paid_provider_alone_is_primary_and_serves_everything() {
        let config = found([("OPENAI_API_KEY", "sk-1")]);
        assert_eq!(tiers(&config), [("openai-1", Tier::Primary)]);
        assert_eq!(config.backends[0].backend.sent_model("anything").as_deref(), Some("anything"));
    }

    #[test]
    fn lists_and_numbered_variables_are_several_backends_each_key_once() {
        let config = found([
            ("NVIDIA_API_KEY_10", "d"),
            ("NVIDIA_API_KEY", "a, b ,"),
            ("NVIDIA_API_KEY_2", "c"),
            ("NVIDIA_API_KEY_3", "a"),
        ]);
        let keys: Vec<&str> = config.backends.iter().map(|b| b.api_key.as_ref().unwrap().expose()).collect();
        assert_eq!(keys, ["a", "b", "c", "d"]);
        assert_eq!(tiers(&config)[3].0, "nvidia-4");
    }

    #[test]
    fn every_provider_makes_a_valid_backend() {
        let env: [(&str, &str); PROVIDERS.len()] = std::array::from_fn(|i| (PROVIDERS[i].variable, "key"));
        let text = discover(&env).unwrap();
        assert_eq!(parse(&text, "env", &env).unwrap().config.backends.len(), PROVIDERS.len());
    }

    #[test]
    fn without_any_key_the_way_out_is_named() {
        let error = discover(&[("OPENAI_API_KEY", "")]).unwrap_err().to_string();
        assert!(error.contains("NVIDIA_API_KEY") && error.contains("pointsman demo"), "{error}");
    }
}
