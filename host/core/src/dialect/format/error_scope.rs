//! The scope of a refusal by its own words: the smallest part that explains it.

use http::HeaderName;

use super::error_words::is_page;
use super::inability::{is_inability, is_verdict};
use super::message::ErrorDetails;
use crate::contract::Operation;
use crate::origin::{asks_model, is_peculiar};
use crate::outcome::{Kind, Outcome, Scope};

/// A row: a refusal of one of these kinds with one of these codes or phrases is of this scope. No kinds: any.
struct ScopeRule {
    kinds: &'static [Kind],
    codes: &'static [&'static str],
    phrases: &'static [&'static str],
    scope: Scope,
}

/// Kinds of refusals that are put down to the key or the account where nothing narrows them.
const ACCOUNT: &[Kind] = &[Kind::Unauthorised, Kind::OutOfCredit, Kind::Refused];

/// First match wins; the narrower come first.
const RULES: &[ScopeRule] = &[
    ScopeRule {
        kinds: &[Kind::OutOfCredit, Kind::RateLimited, Kind::TooLong],
        codes: &[],
        phrases: &[
            "fewer max_tokens",
            "lower max_tokens",
            "reduce max_tokens",
            "reduce the max_tokens",
            "smaller max_tokens",
            "decrease max_tokens",
            "fewer max tokens",
            "max_completion_tokens",
            "can only afford",
        ],
        scope: Scope::AnswerSize,
    },
    ScopeRule {
        kinds: ACCOUNT,
        codes: &[
            "mismatched_organization",
            "mismatched_project",
            "invalid_organization",
            "invalid_project",
            "no_such_organization",
            "user_project_denied",
        ],
        phrases: &[
            "openai-organization",
            "openai-project",
            "openai-beta",
            "organization header",
            "project header",
            "x-goog-user-project",
            "quota project",
            "serviceusage.services.use",
            "anthropic-beta",
            "beta header",
            "beta feature",
            "oauth authentication is",
            "oauth tokens are",
        ],
        scope: Scope::Headers,
    },
    ScopeRule {
        kinds: ACCOUNT,
        codes: &[
            "missing_scope",
            "missing_scopes",
            "insufficient_scope",
            "insufficient_permissions",
            "access_token_scope_insufficient",
            "endpoint_not_allowed",
        ],
        phrases: &[
            "missing scope",
            "insufficient permissions for this operation",
            "authentication scopes",
            "restricted api key",
            "restricted key",
            "necessary scopes",
            "required scope",
            "this endpoint",
            "this operation",
            "this route",
            "this api endpoint",
        ],
        scope: Scope::Operation,
    },
    // Limits of what one request carries, not of all requests.
    ScopeRule {
        kinds: &[Kind::RateLimited],
        codes: &[],
        phrases: &[
            "image inputs per",
            "limit for tool",
            "web_search",
            "web search",
            "end-user",
            "end user",
            "same conversation",
            "same session",
            "same thread",
            "enqueued token",
        ],
        scope: Scope::RequestHere,
    },
    ScopeRule {
        kinds: &[],
        codes: &["tool_use_failed", "tools_not_supported", "unsupported_feature", "previous_response_not_found"],
        phrases: &[
            "support tool",
            "tool calling is not supported",
            "tool use is not supported",
            "tool use is disabled",
            "tools are not supported",
            "no endpoints found that",
            "no endpoints found matching",
            "no allowed providers",
            "failed to call a function",
            "does not support image",
            "does not support vision",
            "not a multimodal model",
            "image input is not supported",
            "image inputs are not supported",
            // Another backend may have made it.
            "previous response with id",
        ],
        scope: Scope::RequestHere,
    },
];

/// The scope of an error with these words; [`Kind::usual_scope`] where they narrow nothing.
pub(in crate::dialect) fn scope_by_words(kind: Kind, status: u16, said: &ErrorDetails<'_>) -> Scope {
    let code = said.code.to_ascii_lowercase();
    let error_type = said.kind.to_ascii_lowercase();
    let message = said.message.to_ascii_lowercase();
    let is_met = |rule: &&ScopeRule| {
        (rule.kinds.is_empty() || rule.kinds.contains(&kind))
            && (status == 0 || status >= 400)
            && (rule.codes.iter().any(|word| *word == code || *word == error_type)
                || rule.phrases.iter().any(|phrase| message.contains(phrase)))
    };
    if let Some(rule) = RULES.iter().find(is_met) {
        return rule.scope;
    }
    if kind == Kind::Refused && status == 413 {
        // A payload too large, where nothing is said of tokens.
        return Scope::BodySize;
    }
    // A firewall's refusal is about this request at this host, and so is what its model or its server cannot do.
    let is_firewall = || is_page(&message) || status == 403 && !is_verdict(&code, &error_type, &message);
    if kind == Kind::Refused && (is_firewall() || is_inability(&code, &error_type, &message)) {
        return Scope::RequestHere;
    }
    let is_of_account = matches!(kind, Kind::Unauthorised | Kind::OutOfCredit);
    if is_of_account && is_about_model(&message) { Scope::Model } else { kind.usual_scope() }
}

/// "You do not have access to model x", "this model needs a paid plan".
fn is_about_model(message: &str) -> bool {
    const WHY: [&str; 9] =
        ["access", "plan", "tier", "subscription", "permission", "not allowed", "available", "paid", "gated"];
    message.contains("model") && WHY.iter().any(|why| message.contains(why))
}

/// Narrows the scope of a refusal to what its request carried: a header of the client's that the refusal names, or an
/// operation that is none of a model. `sent`: the names of the client's headers that went to the upstream.
pub fn narrowed<'a>(outcome: &Outcome, operation: Operation, mut sent: impl Iterator<Item = &'a HeaderName>) -> Scope {
    let Outcome { kind, scope, .. } = *outcome;
    let status = outcome.status.unwrap_or(0);
    if !matches!(kind, Kind::Unauthorised | Kind::OutOfCredit | Kind::Refused) {
        return scope;
    }
    let is_broad = matches!(scope, Scope::Backend | Scope::Model | Scope::Headers) || matches!(status, 401 | 403);
    let message = outcome.message.to_ascii_lowercase();
    if is_broad && sent.any(|name| is_peculiar(name) && is_named(&message, name.as_str())) {
        return Scope::Headers;
    }
    match (scope, kind) {
        // It is none of the client's: so it is one of the operator's, or the key.
        (Scope::Headers, Kind::Refused) => Scope::Request,
        (Scope::Headers | Scope::Backend, _) if !asks_model(operation) => Scope::Operation,
        (Scope::Headers, _) => Scope::Backend,
        // The path is not there, or not for this method.
        (Scope::Request, _) if asks_model(operation) && matches!(status, 404 | 405 | 501) => Scope::Operation,
        (scope, _) => scope,
    }
}

/// Returns true if the message names this header: whole, or the last part of it beside the word "header" or "beta".
fn is_named(message: &str, header: &str) -> bool {
    if message.contains(header) {
        return true;
    }
    let words = header.strip_prefix("x-").unwrap_or(header).replace('-', " ");
    message.contains(&words) || header.ends_with("-beta") && message.contains("beta")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(kind: Kind, status: u16, message: &str) -> Scope {
        scope_by_words(kind, status, &ErrorDetails { message: message.into(), ..ErrorDetails::default() })
    }

    fn narrow(kind: Kind, status: u16, message: &str, operation: Operation, headers: &[&'static str]) -> Scope {
        let outcome =
            Outcome { status: Some(status), scope: scope(kind, status, message), ..Outcome::new(kind, message) };
        let names: Vec<HeaderName> = headers.iter().map(|name| HeaderName::from_static(name)).collect();
        narrowed(&outcome, operation, names.iter())
    }

    #[test]
    fn a_header_is_to_blame_only_where_the_client_sent_it() {
        let message = "This feature is not available; remove it from the anthropic-beta header.";
        let refused = |headers: &[&'static str]| narrow(Kind::Unauthorised, 403, message, Operation::Message, headers);
        assert_eq!(refused(&["accept", "anthropic-beta"]), Scope::Headers);
        assert_eq!(refused(&["accept", "x-stainless-lang"]), Scope::Backend, "it is one of the operator's own");
        let custom = |message| narrow(Kind::Unauthorised, 401, message, Operation::Chat, &["x-tenant-id"]);
        assert_eq!(custom("Unknown tenant id for this key"), Scope::Headers);
        assert_eq!(custom("Invalid API key"), Scope::Backend);
    }

    #[test]
    fn what_is_no_models_operation_never_tells_against_the_key() {
        for kind in [Kind::Unauthorised, Kind::OutOfCredit] {
            let files = narrow(kind, 401, "Incorrect API key provided", Operation::Other, &[]);
            assert_eq!(files, Scope::Operation);
        }
        assert_eq!(narrow(Kind::Refused, 404, "No such file", Operation::Other, &[]), Scope::Request);
        assert_eq!(narrow(Kind::Refused, 404, "Not Found", Operation::Chat, &[]), Scope::Operation);
        assert_eq!(narrow(Kind::Refused, 400, "bad", Operation::Chat, &[]), Scope::Request);
        assert_eq!(narrow(Kind::ServerError, 500, "boom", Operation::Other, &["x-tenant-id"]), Scope::Model);
    }

    #[test]
    fn the_smallest_part_that_explains_it() {
        use Kind::{ModelMissing, OutOfCredit, RateLimited, Refused, TooLong, Unauthorised};
        for (kind, status, message, expected) in [
            (OutOfCredit, 402, "This request requires more credits, or fewer max_tokens.", Scope::AnswerSize),
            (OutOfCredit, 402, "Insufficient Balance", Scope::Backend),
            (OutOfCredit, 402, "This model requires a paid plan", Scope::Model),
            (Unauthorised, 401, "Missing scopes: api.files.read", Scope::Operation),
            (Unauthorised, 403, "Request had insufficient authentication scopes.", Scope::Operation),
            (Unauthorised, 403, "You do not have access to model x", Scope::Model),
            (Unauthorised, 401, "Incorrect API key provided", Scope::Backend),
            (TooLong, 429, "Request too large", Scope::PromptSize),
            (RateLimited, 429, "Rate limit reached", Scope::Model),
            (ModelMissing, 404, "No endpoints found that support tool use", Scope::RequestHere),
            (ModelMissing, 404, "model not found", Scope::Model),
            (Refused, 403, "<html><head><title>Attention Required!</title>", Scope::RequestHere),
            (Refused, 413, "Payload Too Large", Scope::BodySize),
            (Refused, 400, "max_tokens is wrong", Scope::Request),
        ] {
            assert_eq!(scope(kind, status, message), expected, "{status} {message}");
        }
    }
}
