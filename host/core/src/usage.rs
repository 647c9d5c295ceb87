//! Tokens that an answer used.

use serde::{Deserialize, Serialize};

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Answer tokens, reasoning tokens included.
    pub output_tokens: u64,
    /// Prompt tokens the provider had cached.
    pub cached_input_tokens: u64,
    /// Counted here because the provider did not say.
    pub estimated: bool,
}
