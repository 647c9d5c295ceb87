//! Refusals that say what one server or model cannot do: another backend may do it.

/// Beginnings and ends of codes that say so.
const CODES: &[&str] = &[
    "unsupported",
    "not_supported",
    "unknown_parameter",
    "unrecognized",
    "unexpected_parameter",
    "extra_forbidden",
    "feature_not",
    "not_implemented",
    "json_validate_failed",
    "output_parse_failed",
    "failed_precondition",
    "model_not_active",
    "model_not_loaded",
    "model_overloaded",
];

/// Phrases that say so, in lower case: what it does not know, does not have, is not set up for, or failed to produce.
const PHRASES: &[&str] = &[
    // It does not do that.
    "not support",
    "n't support",
    "unsupported",
    "no support for",
    "only support",
    "supports only",
    "supports at most",
    "not implemented",
    "not available",
    "unavailable",
    "not enabled",
    "not allowed for this",
    "not allowed with this",
    "is disabled",
    "are disabled",
    "is not a vision",
    "multimodal",
    "this model",
    "with model",
    "for model",
    "requires --",
    "must be verified",
    // It does not know that.
    "unrecognized",
    "unknown parameter",
    "unknown field",
    "unknown argument",
    "unknown name",
    "unknown option",
    "unexpected keyword",
    "unexpected field",
    "unexpected parameter",
    "was unexpected",
    "extra inputs",
    "extra fields",
    "extra_forbidden",
    "additional propert",
    "is only allowed",
    // It is not ready for it, or not paid.
    "not loaded",
    "no models loaded",
    "is loading",
    "currently loading",
    "not deployed",
    "not configured",
    "not installed",
    "no longer",
    "deprecated",
    "retired",
    "decommissioned",
    "billing",
    "unpaid",
    // It takes less of it.
    "is too large",
    "is too high",
    "too many tools",
    "too many images",
    "exceeds the maximum",
    "exceeds the limit",
    "maximum allowed",
    // What it made could not be used.
    "failed to generate",
    "failed to call",
    "failed to parse",
    "could not be parsed",
    "parsing failed",
    // One behind it refuses.
    "provider returned error",
    "upstream",
];

/// Phrases of a verdict on what was said: to ask elsewhere would be to get around it.
const VERDICTS: &[&str] = &[
    "content policy",
    "content_policy",
    "content management policy",
    "content filter",
    "content_filter",
    "usage polic",
    "safety",
    "moderation",
    "flagged",
    "guardrail",
    "responsible ai",
    "prohibited",
    "harmful",
];

/// Returns true if a refusal with these words, in lower case, is about what this backend can do and not about the request.
pub(super) fn is_inability(code: &str, kind: &str, message: &str) -> bool {
    let is_code = |word: &str| CODES.iter().any(|known| word.contains(known));
    (is_code(code) || is_code(kind) || PHRASES.iter().any(|phrase| message.contains(phrase)))
        && !is_verdict(code, kind, message)
}

/// Returns true for a verdict on what the request says.
pub(super) fn is_verdict(code: &str, kind: &str, message: &str) -> bool {
    let is_in = |text: &str| VERDICTS.iter().any(|phrase| text.contains(phrase));
    is_in(code) || is_in(kind) || is_in(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: &str, message: &str) -> bool {
        is_inability(code, "", &message.to_ascii_lowercase())
    }

    #[test]
    fn what_one_server_cannot_do_is_told_from_what_nobody_can() {
        for (code, message) in [
            ("", "logprobs are not supported with this model"),
            ("unsupported_value", "'temperature' must be 1"),
            ("", "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."),
            ("", "System role not supported"),
            ("", "Unrecognized request argument supplied: reasoning_effort"),
            ("", "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"),
            ("", "max_tokens is too large: 100000. This model supports at most 16384 completion tokens"),
            ("", "Extra inputs are not permitted"),
            ("", "Additional properties are not allowed ('reasoning' was unexpected)"),
            ("", "Provider returned error"),
            ("json_validate_failed", "Failed to generate JSON."),
            ("", "No models loaded. Please load a model"),
            ("", "Your organization must be verified to stream this model."),
            ("", "parallel_tool_calls is only allowed when 'tools' are specified"),
            ("", "Failed to parse grammar"),
        ] {
            assert!(says(code, message), "{code} {message}");
        }
        for (code, message) in [
            ("", "Invalid type for 'messages': expected an array of objects, but got a string instead."),
            ("", "messages: at least one message is required"),
            ("invalid_prompt", "Your prompt was flagged as potentially violating our usage policy"),
            ("content_policy_violation", "The image is not supported"),
            ("", "This model refuses it: content policy"),
            ("", "An assistant message with 'tool_calls' must be followed by tool messages"),
            ("", "Could not parse the JSON body of your request"),
            ("", "Bad Request"),
            ("", ""),
        ] {
            assert!(!says(code, message), "{code} {message}");
        }
    }
}
