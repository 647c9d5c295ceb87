//! Headers that belong to a credential: they name the account, project or session that a request is billed to or allowed
//! by. A client's say nothing of the operator's key, and a provider refuses them beside it.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers by their whole names.
const NAMES: [&str; 16] = [
    "x-goog-user-project",
    "x-goog-iam-authorization-token",
    "x-goog-iam-authority-selector",
    "chatgpt-account-id",
    "helicone-auth",
    "cf-aig-authorization",
    "cf-access-client-id",
    "cf-access-client-secret",
    "x-auth-email",
    "x-auth-key",
    "x-amz-security-token",
    "x-amz-date",
    "x-amz-content-sha256",
    "x-portkey-virtual-key",
    "x-portkey-config",
    "x-hf-bill-to",
];

/// Ends of the names of headers that hold a secret.
const SECRETS: [&str; 11] = [
    "api-key",
    "api-token",
    "auth-token",
    "access-token",
    "access-key",
    "security-token",
    "session-token",
    "github-token",
    "subscription-key",
    "functions-key",
    "-authorization",
];

/// Beginnings of the names of a provider's own headers, where nothing but the account can be meant by a word of
/// [`ACCOUNTS`].
const PROVIDERS: [&str; 20] = [
    "openai-",
    "x-openai-",
    "anthropic-",
    "x-anthropic-",
    "x-goog-",
    "x-google-",
    "google-",
    "groq-",
    "x-groq-",
    "mistral-",
    "cohere-",
    "x-dashscope-",
    "together-",
    "fireworks-",
    "x-fireworks-",
    "x-ms-",
    "azureml-",
    "databricks-",
    "x-ibm-",
    "openrouter-",
];

/// Words in names of headers that stand for an account.
const ACCOUNTS: [&str; 9] =
    ["organization", "organisation", "org", "project", "workspace", "account", "tenant", "billing", "subscription"];

/// Beginnings of values of `anthropic-beta` that say of which sort the credential is (`oauth-2025-04-20`).
const CREDENTIAL_BETAS: [&str; 1] = ["oauth"];

/// Returns true if a header belongs to the credential that it came with.
pub fn is_of_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.contains('-') {
        return false;
    }
    let is_account = |rest: &str| rest.split('-').any(|word| ACCOUNTS.contains(&word));
    NAMES.contains(&name)
        || SECRETS.iter().any(|end| name.ends_with(end))
        || PROVIDERS.iter().any(|start| name.strip_prefix(start).is_some_and(is_account))
}

/// Takes out of a client's headers those that belong to its own credential.
pub fn remove(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_of_credential(name)).cloned() {
        headers.remove(name);
    }
    if headers.contains_key(BETA) {
        remove_betas(headers);
    }
}

/// Anthropic's list of features; it may stand several times.
const BETA: &str = "anthropic-beta";

fn remove_betas(headers: &mut HeaderMap) {
    let is_of_credential = |beta: &str| CREDENTIAL_BETAS.iter().any(|start| beta.trim().starts_with(start));
    let lists = || headers.get_all(BETA).iter().filter_map(|value| value.to_str().ok());
    if !lists().flat_map(|list| list.split(',')).any(is_of_credential) {
        return;
    }
    let kept: Vec<&str> = lists().flat_map(|list| list.split(',')).filter(|beta| !is_of_credential(beta)).collect();
    let kept: Vec<&str> = kept.into_iter().map(str::trim).filter(|beta| !beta.is_empty()).collect();
    match HeaderValue::from_str(&kept.join(",")) {
        Ok(list) if !list.is_empty() => headers.insert(BETA, list),
        Ok(_) | Err(_) => headers.remove(BETA),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_credentials_headers_are_known_and_others_stay() {
        for (name, is_of) in [
            ("openai-organization", true),
            ("openai-project", true),
            ("x-goog-user-project", true),
            ("anthropic-workspace-id", true),
            ("anthropic-organization-id", true),
            ("chatgpt-account-id", true),
            ("ocp-apim-subscription-key", true),
            ("x-amz-security-token", true),
            ("x-dashscope-workspace", true),
            ("x-litellm-api-key", true),
            ("x-portkey-api-key", true),
            ("cf-aig-authorization", true),
            ("x-auth-token", true),
            ("openai-beta", false),
            ("anthropic-version", false),
            ("anthropic-beta", false),
            ("anthropic-dangerous-direct-browser-access", false),
            ("x-stainless-lang", false),
            ("http-referer", false),
            ("x-title", false),
            ("x-project-id", false),
            ("x-goog-api-client", false),
            ("idempotency-key", false),
            ("content-type", false),
            ("user-agent", false),
        ] {
            assert_eq!(is_of_credential(&HeaderName::from_static(name)), is_of, "{name}");
        }
    }

    #[test]
    fn of_the_betas_only_those_of_a_credential_are_taken_out() {
        for (sent, kept) in [
            (vec!["oauth-2025-04-20"], None),
            (
                vec!["claude-code-20250219,oauth-2025-04-20,interleaved-thinking-2025-05-14"],
                Some("claude-code-20250219,interleaved-thinking-2025-05-14"),
            ),
            (vec!["a-1", "oauth-2025-04-20, b-2"], Some("a-1,b-2")),
            (vec!["a-1, b-2"], Some("a-1, b-2")),
        ] {
            let mut headers = HeaderMap::new();
            for value in &sent {
                headers.append(BETA, HeaderValue::from_static(value));
            }
            remove(&mut headers);
            assert_eq!(headers.get(BETA).map(|value| value.to_str().unwrap()), kept, "{sent:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_of_no_credential(names in prop::collection::vec("(openai|x-goog|x)-(organization|project|beta|api-key|lang)", 0..8), betas in "[a-z]{1,4}(,oauth-[0-9]{1,3}|,[a-z]{1,5}){0,4}") {
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_static("v"));
            }
            headers.insert(BETA, HeaderValue::try_from(&betas).unwrap());
            remove(&mut headers);
            prop_assert!(!headers.keys().any(is_of_credential));
            let left = headers.get(BETA).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            let expected: Vec<&str> = betas.split(',').filter(|beta| !beta.starts_with("oauth")).collect();
            prop_assert_eq!(left, expected.join(","));
        }
    }
}
