//! Usage of an answer, read from the bytes that pass: of a stream by its events, of any other body by its chunks.

mod body;
mod stream;

pub use body::BodyTap;
pub use stream::{Sight, StreamTap, Tally};
pub(super) use stream::{content_bytes, filled_length};

use crate::http::json;
use crate::usage::Usage;

/// The token counts of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Tokens of the prompt, without those that stand beside it.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Tokens of the prompt that came from a cache and are part of `input`.
    pub cached: u64,
    /// Tokens that came from a cache and stand beside the input (Anthropic).
    pub cache_read: u64,
    /// Tokens that were written to a cache and stand beside the input (Anthropic).
    pub cache_written: u64,
}

impl Counts {
    /// Reads a usage object by the names in use: takes over what it says and leaves what it does not.
    pub fn read(&mut self, usage: &[u8]) {
        for (key, value) in json::members(usage) {
            let slot = match key {
                b"prompt_tokens" | b"input_tokens" => &mut self.input,
                b"completion_tokens" | b"output_tokens" => &mut self.output,
                b"cache_read_input_tokens" => &mut self.cache_read,
                b"cache_creation_input_tokens" => &mut self.cache_written,
                // DeepSeek's.
                b"prompt_cache_hit_tokens" => &mut self.cached,
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    if let Some(cached) = json::member(value, "cached_tokens").and_then(json::count) {
                        self.cached = cached;
                    }
                    continue;
                }
                _ => continue,
            };
            if let Some(count) = json::count(value) {
                *slot = count;
            }
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input.saturating_add(self.cache_read).saturating_add(self.cache_written),
            output_tokens: self.output,
            cached_input_tokens: self.cached.saturating_add(self.cache_read),
            estimated: false,
        }
    }
}
