//! LiteLLM's names for providers, and how each is reached.

/// A provider as LiteLLM spells it.
pub(super) struct Provider {
    pub(super) name: &'static str,
    /// Empty: every entry has its own.
    pub(super) base_url: &'static str,
    pub(super) dialect: &'static str,
    /// Variable that LiteLLM reads the key from when an entry has none; empty: no key is needed.
    pub(super) variable: &'static str,
    api: Api,
}

/// Path between an entry's `api_base` and the operations of the OpenAI API.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Api {
    /// The base URL as it is.
    Itself,
    /// Azure's version 1 API, where the deployment's name is the model and there is no `api-version`.
    Azure,
    /// The path of Ollama's OpenAI-compatible API.
    Ollama,
}

impl Provider {
    /// The provider that an entry names, if it can be reached at a plain URL.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.name == name)
    }

    /// The base URL for what an entry calls its `api_base`.
    pub(super) fn base_url(&self, api_base: &str) -> String {
        let base = api_base.trim_end_matches('/');
        let base = ["/chat/completions", "/completions", "/messages", "/api/chat", "/api/generate"]
            .iter()
            .find_map(|operation| base.strip_suffix(operation))
            .unwrap_or(base);
        match self.api {
            Api::Itself => base.to_owned(),
            Api::Azure if base.ends_with("/v1") => base.to_owned(),
            Api::Azure => {
                let resource = base.split("/openai").next().unwrap_or(base).trim_end_matches("/models");
                format!("{resource}/openai/v1")
            }
            Api::Ollama if base.ends_with("/v1") => base.to_owned(),
            Api::Ollama => format!("{}/v1", base.trim_end_matches("/api")),
        }
    }
}

const fn provider(name: &'static str, base_url: &'static str, variable: &'static str) -> Provider {
    Provider { name, base_url, dialect: "openai", variable, api: Api::Itself }
}

const OPENAI: Provider = provider("openai", "https://api.openai.com/v1", "OPENAI_API_KEY");

const ANTHROPIC: Provider =
    Provider { dialect: "anthropic", ..provider("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY") };

static PROVIDERS: [Provider; 20] = [
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
    Provider { api: Api::Azure, ..provider("azure", "", "AZURE_API_KEY") },
    Provider { api: Api::Azure, ..provider("azure_ai", "", "AZURE_AI_API_KEY") },
    Provider { api: Api::Ollama, ..provider("ollama", "http://localhost:11434/v1", "") },
    Provider { api: Api::Ollama, ..provider("ollama_chat", "http://localhost:11434/v1", "") },
];
