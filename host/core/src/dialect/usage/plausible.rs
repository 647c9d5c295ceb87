//! Told tokens, and whether they can be believed: zeros for text that flowed cannot, nor more than the request can have asked
//! for, nor less than the text that came. What cannot be believed is estimated, and marked as that. The total is a check sum:
//! it finds the thoughts that some providers count beside the answer, and the part that was left out.

use memchr::memmem;

use crate::dialect::format::Counts;
use crate::usage::{ServiceTier, Usage};

/// Tokens of a prompt for each byte of the request, and beside that, where the request brings all of its prompt along. A small
/// picture is a few hundred bytes and up to some ten thousand tokens.
const MAX_INPUT_PER_BYTE: u64 = 16;
const MAX_INPUT_BESIDE: u64 = 100_000;

/// Tokens of a prompt that refers to something that lies with the provider or elsewhere: twice the largest window there is.
const MAX_INPUT: u64 = 20_000_000;

/// Tokens of one answer to a request that names no limit.
const MAX_OUTPUT: u64 = 2_000_000;

/// Providers round, count ends, and think a little beyond the limit: twice a named limit, and so many tokens.
const OUTPUT_SLACK: u64 = 4_096;

/// Bytes of text that one token may stand for at most; and bytes of a whole answer to which that does not apply.
const MAX_BYTES_PER_TOKEN: u64 = 128;
const SHORT_TEXT_BYTES: u64 = 1_024;

/// Marks of requests whose prompt is more than what they bring along: addresses, files, conversations, tools of the provider.
const REFERENCES: [&[u8]; 9] = [
    b"://",
    b"file_id",
    b"\"file-",
    b"previous_response_id",
    b"conversation",
    b"_search",
    b"code_",
    b"computer_",
    b"\"mcp",
];

/// A request, as its answer's usage is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// Body of the request, which a prompt's tokens are compared with.
    pub body: &'a [u8],
    /// The most tokens one answer may have; 0: not said.
    pub max_tokens: u32,
    /// Number of answers that are charged.
    pub answers: u32,
    /// Tokens of an answer that is no text, where the provider does not count them.
    pub made_tokens: u32,
    /// Answers have tokens of their own, beside those of the prompt.
    pub has_answer_tokens: bool,
    /// The way in which it is to be served.
    pub service_tier: Option<ServiceTier>,
}

/// Nothing, of which the answer is text.
impl Default for Asked<'_> {
    fn default() -> Self {
        Self {
            prompt_tokens: 0,
            body: b"",
            max_tokens: 0,
            answers: 0,
            made_tokens: 0,
            has_answer_tokens: true,
            service_tier: None,
        }
    }
}

/// Content of an answer that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flowed {
    /// Estimate of its tokens.
    pub tokens: u64,
    pub bytes: u64,
}

impl Asked<'_> {
    fn is_plausible_input(&self, tokens: u64) -> bool {
        let body = self.body.len() as u64;
        let brought = body.saturating_mul(MAX_INPUT_PER_BYTE).saturating_add(MAX_INPUT_BESIDE);
        let refers = || REFERENCES.iter().any(|mark| memmem::find(self.body, mark).is_some());
        tokens <= brought.min(MAX_INPUT) || tokens <= MAX_INPUT && refers()
    }

    fn max_output(&self) -> u64 {
        let one = match self.max_tokens {
            0 => MAX_OUTPUT,
            max => u64::from(max).saturating_mul(2).saturating_add(OUTPUT_SLACK).min(MAX_OUTPUT),
        };
        one.saturating_mul(u64::from(self.answers.max(1)))
    }
}

/// The usage of an answer: as it was told where that can be believed, else as it is estimated. `is_final`: what is told of the
/// answer's size is the last word on it.
pub(super) fn usage(counts: &Counts, is_final: bool, flowed: Flowed, asked: &Asked<'_>) -> Usage {
    let max_output = asked.max_output();
    let is_output = |tokens: &u64| {
        let covers = tokens.saturating_mul(MAX_BYTES_PER_TOKEN).saturating_add(SHORT_TEXT_BYTES) >= flowed.bytes;
        *tokens <= max_output && covers
    };
    let told_input = input(counts);
    let known_input = Some(told_input).filter(|tokens| *tokens > 0 && asked.is_plausible_input(*tokens));
    let known_output = Some(counts.output).filter(|tokens| *tokens > 0 && is_output(tokens));
    let total = Some(counts.total).filter(|total| *total <= max_output.saturating_add(MAX_INPUT)).unwrap_or(0);
    let (input, output) = match (known_input, known_output) {
        (Some(input), Some(output)) => (Some(input), Some(with_thoughts(counts, input, output, total, max_output))),
        (Some(input), None) => {
            let rest = total.checked_sub(input).filter(|rest| *rest > 0 && is_output(rest));
            (Some(input), rest.or(Some(counts.reasoning).filter(|thoughts| *thoughts > 0 && is_output(thoughts))))
        }
        (None, Some(output)) => {
            let rest = total.checked_sub(output).filter(|rest| *rest > 0 && asked.is_plausible_input(*rest));
            (rest, Some(output))
        }
        // Voyage, Jina and vLLM tell the total alone of what has a prompt and no answer.
        (None, None) if !asked.has_answer_tokens && total > 0 && asked.is_plausible_input(total) => (Some(total), None),
        (None, None) => (None, None),
    };
    let is_input_missing = input.is_none() && asked.prompt_tokens > 0;
    let is_output_missing = flowed.tokens > 0 && (output.is_none() || !is_final);
    let output_tokens = match (output, is_final) {
        (Some(output), true) => output,
        (output, _) => output.unwrap_or(0).max(flowed.tokens),
    };
    let estimated = is_input_missing || is_output_missing;
    let (more_input, more_output) = compaction(counts, asked);
    let input = input.unwrap_or_else(|| unsaid_input(counts, asked)).saturating_add(more_input);
    let usage = parts(counts, input, output_tokens.saturating_add(more_output), estimated);
    // What it was served in is the provider's to say; what was asked for is the next best.
    Usage { service_tier: counts.service_tier.or(asked.service_tier), ..usage }
}

/// Returns the tokens of a summary made on the way; 0 where they are not plausible.
fn compaction(counts: &Counts, asked: &Asked<'_>) -> (u64, u64) {
    let (input, output) = counts.compaction;
    if asked.is_plausible_input(input) && output <= MAX_OUTPUT { (input, output) } else { (0, 0) }
}

/// Tokens of a prompt that the provider does not count: of sound by its seconds, where it tells them.
fn unsaid_input(counts: &Counts, asked: &Asked<'_>) -> u64 {
    /// As OpenAI counts sound.
    const TOKENS_PER_SECOND: u64 = 10;
    let by_time = counts.seconds.saturating_mul(TOKENS_PER_SECOND);
    if by_time > 0 && asked.is_plausible_input(by_time) { by_time } else { asked.prompt_tokens.into() }
}

/// All tokens of the prompt.
fn input(counts: &Counts) -> u64 {
    let beside = counts.cache_read.saturating_add(counts.cache_written);
    // Who writes OpenAI's format and names caches by Anthropic's names counts them in, where they fit in.
    if counts.is_inclusive && counts.input >= beside { counts.input } else { counts.input.saturating_add(beside) }
}

/// The answer with its thoughts, where they stand beside it: more thoughts than answer, or a total that is larger than both
/// parts.
fn with_thoughts(counts: &Counts, input: u64, output: u64, total: u64, max_output: u64) -> u64 {
    let rest = total.saturating_sub(input.saturating_add(output));
    let beside = if rest > 0 {
        rest
    } else if counts.reasoning > output && total < input.saturating_add(counts.reasoning) {
        counts.reasoning
    } else {
        0
    };
    let whole = output.saturating_add(beside);
    if whole <= max_output { whole } else { output }
}

/// The parts of the prompt and the answer that have prices of their own; none is more than what is left of the whole.
fn parts(counts: &Counts, input_tokens: u64, output_tokens: u64, estimated: bool) -> Usage {
    let mut left = input_tokens;
    let mut part = |tokens: u64| {
        let tokens = tokens.min(left);
        left -= tokens;
        tokens
    };
    let written = counts.written.max(counts.cache_written);
    let written_1h = counts.written_1h.min(written);
    let cached_input_tokens = part(counts.cached.max(counts.cache_read));
    let cache_write_1h_tokens = part(written_1h);
    let cache_write_tokens = part(written - written_1h);
    let audio_input_tokens = part(counts.audio_input);
    let image_input_tokens = part(counts.image_input);
    Usage {
        input_tokens,
        output_tokens,
        cached_input_tokens,
        cache_write_tokens,
        cache_write_1h_tokens,
        audio_input_tokens,
        image_input_tokens,
        audio_output_tokens: counts.audio_output.min(output_tokens),
        estimated,
        service_tier: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    const ASKED: Asked<'static> = Asked {
        prompt_tokens: 12,
        body: BODY,
        max_tokens: 0,
        answers: 1,
        made_tokens: 0,
        has_answer_tokens: true,
        service_tier: None,
    };
    const HELLO: Flowed = Flowed { tokens: 2, bytes: 5 };

    fn judged(told: &str, flowed: Flowed, asked: &Asked<'_>) -> (u64, u64, bool) {
        let mut counts = Counts::default();
        counts.read(told.as_bytes());
        let usage = usage(&counts, true, flowed, asked);
        (usage.input_tokens, usage.output_tokens, usage.estimated)
    }

    #[test]
    fn zeros_for_text_that_flowed_are_not_told() {
        for told in [
            "{}",
            r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
            r#"{"prompt_tokens":null,"completion_tokens":null}"#,
            r#"{"prompt_tokens":-1,"completion_tokens":-1}"#,
            r#"{"prompt_tokens":"many","completion_tokens":[]}"#,
        ] {
            assert_eq!(judged(told, HELLO, &ASKED), (12, 2, true), "{told}");
        }
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":0}"#, HELLO, &ASKED), (9, 2, true));
        assert_eq!(judged(r#"{"prompt_tokens":0,"completion_tokens":3}"#, HELLO, &ASKED), (12, 3, true));
        let nothing = Flowed::default();
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":0}"#, nothing, &ASKED), (9, 0, false));
    }

    #[test]
    fn a_total_alone_is_the_prompt_where_nothing_is_answered() {
        let ranked = Asked { has_answer_tokens: false, ..ASKED };
        let nothing = Flowed::default();
        assert_eq!(judged(r#"{"total_tokens":70}"#, nothing, &ranked), (70, 0, false));
        assert_eq!(judged(r#"{"total_tokens":70,"prompt_tokens":0}"#, nothing, &ranked), (70, 0, false));
        assert_eq!(judged(r#"{"total_tokens":70,"prompt_tokens":70}"#, nothing, &ranked), (70, 0, false));
        assert_eq!(judged(r#"{"total_tokens":1000000000}"#, nothing, &ranked), (12, 0, true));
        assert_eq!(judged(r#"{"total_tokens":70}"#, HELLO, &ASKED), (12, 2, true), "an answer has its part in it");
    }

    #[test]
    fn a_hundred_prompts_have_a_hundred_answers() {
        let many = Asked { max_tokens: 100, answers: 100, ..ASKED };
        assert_eq!(judged(r#"{"prompt_tokens":900,"completion_tokens":10000}"#, HELLO, &many), (900, 10_000, false));
        let one = Asked { answers: 1, ..many };
        assert_eq!(judged(r#"{"prompt_tokens":900,"completion_tokens":10000}"#, HELLO, &one), (900, 2, true));
        let most = Asked { answers: u32::MAX, ..ASKED };
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}"#, HELLO, &most).1, 2);
    }

    #[test]
    fn numbers_that_the_request_cannot_come_to_are_not_believed() {
        for tokens in
            ["18446744073709551615", "18446744073709551616", "9223372036854775807", "1000000000000", "20000001"]
        {
            let told =
                format!("{{\"prompt_tokens\":{tokens},\"completion_tokens\":{tokens},\"total_tokens\":{tokens}}}");
            assert_eq!(judged(&told, HELLO, &ASKED), (12, 2, true), "{tokens}");
            let one = format!("{{\"prompt_tokens\":9,\"completion_tokens\":{tokens},\"total_tokens\":11}}");
            assert_eq!(judged(&one, HELLO, &ASKED), (9, 2, false), "the total says it: {tokens}");
        }
        assert_eq!(judged(r#"{"prompt_tokens":200000,"completion_tokens":3}"#, HELLO, &ASKED), (12, 3, true));
        let file = Asked { body: br#"{"file_id":"x"}"#, ..ASKED };
        assert_eq!(judged(r#"{"prompt_tokens":200000,"completion_tokens":3}"#, HELLO, &file), (200_000, 3, false));
        let bounded = Asked { max_tokens: 100, ..ASKED };
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":120}"#, HELLO, &bounded), (9, 120, false));
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":9999}"#, HELLO, &bounded), (9, 2, true));
    }

    #[test]
    fn more_text_than_the_tokens_can_hold_is_estimated() {
        let long = Flowed { tokens: 25_000, bytes: 100_000 };
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":1}"#, long, &ASKED), (9, 25_000, true));
        assert_eq!(judged(r#"{"prompt_tokens":9,"completion_tokens":9000}"#, long, &ASKED), (9, 9_000, false));
    }

    #[test]
    fn the_total_finds_what_was_left_out() {
        for (told, expected) in [
            // Thoughts beside the answer: xAI's, Gemini's in OpenAI's format.
            (
                r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":44,"completion_tokens_details":{"reasoning_tokens":30}}"#,
                (9, 35, false),
            ),
            (r#"{"prompt_tokens":20,"completion_tokens":424,"total_tokens":1016}"#, (20, 996, false)),
            (
                r#"{"completion_tokens":0,"total_tokens":81,"prompt_tokens":21,"completion_tokens_details":{"reasoning_tokens":60}}"#,
                (21, 60, false),
            ),
            // Thoughts inside it: OpenAI's.
            (
                r#"{"prompt_tokens":9,"completion_tokens":35,"total_tokens":44,"completion_tokens_details":{"reasoning_tokens":30}}"#,
                (9, 35, false),
            ),
            (
                r#"{"prompt_tokens":9,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":30}}"#,
                (9, 35, false),
            ),
            (r#"{"prompt_tokens":9,"total_tokens":14}"#, (9, 5, false)),
            (r#"{"completion_tokens":5,"total_tokens":14}"#, (9, 5, false)),
            (r#"{"prompt_tokens":9,"completion_tokens":5,"total_tokens":3}"#, (9, 5, false)),
        ] {
            assert_eq!(judged(told, HELLO, &ASKED), expected, "{told}");
        }
    }

    #[test]
    fn caches_are_inside_or_beside_the_prompt() {
        let read = |told: &str| {
            let mut counts = Counts::default();
            counts.read(told.as_bytes());
            usage(&counts, true, HELLO, &ASKED)
        };
        let beside = read(
            r#"{"input_tokens":1,"output_tokens":2,"cache_read_input_tokens":50,"cache_creation_input_tokens":70,"cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":40}}"#,
        );
        let expected = Usage {
            input_tokens: 121,
            output_tokens: 2,
            cached_input_tokens: 50,
            cache_write_tokens: 30,
            cache_write_1h_tokens: 40,
            ..Usage::default()
        };
        assert_eq!(beside, expected);
        let inside = read(
            r#"{"prompt_tokens":121,"completion_tokens":2,"total_tokens":123,"cache_read_input_tokens":50,"cache_creation_input_tokens":70,"prompt_tokens_details":{"cached_tokens":50}}"#,
        );
        assert_eq!((inside.input_tokens, inside.cached_input_tokens, inside.cache_write_tokens), (121, 50, 70));
        let beside = read(r#"{"prompt_tokens":31,"completion_tokens":2,"cache_creation_input_tokens":1253}"#);
        assert_eq!((beside.input_tokens, beside.cache_write_tokens), (1_284, 1_253));
        let sound = read(
            r#"{"prompt_tokens":30,"completion_tokens":20,"prompt_tokens_details":{"audio_tokens":10,"image_tokens":5,"cached_tokens":40},"completion_tokens_details":{"audio_tokens":15}}"#,
        );
        let parts =
            (sound.cached_input_tokens, sound.audio_input_tokens, sound.image_input_tokens, sound.audio_output_tokens);
        assert_eq!(parts, (30, 0, 0, 15), "no part is more than what is left");
    }

    proptest! {
        #[test]
        fn no_told_number_is_beyond_the_bounds(
            numbers in prop::collection::vec(prop_oneof![any::<u64>(), 0u64..10_000], 12), inclusive: bool, is_final: bool,
            flowed in 0u64..5_000, max_tokens in prop_oneof![Just(0u32), 1u32..10_000],
        ) {
            let n = |i: usize| numbers[i];
            let counts = Counts {
                input: n(0), output: n(1), total: n(2), reasoning: n(3), cached: n(4), written: n(5), cache_read: n(6),
                cache_written: n(7), written_1h: n(8), audio_input: n(9), audio_output: n(10), image_input: n(11),
                is_inclusive: inclusive, ..Counts::default()
            };
            let asked = Asked { max_tokens, ..ASKED };
            let usage = usage(&counts, is_final, Flowed { tokens: flowed, bytes: flowed * 4 }, &asked);
            prop_assert!(usage.input_tokens <= MAX_INPUT && usage.output_tokens <= asked.max_output().max(flowed));
            let parts = usage.cached_input_tokens + usage.cache_write_tokens + usage.cache_write_1h_tokens
                + usage.audio_input_tokens + usage.image_input_tokens;
            prop_assert!(parts <= usage.input_tokens && usage.audio_output_tokens <= usage.output_tokens);
            prop_assert!(usage.output_tokens > 0 || flowed == 0);
        }
    }
}
