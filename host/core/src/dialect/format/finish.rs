//! Finish reasons in the spellings in use, and whether they say that the answer is complete or that it failed.

use crate::http::json;

/// Meaning of a finish reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Finish {
    /// None yet: absent, null, empty, or a word that stands for that.
    None,
    /// A reason that ends the answer as it should.
    Complete,
    /// The answer ends here because the model or its server failed.
    Failed,
}

/// Words that servers write where they mean null (Python's and JavaScript's spellings, Google's unspecified value).
const NOT_FINISHED: &[&str] = &[
    "null",
    "none",
    "nil",
    "undefined",
    "unspecified",
    "finish_reason_unspecified",
    "not_finished",
    "unfinished",
    "in_progress",
    "generating",
];

/// Words for an answer that broke off at the provider: OpenRouter's `error`, vLLM's and SGLang's `abort`, Zhipu's
/// `network_error`, DeepSeek's `insufficient_system_resource`, and their like.
const FAILED: &[&str] = &[
    "error",
    "errored",
    "failed",
    "failure",
    "abort",
    "aborted",
    "cancelled",
    "canceled",
    "network_error",
    "server_error",
    "internal_error",
    "internal_server_error",
    "model_error",
    "engine_error",
    "upstream_error",
    "insufficient_system_resource",
    "timeout",
    "unavailable",
    "overloaded",
];

/// Words for an end that explains an answer without content: its limit was spent on thoughts or is 0, a stop sequence came
/// first, or a filter or the model itself refused to say anything.
const EXPLAINS_EMPTY: &[&str] = &[
    "length",
    "max_tokens",
    "max_output_tokens",
    "model_length",
    "model_context_window_exceeded",
    "incomplete",
    "stop_sequence",
    "content_filter",
    "content_filtered",
    "refusal",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "sensitive",
];

/// Returns true if the raw value of this finish reason explains an answer without content.
pub(in crate::dialect) fn explains_empty(value: &[u8]) -> bool {
    let is = |word: &[u8]| EXPLAINS_EMPTY.iter().any(|known| word.trim_ascii().eq_ignore_ascii_case(known.as_bytes()));
    json::raw_str(value).is_some_and(is)
}

impl Finish {
    /// Reads the raw value of a finish reason.
    pub(in crate::dialect) fn read(value: &[u8]) -> Self {
        if !json::is_filled(value) {
            return Finish::None;
        }
        let Some(word) = json::raw_str(value) else {
            // `false` and 0 stand for null; nobody writes another number or an object.
            return if matches!(value, b"false" | b"0") { Finish::None } else { Finish::Complete };
        };
        let is_in = |words: &[&str]| words.iter().any(|known| word.trim_ascii().eq_ignore_ascii_case(known.as_bytes()));
        match word {
            // Nearly every answer ends with one of these.
            b"stop" | b"length" | b"tool_calls" | b"end_turn" | b"tool_use" => Finish::Complete,
            word if word.trim_ascii().is_empty() || is_in(NOT_FINISHED) => Finish::None,
            _ if is_in(FAILED) => Finish::Failed,
            _ => Finish::Complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_none_an_end_or_a_failure() {
        for none in ["null", "\"\"", "\"null\"", "\"None\"", "\" \"", "false", "0", "\"FINISH_REASON_UNSPECIFIED\"", ""]
        {
            assert_eq!(Finish::read(none.as_bytes()), Finish::None, "{none}");
        }
        for end in ["\"stop\"", "\"STOP\"", "\"length\"", "\"content_filter\"", "\"eos\"", "\"max_tokens\"", "\"x\""] {
            assert_eq!(Finish::read(end.as_bytes()), Finish::Complete, "{end}");
        }
        for failed in ["\"error\"", "\"Error\"", "\"abort\"", "\"network_error\"", "\"insufficient_system_resource\""] {
            assert_eq!(Finish::read(failed.as_bytes()), Finish::Failed, "{failed}");
        }
    }
}
