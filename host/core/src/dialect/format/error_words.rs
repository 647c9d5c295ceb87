//! The class of an error by its own words, which are the same at most providers.

use std::ops::RangeInclusive;

use super::message::ErrorDetails;
use crate::outcome::Kind;

/// A row: for these statuses, an error with one of these codes (`code`, `type` or `status`, in lower case) or with one
/// of these phrases in its message is of this kind.
struct WordRule {
    statuses: &'static [RangeInclusive<u16>],
    codes: &'static [&'static str],
    phrases: &'static [&'static str],
    kind: Kind,
}

const ANY: &[RangeInclusive<u16>] = &[0..=599];
/// Statuses of client errors that may be errors of the account or the model.
const CLIENT: &[RangeInclusive<u16>] = &[0..=0, 400..=404, 413..=413, 422..=422];

/// First match wins. Codes come before phrases, because phrases are prose and change.
const RULES: &[WordRule] = &[
    WordRule {
        statuses: ANY,
        codes: &[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "insufficient_balance",
            "insufficient_credits",
            "insufficient_funds",
            "credit_balance_too_low",
            "spend_limit_exceeded",
            "spending_limit_reached",
            "payment_required",
        ],
        phrases: &[],
        kind: Kind::OutOfCredit,
    },
    WordRule {
        statuses: &[0..=0, 400..=499],
        codes: &[],
        phrases: &[
            "credit balance is too low",
            "insufficient balance",
            "balance is insufficient",
            "insufficient credit",
            "insufficient funds",
            "insufficient quota",
            "requires more credits",
            "out of credits",
            "spend limit",
            "spend cap",
            "spending limit",
            "spending cap",
            "billing hard limit",
            "billing is not active",
        ],
        kind: Kind::OutOfCredit,
    },
    WordRule {
        statuses: CLIENT,
        codes: &["context_length_exceeded", "context_window_exceeded", "prompt_too_long"],
        phrases: &[
            "maximum context length",
            "context length exceeded",
            "prompt is too long",
            "input is too long",
            "exceed context limit",
            "exceeds the context window",
            "exceeds the maximum number of tokens",
            "reduce the length of the messages",
        ],
        kind: Kind::TooLong,
    },
    WordRule {
        statuses: CLIENT,
        codes: &["model_not_found", "model_not_available", "model_not_exist", "unknown_model", "model_decommissioned"],
        phrases: &[
            "model not found",
            "model does not exist",
            "unknown model",
            "not a valid model",
            "no endpoints found",
        ],
        kind: Kind::ModelMissing,
    },
    // Where the host stands, every request is refused.
    WordRule {
        statuses: &[400..=400, 401..=403, 451..=451],
        codes: &["unsupported_country_region_territory"],
        phrases: &[
            "country, region, or territory not supported",
            "location is not supported",
            "region not supported",
            "region is not supported",
            "unsupported region",
            "country not supported",
            "country is not supported",
            "unsupported country",
            "not available in your",
            "not supported in your",
            "unavailable in your",
        ],
        kind: Kind::Unauthorised,
    },
    // The account behind the key is closed; Anthropic tells it as a bad request.
    WordRule {
        statuses: &[400..=400, 401..=403],
        codes: &["account_disabled", "account_deactivated", "account_suspended", "organization_disabled"],
        phrases: &[
            "organization has been disabled",
            "organization is disabled",
            "organization has been deactivated",
            "account has been disabled",
            "account has been deactivated",
            "account has been suspended",
            "account is disabled",
            "account is deactivated",
            "account is suspended",
            "account suspended",
            "account deactivated",
            "project has been archived",
        ],
        kind: Kind::Unauthorised,
    },
    // Google and others tell a bad key as a bad request.
    WordRule {
        statuses: &[0..=0, 400..=400, 404..=404, 422..=422],
        codes: &["api_key_invalid", "invalid_api_key", "expired_api_key", "api_key_expired"],
        phrases: &[
            "api key not valid",
            "api key expired",
            "api key has expired",
            "api key is expired",
            "expired api key",
            "invalid api key",
            "api key is invalid",
            "incorrect api key",
        ],
        kind: Kind::Unauthorised,
    },
    WordRule {
        statuses: &[401..=403],
        codes: &["content_policy_violation", "content_filter", "moderation"],
        phrases: &["content policy", "usage policies", "moderation", "flagged"],
        kind: Kind::Refused,
    },
    WordRule {
        statuses: &[0..=0, 429..=429, 500..=599],
        codes: &[
            "overloaded_error",
            "overloaded",
            "engine_overloaded",
            "model_overloaded",
            "server_overloaded",
            "unavailable",
        ],
        phrases: &["overloaded", "over capacity"],
        kind: Kind::Overloaded,
    },
    WordRule {
        statuses: &[0..=0, 500..=599],
        codes: &[
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limit_reached",
            "too_many_requests",
            "resource_exhausted",
            "tokens",
            "requests",
        ],
        phrases: &["rate limit", "too many requests"],
        kind: Kind::RateLimited,
    },
    WordRule {
        statuses: &[0..=0, 403..=403],
        codes: &[
            "invalid_api_key",
            "authentication_error",
            "permission_error",
            "permission_denied",
            "unauthenticated",
            "unauthorized",
            "account_deactivated",
        ],
        phrases: &[],
        kind: Kind::Unauthorised,
    },
    WordRule {
        statuses: &[403..=403],
        codes: &[],
        phrases: &[
            "api key",
            "api_key",
            "api-key",
            "apikey",
            "authenticat",
            "authoriz",
            "authoris",
            "credential",
            "invalid token",
            "access token",
            "permission",
            "your account",
        ],
        kind: Kind::Unauthorised,
    },
    WordRule {
        statuses: &[0..=0],
        codes: &[
            "content_policy_violation",
            "content_filter",
            "invalid_request_error",
            "invalid_prompt",
            "bad_request",
            "invalid_argument",
            "request_too_large",
        ],
        phrases: &[],
        kind: Kind::Refused,
    },
];

/// The class of an error by its own words, in all the spellings in use, and by its status where they say nothing.
pub fn by_words(status: u16, said: &ErrorDetails<'_>, is_dated: bool) -> Kind {
    let code = said.code.to_ascii_lowercase();
    let kind = said.kind.to_ascii_lowercase();
    let message = said.message.to_ascii_lowercase();
    if matches!(status, 0 | 400 | 413 | 429) && asks_more_than_a_minutes_limit(&code, &message) {
        return Kind::TooLong;
    }
    let rules = RULES.iter().filter(|rule| rule.statuses.iter().any(|range| range.contains(&status)));
    for rule in rules {
        if rule.codes.iter().any(|word| *word == code || *word == kind)
            || rule.phrases.iter().any(|phrase| message.contains(phrase))
        {
            return rule.kind;
        }
    }
    // "The model `x` does not exist", "model: x" (Anthropic).
    let about_model = message.starts_with("model: ")
        || message.contains("model") && (message.contains("does not exist") || message.contains("not found"));
    if matches!(status, 400 | 404) && about_model {
        return Kind::ModelMissing;
    }
    // Google says "exceeded your current quota ... billing" for an ordinary minute's limit too, but then says until when.
    if status == 429 && message.contains("exceeded your current quota") && !is_dated {
        return Kind::OutOfCredit;
    }
    // With words of its own that are not about the key, a 403 is about this request: a firewall, a policy, a file.
    let says_nothing = |word: &str| matches!(word, "" | "403" | "forbidden");
    if status == 403 && ![message.trim(), &code, &kind].into_iter().all(says_nothing) {
        return Kind::Refused;
    }
    by_status(status)
}

/// Returns true if a rate limit's refusal says that this request alone is more than the limit, so that no waiting helps:
/// "Request too large for ... Limit 30000, Requested 52000".
fn asks_more_than_a_minutes_limit(code: &str, message: &str) -> bool {
    let number_after = |word: &str| {
        let number = |rest: &str| {
            let rest = rest.trim_start_matches([' ', ':', '=', '(', '"', '\'']);
            let rest = rest.strip_prefix("of ").or(rest.strip_prefix("is ")).unwrap_or(rest);
            let digits = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, ',' | '_'));
            digits.filter(char::is_ascii_digit).collect::<String>().parse::<u64>().ok()
        };
        message.match_indices(word).find_map(|(at, word)| number(&message[at + word.len()..]))
    };
    if let (Some(limit), Some(requested)) = (number_after("limit"), number_after("requested")) {
        return requested > limit;
    }
    let says_so = [
        "request too large",
        "request is too large",
        "request exceeds the limit",
        "larger than the limit",
        "long context requests",
        "reduce your message size",
        "single request exceeds",
    ];
    let is_of_tokens = message.contains("token") || message.contains("tpm") || message.contains("context");
    code != "payload_too_large" && is_of_tokens && says_so.iter().any(|phrase| message.contains(phrase))
}

/// Returns true if this is a page for people instead of an API's error: it comes from a firewall or a gateway.
pub(super) fn is_page(message: &str) -> bool {
    let start = message.trim_start();
    start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<head")
}

/// The class of an error by its status alone.
pub const fn by_status(status: u16) -> Kind {
    match status {
        0 => Kind::ServerError,
        402 => Kind::OutOfCredit,
        401 | 403 => Kind::Unauthorised,
        // 424: a gateway before the model, whose container failed; 425: too early.
        408 | 424 | 425 => Kind::ServerError,
        429 => Kind::RateLimited,
        // 498: Groq's "capacity exceeded"; 529: Anthropic's "overloaded".
        498 | 503 | 529 => Kind::Overloaded,
        400..=499 => Kind::Refused,
        500.. => Kind::ServerError,
        1..=399 => Kind::Answered,
    }
}
