//! Tokens that an answer used.

use serde::{Deserialize, Serialize};

vocabulary! {
    /// A way in which a provider serves a request, at a price of its own: by OpenAI's, Anthropic's and Groq's words.
    #[derive(PartialOrd, Ord)]
    pub enum ServiceTier: serde {
        /// The ordinary one.
        Standard = "standard",
        /// Cheaper and later.
        Flex = "flex",
        /// Dearer and sooner.
        Priority = "priority",
        /// Within a day.
        Batch = "batch",
        /// Anthropic's `speed`.
        Fast = "fast",
    }
}

impl ServiceTier {
    /// The tier by a provider's word for it; none for one that leaves it to the provider, or that nobody knows.
    pub fn told(word: &[u8]) -> Option<Self> {
        match word {
            b"default" | b"on_demand" => Some(Self::Standard),
            word => Self::parse(std::str::from_utf8(word).ok()?),
        }
    }
}

/// Tokens of an answer and its prompt, told or estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Answer tokens, reasoning tokens included.
    pub output_tokens: u64,
    /// Prompt tokens the provider had cached.
    pub cached_input_tokens: u64,
    /// Prompt tokens the provider wrote to a cache for minutes, or did not say for how long.
    #[serde(default)]
    pub cache_write_tokens: u64,
    /// Prompt tokens the provider wrote to a cache for an hour.
    #[serde(default)]
    pub cache_write_1h_tokens: u64,
    /// Prompt tokens that are sound.
    #[serde(default)]
    pub audio_input_tokens: u64,
    /// Prompt tokens that are pictures.
    #[serde(default)]
    pub image_input_tokens: u64,
    /// Answer tokens that are sound.
    #[serde(default)]
    pub audio_output_tokens: u64,
    /// Counted here because the provider did not say.
    pub estimated: bool,
    /// The way in which it was served, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<ServiceTier>,
}

impl Usage {
    /// Usage of no tokens.
    pub const NONE: Usage = Usage {
        input_tokens: 0,
        output_tokens: 0,
        cached_input_tokens: 0,
        cache_write_tokens: 0,
        cache_write_1h_tokens: 0,
        audio_input_tokens: 0,
        image_input_tokens: 0,
        audio_output_tokens: 0,
        estimated: false,
        service_tier: None,
    };

    /// Returns the rest, without a part that was counted before.
    pub fn less(&self, counted: &Self) -> Self {
        let rest = u64::saturating_sub;
        Self {
            input_tokens: rest(self.input_tokens, counted.input_tokens),
            output_tokens: rest(self.output_tokens, counted.output_tokens),
            ..*self
        }
    }

    /// Returns the sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            input_tokens: sum(self.input_tokens, other.input_tokens),
            output_tokens: sum(self.output_tokens, other.output_tokens),
            cached_input_tokens: sum(self.cached_input_tokens, other.cached_input_tokens),
            cache_write_tokens: sum(self.cache_write_tokens, other.cache_write_tokens),
            cache_write_1h_tokens: sum(self.cache_write_1h_tokens, other.cache_write_1h_tokens),
            audio_input_tokens: sum(self.audio_input_tokens, other.audio_input_tokens),
            image_input_tokens: sum(self.image_input_tokens, other.image_input_tokens),
            audio_output_tokens: sum(self.audio_output_tokens, other.audio_output_tokens),
            estimated: self.estimated | other.estimated,
            service_tier: self.service_tier.or(other.service_tier),
        }
    }

    /// Returns the tokens of prompt and answer together.
    pub const fn total(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}
