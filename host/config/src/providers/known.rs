//! Built-in facts about providers: base URL, models, and a cheap model with its price.

/// Built-in facts about one provider.
pub(super) struct Provider {
    pub(super) id: &'static str,
    /// Prefix of its variables: `OPENAI` of `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `OPENAI_FALLBACK_MODEL`.
    pub(super) prefix: &'static str,
    pub(super) base_url: &'static str,
    pub(super) dialect: &'static str,
    /// Free with a rate limit: worth waiting for. The others cost money.
    pub(super) free: bool,
    /// Requests a minute of its free keys, where it is the same for everyone.
    pub(super) rpm: Option<u32>,
    /// Names that are sent as they are asked for. Of a marketplace they are others' too.
    pub(super) models: &'static [&'static str],
    /// Names that `models` matches and that are not its own.
    pub(super) not_its_own: &'static [&'static str],
    /// Resells models of other providers.
    pub(super) is_marketplace: bool,
    /// Prices of models, in USD per million tokens: input, output, cached input. The first is its cheap model, which stands in
    /// for what it does not have. It takes the parameters that free models take (`max_tokens`, `temperature`), which is why it
    /// is none that reasons.
    pub(super) prices: &'static [(&'static str, f64, f64, Option<f64>)],
}

impl Provider {
    pub(super) fn variable(&self) -> String {
        format!("{}_API_KEY", self.prefix)
    }

    /// The model that stands in for what it does not have; empty for a free provider.
    pub(super) fn cheap_model(&self) -> &'static str {
        self.prices.first().map_or("", |(model, ..)| model)
    }

    const fn new(id: &'static str, prefix: &'static str, base_url: &'static str) -> Self {
        Self {
            id,
            prefix,
            base_url,
            dialect: "openai",
            free: false,
            rpm: None,
            models: &[],
            not_its_own: &[],
            is_marketplace: false,
            prices: &[],
        }
    }

    const fn free(id: &'static str, prefix: &'static str, base_url: &'static str) -> Self {
        Self { free: true, ..Self::new(id, prefix, base_url) }
    }

    const fn marketplace(id: &'static str, prefix: &'static str, base_url: &'static str) -> Self {
        Self { is_marketplace: true, ..Self::new(id, prefix, base_url) }
    }
}

/// USD per million tokens: input, output and cached input. Checked in 2026 for OpenAI's and Anthropic's models that stand in for
/// others; the rest are the providers' usual list prices and may have changed. Prices in a `pointsman.toml` replace them.
pub(super) const PROVIDERS: [Provider; 13] = [
    // 40 requests a minute is what a free key of build.nvidia.com shows as its rate limit.
    Provider { rpm: Some(40), ..Provider::free("nvidia", "NVIDIA", "https://integrate.api.nvidia.com/v1") },
    // Limits differ by model (https://console.groq.com/docs/rate-limits): left to its 429s and headers.
    Provider::free("groq", "GROQ", "https://api.groq.com/openai/v1"),
    // Limits differ by model (https://inference-docs.cerebras.ai/support/rate-limits).
    Provider::free("cerebras", "CEREBRAS", "https://api.cerebras.ai/v1"),
    Provider {
        models: &["Pro/*", "Qwen/*", "deepseek-ai/DeepSeek-*", "moonshotai/Kimi-*", "zai-org/*", "BAAI/*"],
        prices: &[("Qwen/Qwen2.5-72B-Instruct", 0.59, 0.59, None)],
        ..Provider::marketplace("siliconflow", "SILICONFLOW", "https://api.siliconflow.cn/v1")
    },
    Provider {
        models: &[
            "openrouter/*",
            "anthropic/*",
            "google/gemini-*",
            "openai/gpt-4*",
            "openai/gpt-5*",
            "x-ai/*",
            "meta-llama/*",
            "deepseek/*",
            "amazon/*",
            "cohere/*",
            "perplexity/*",
        ],
        prices: &[
            ("openai/gpt-4.1-mini", 0.40, 1.60, Some(0.10)),
            ("anthropic/claude-haiku-4.5", 1.00, 5.00, Some(0.10)),
        ],
        ..Provider::marketplace("openrouter", "OPENROUTER", "https://openrouter.ai/api/v1")
    },
    Provider {
        models: &["meta-llama/*", "Qwen/*", "deepseek-ai/DeepSeek-*", "moonshotai/Kimi-*", "zai-org/*", "BAAI/*"],
        prices: &[("meta-llama/Llama-3.3-70B-Instruct-Turbo", 0.88, 0.88, None)],
        ..Provider::marketplace("together", "TOGETHER", "https://api.together.xyz/v1")
    },
    Provider {
        models: &["accounts/*", "fireworks/*"],
        prices: &[("accounts/fireworks/models/llama-v3p3-70b-instruct", 0.90, 0.90, None)],
        ..Provider::marketplace("fireworks", "FIREWORKS", "https://api.fireworks.ai/inference/v1")
    },
    Provider {
        models: &[
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
        ],
        // Open weights: free providers serve them, OpenAI does not.
        not_its_own: &["gpt-oss-*"],
        prices: &[
            ("gpt-4.1-mini", 0.40, 1.60, Some(0.10)),
            ("gpt-4.1-nano", 0.10, 0.40, Some(0.025)),
            ("gpt-4.1", 2.00, 8.00, Some(0.50)),
            ("gpt-4o-mini", 0.15, 0.60, Some(0.075)),
            ("gpt-4o", 2.50, 10.00, Some(1.25)),
            ("gpt-5-nano", 0.05, 0.40, Some(0.005)),
            ("gpt-5-mini", 0.25, 2.00, Some(0.025)),
            ("gpt-5", 1.25, 10.00, Some(0.125)),
        ],
        ..Provider::new("openai", "OPENAI", "https://api.openai.com/v1")
    },
    Provider {
        dialect: "anthropic",
        models: &["claude-*"],
        prices: &[("claude-haiku-4-5", 1.00, 5.00, Some(0.10)), ("claude-sonnet-4-5", 3.00, 15.00, Some(0.30))],
        ..Provider::new("anthropic", "ANTHROPIC", "https://api.anthropic.com/v1")
    },
    Provider {
        models: &["gemini-*", "gemma-*", "models/*"],
        prices: &[("gemini-2.5-flash-lite", 0.10, 0.40, None), ("gemini-2.5-flash", 0.30, 2.50, None)],
        ..Provider::new("gemini", "GEMINI", "https://generativelanguage.googleapis.com/v1beta/openai")
    },
    Provider {
        models: &[
            "mistral-*",
            "ministral-*",
            "codestral-*",
            "devstral-*",
            "magistral-*",
            "pixtral-*",
            "voxtral-*",
            "open-mi*",
        ],
        prices: &[("mistral-small-latest", 0.10, 0.30, None)],
        ..Provider::new("mistral", "MISTRAL", "https://api.mistral.ai/v1")
    },
    Provider {
        models: &["deepseek-chat", "deepseek-reasoner"],
        prices: &[("deepseek-chat", 0.28, 0.42, Some(0.028)), ("deepseek-reasoner", 0.28, 0.42, Some(0.028))],
        ..Provider::new("deepseek", "DEEPSEEK", "https://api.deepseek.com/v1")
    },
    Provider {
        models: &["grok-*"],
        prices: &[("grok-4-fast-non-reasoning", 0.20, 0.50, Some(0.05))],
        ..Provider::new("xai", "XAI", "https://api.x.ai/v1")
    },
];
