//! Sums over an answer: token counts, events, bytes of content.

use super::WireFormat;
use super::ends::Ends;
use super::failure::says_something;
use super::opened::Opened;
use crate::http::json::{self, Cursor};
use crate::usage::ServiceTier;

/// The token counts of an answer as a provider tells them; 0: not told. What is told later counts, but a zero takes nothing
/// back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tokens of the prompt, without those that stand beside it.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// All tokens together.
    pub total: u64,
    /// Tokens of the answer that were thoughts; providers differ in whether they are part of `output`.
    pub reasoning: u64,
    /// Tokens of the prompt that came from a cache and are part of `input`.
    pub cached: u64,
    /// Tokens of the prompt that were written to a cache and are part of `input`.
    pub written: u64,
    /// Tokens that came from a cache and stand beside the input (Anthropic).
    pub cache_read: u64,
    /// Tokens that were written to a cache and stand beside the input (Anthropic).
    pub cache_written: u64,
    /// Those of the written ones that are kept for an hour.
    pub written_1h: u64,
    /// Tokens of the prompt that are sound.
    pub audio_input: u64,
    /// Tokens of the answer that are sound.
    pub audio_output: u64,
    /// Tokens of the prompt that are pictures.
    pub image_input: u64,
    /// Tokens of both sides of what was compacted on the way, which stand beside the message's own (Anthropic).
    pub compaction: (u64, u64),
    /// Seconds of sound, of a recording whose tokens are not counted.
    pub seconds: u64,
    /// The way in which it was served.
    pub service_tier: Option<ServiceTier>,
    /// The prompt's tokens were called `prompt_tokens`: in OpenAI's format all others are part of them.
    pub is_inclusive: bool,
}

impl Counts {
    /// Reads a usage object by the names in use: takes over what it says and leaves what it does not.
    pub fn read(&mut self, usage: &[u8]) {
        for (key, value) in json::members(usage) {
            match key {
                b"prompt_tokens" => {
                    self.is_inclusive = true;
                    tell(&mut self.input, value);
                }
                b"input_tokens" => tell(&mut self.input, value),
                b"completion_tokens" | b"output_tokens" => tell(&mut self.output, value),
                b"total_tokens" => tell(&mut self.total, value),
                b"reasoning_tokens" => tell(&mut self.reasoning, value),
                b"cache_read_input_tokens" => tell(&mut self.cache_read, value),
                b"cache_creation_input_tokens" => tell(&mut self.cache_written, value),
                b"cache_creation" => self.read_cache_creation(value),
                // DeepSeek's and Moonshot's.
                b"prompt_cache_hit_tokens" | b"cached_tokens" => tell(&mut self.cached, value),
                b"service_tier" | b"speed" => self.served_in(value),
                b"seconds" => tell(&mut self.seconds, value),
                b"iterations" => self.read_iterations(value),
                b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => {
                    self.read_prompt_details(value);
                }
                b"completion_tokens_details" | b"output_tokens_details" | b"output_token_details" => {
                    for (key, value) in json::members(value) {
                        match key {
                            b"reasoning_tokens" | b"thinking_tokens" => tell(&mut self.reasoning, value),
                            b"audio_tokens" => tell(&mut self.audio_output, value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads the way in which it was served. An ordinary speed takes nothing from a tier that was told.
    pub fn served_in(&mut self, value: &[u8]) {
        if let Some(tier) = json::unquoted(value).and_then(ServiceTier::told)
            && (self.service_tier.is_none() || tier != ServiceTier::Standard)
        {
            self.service_tier = Some(tier);
        }
    }

    /// Reads what was asked on the way to the message: a summary of what was said before is charged beside it.
    fn read_iterations(&mut self, iterations: &[u8]) {
        let mut all = Cursor::new(iterations);
        let mut sum = (0, 0);
        if all.enter(b'[') {
            while all.has_element() {
                let mut one = Self::default();
                let iteration = all.value();
                if json::member(iteration, "type") == Some(b"\"compaction\"") {
                    one.read(iteration);
                    let input = one.input.saturating_add(one.cache_read).saturating_add(one.cache_written);
                    sum = (u64::saturating_add(sum.0, input), u64::saturating_add(sum.1, one.output));
                }
            }
        }
        if sum != (0, 0) {
            self.compaction = sum;
        }
    }

    fn read_prompt_details(&mut self, details: &[u8]) {
        for (key, value) in json::members(details) {
            match key {
                b"cached_tokens" => tell(&mut self.cached, value),
                b"cache_write_tokens"
                | b"cache_creation_tokens"
                | b"cached_creation_tokens"
                | b"cache_creation_input_tokens" => tell(&mut self.written, value),
                b"audio_tokens" => tell(&mut self.audio_input, value),
                b"image_tokens" => tell(&mut self.image_input, value),
                b"cache_creation" => self.read_cache_creation(value),
                _ => {}
            }
        }
    }

    /// Reads how long the written tokens are kept. Both together are those of `cache_creation_input_tokens`, where that is
    /// told too.
    fn read_cache_creation(&mut self, kept: &[u8]) {
        let (mut minutes, mut hour) = (0, 0);
        for (key, value) in json::members(kept) {
            match key {
                b"ephemeral_5m_input_tokens" => tell(&mut minutes, value),
                b"ephemeral_1h_input_tokens" => tell(&mut hour, value),
                _ => {}
            }
        }
        if hour > 0 {
            self.written_1h = hour;
        }
        if !self.is_inclusive {
            self.cache_written = self.cache_written.max(minutes.saturating_add(hour));
        }
    }
}

/// Takes over a count, which some write as a text; a zero, or what is none, takes nothing back.
fn tell(slot: &mut u64, value: &[u8]) {
    let value = json::unquoted(value).unwrap_or(value);
    if let Some(count) = json::count(value).filter(|count| *count > 0) {
        *slot = count;
    }
}

/// Kind of an event of a stream, for the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It carries text, a tool call or anything else a user would miss.
    Content,
    /// It says why the answer ends.
    Finish,
    /// It carries the usage and nothing else (`stream_options.include_usage`): for us, if the client did not ask.
    UsageOnly,
    /// It ends the stream as it should end.
    Done,
    /// It is an error; `classify_event` says which.
    Error,
    /// Anything else: roles, pings, comments, progress.
    Other,
}

/// Sums over the events of one stream.
#[derive(Clone, Debug)]
pub struct Tally {
    pub(in crate::dialect) counts: Counts,
    /// The provider has told of tokens.
    pub(in crate::dialect) is_told: bool,
    /// The answer's size is the provider's word, and its last.
    pub(in crate::dialect) is_output_final: bool,
    pub(in crate::dialect) content_events: u64,
    pub(in crate::dialect) content_bytes: u64,
    pub(in crate::dialect) finished: bool,
    /// The finish reason explains an answer without content.
    pub(in crate::dialect) explains_empty: bool,
    pub(in crate::dialect) done: bool,
    /// Ends of the choices, where a stream has several.
    pub(in crate::dialect) ends: Ends,
    /// The last event before the end came: usage of an answer that had finished.
    pub(in crate::dialect) has_told_all: bool,
    /// State that an error event of ours must agree with, in streams that number their events.
    pub(in crate::dialect) opened: Opened,
    format: &'static dyn WireFormat,
}

impl Tally {
    /// A tally of no events, of a stream in this format.
    pub(in crate::dialect) fn new(format: &'static dyn WireFormat) -> Self {
        Self {
            counts: Counts::default(),
            is_told: false,
            is_output_final: false,
            content_events: 0,
            content_bytes: 0,
            finished: false,
            explains_empty: false,
            done: false,
            ends: Ends::default(),
            has_told_all: false,
            opened: Opened::default(),
            format,
        }
    }

    /// Counts an event with so many bytes of content. More content withdraws a finish reason that came before it.
    pub fn content(&mut self, bytes: usize) -> Sight {
        self.content_events += 1;
        self.finished = false;
        self.content_bytes += bytes as u64;
        Sight::Content
    }

    /// The model said why it stopped.
    pub fn finish(&mut self) -> Sight {
        self.finished = true;
        Sight::Finish
    }

    /// Sees an event of one choice of several.
    pub(in crate::dialect) fn choice(&mut self, index: u64, has_content: bool, has_ended: bool) {
        self.ends.see(index, has_content, has_ended);
    }

    /// Takes the format's own last event.
    pub fn end(&mut self) -> Sight {
        self.done = true;
        Sight::Done
    }

    /// Reads the usage of the whole answer; what is no object, such as null, tells nothing.
    pub fn read_usage(&mut self, usage: &[u8]) {
        if usage.first() == Some(&b'{') {
            if !self.is_output_final {
                // What was told of the answer before its end was no more than a beginning.
                self.counts.output = 0;
            }
            self.format.read_usage(usage, &mut self.counts);
            self.is_told = true;
            self.is_output_final = true;
        }
    }

    /// Reads a usage that tells only the prompt's size for certain.
    pub fn read_input_usage(&mut self, usage: &[u8]) {
        if usage.first() == Some(&b'{') {
            self.format.read_usage(usage, &mut self.counts);
            self.is_told = true;
        }
    }
}

/// A piece of an answer: a delta, or a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::dialect) struct Delta {
    /// Bytes of content in it.
    pub(in crate::dialect) content_bytes: usize,
    /// It has an error in the place of content.
    pub(in crate::dialect) is_failed: bool,
}

impl Delta {
    /// Reads the one that comes next; any filled member but its role is content.
    pub(in crate::dialect) fn read(at: &mut Cursor<'_>) -> Self {
        let mut delta = Self::default();
        if !at.enter(b'{') {
            at.value();
            return delta;
        }
        while let Some(name) = at.name() {
            let value = at.value();
            match name {
                b"role" | b"type" | b"index" => {}
                b"error" => delta.is_failed |= says_something(value),
                _ => delta.content_bytes += filled_length(value),
            }
        }
        delta
    }
}

/// Bytes of a value without its quotes; at least one when it holds anything.
pub(in crate::dialect) fn filled_length(value: &[u8]) -> usize {
    if json::is_filled(value) { value.len().saturating_sub(2).max(1) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(usages: &[&str]) -> Counts {
        let mut counts = Counts::default();
        usages.iter().for_each(|usage| counts.read(usage.as_bytes()));
        counts
    }

    #[test]
    fn a_later_number_counts_and_a_later_zero_does_not() {
        let later = read(&[r#"{"input_tokens":0,"output_tokens":1}"#, r#"{"input_tokens":9,"output_tokens":15}"#]);
        assert_eq!((later.input, later.output), (9, 15));
        let zeros = read(&[r#"{"input_tokens":9,"output_tokens":15}"#, r#"{"input_tokens":0,"output_tokens":null}"#]);
        assert_eq!((zeros.input, zeros.output), (9, 15));
    }

    #[test]
    fn numbers_may_be_texts_and_a_summary_is_counted_beside_the_message() {
        let texts = read(&[r#"{"prompt_tokens":"70","completion_tokens":"6"}"#]);
        assert_eq!((texts.input, texts.output), (70, 6));
        let compacted = read(&[r#"{"input_tokens":7,"output_tokens":2,"iterations":[
            {"type":"compaction","input_tokens":500,"output_tokens":40},{"type":"message","input_tokens":7,"output_tokens":2}]}"#]);
        assert_eq!((compacted.input, compacted.output, compacted.compaction), (7, 2, (500, 40)));
        for (usage, tier) in [
            (r#"{"service_tier":"priority"}"#, Some(ServiceTier::Priority)),
            (r#"{"service_tier":"standard","speed":"fast"}"#, Some(ServiceTier::Fast)),
            (r#"{"service_tier":"batch","speed":"standard"}"#, Some(ServiceTier::Batch)),
            (r#"{"service_tier":null}"#, None),
        ] {
            assert_eq!(read(&[usage]).service_tier, tier, "{usage}");
        }
    }

    #[test]
    fn caches_stand_in_many_places() {
        for (usage, cached, written) in [
            (r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}"#, 4, 0),
            (r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":2}}"#, 4, 2),
            (r#"{"prompt_tokens":9,"cached_tokens":4}"#, 4, 0),
            (r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}"#, 4, 0),
            (r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":0},"cached_tokens":4}"#, 4, 0),
            (r#"{"prompt_tokens":9,"prompt_tokens_details":null,"cached_tokens":null}"#, 0, 0),
        ] {
            let counts = read(&[usage]);
            assert_eq!((counts.input, counts.cached, counts.written), (9, cached, written), "{usage}");
        }
        let anthropic = read(&[
            r#"{"input_tokens":1,"cache_creation_input_tokens":70,"cache_read_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":40}}"#,
        ]);
        assert_eq!((anthropic.cache_written, anthropic.written_1h, anthropic.cache_read), (70, 40, 5));
        let alone = read(&[r#"{"input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":40}}"#]);
        assert_eq!((alone.cache_written, alone.written_1h), (40, 40));
    }
}
