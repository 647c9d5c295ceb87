//! What an answer used, read from the bytes that go by: of a stream by its events, of any other body by its chunks.

mod body;
mod stream;

pub use body::BodyTap;
pub(super) use stream::Format;
pub use stream::{Sight, StreamTap};

use crate::http::json;
use crate::record::Usage;

/// The numbers of a `usage` object as both families name them.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    input: u64,
    output: u64,
    cached: u64,
    /// Anthropic counts cached and written prompt tokens beside the input, not within it.
    cache_read: u64,
    cache_written: u64,
}

impl Counts {
    /// Takes over what this object says and leaves what it does not.
    fn read(&mut self, usage: &[u8]) {
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

    fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input.saturating_add(self.cache_read).saturating_add(self.cache_written),
            output_tokens: self.output,
            cached_input_tokens: self.cached.saturating_add(self.cache_read),
            estimated: false,
        }
    }
}
