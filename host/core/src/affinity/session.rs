//! The session of a request, from the headers and metadata that coding agents and SDKs send.

use http::HeaderMap;

use crate::http::headers::OWN_PREFIX;
use crate::text::{MAX_NAME_BYTES, beginning};

/// Longer texts are no ids.
const MAX_CHARS: usize = 256;

/// Ends of the names of headers that hold the id of a conversation, the most telling first: `x-claude-code-session-id`,
/// `session-id` and `session_id` (Codex, pi), `x-session-id` (OpenRouter's clients), `x-session-affinity` and
/// `x-opencode-session` (opencode), `helicone-session-id`, `x-litellm-session-id`; then `thread-id` (Codex, Amp),
/// `conversation_id`, `x-grok-conv-id`, `x-openwebui-chat-id`; then tasks (Cline, Roo, Kilo).
const NAMES: [&[&str]; 3] = [
    &["session-id", "session_id", "sessionid", "-session", "session-affinity"],
    &["thread-id", "thread_id", "conversation-id", "conversation_id", "conv-id", "chat-id", "chat_id"],
    &["task-id", "taskid"],
];

/// The session that the headers tell: by `x-pointsman-session`, or as agents tell theirs.
pub fn session_in_headers(headers: &HeaderMap) -> Option<&str> {
    let mut best: Option<(usize, &str)> = None;
    for (name, value) in headers {
        let name = name.as_str();
        let Some(rank) = rank(name) else { continue };
        if best.is_some_and(|(known, _)| known <= rank) {
            continue;
        }
        let Some(text) = value.to_str().ok().map(str::trim) else { continue };
        // Our own header says that it is one, however long.
        let text = if rank == 0 { beginning(text, MAX_NAME_BYTES) } else { text };
        if is_id(text) {
            best = Some((rank, text));
        }
    }
    best.map(|(_, text)| text)
}

/// Rank of a header among those that tell the session, 0 best.
fn rank(name: &str) -> Option<usize> {
    // Most names end otherwise.
    if !matches!(name.as_bytes().last_chunk(), Some(b"id" | b"on" | b"ty")) {
        return None;
    }
    if let Some(own) = name.strip_prefix(OWN_PREFIX) {
        return (own == "session").then_some(0);
    }
    let ends = |ends: &&[&str]| ends.iter().any(|end| name.ends_with(end));
    NAMES.iter().position(ends).map(|place| place + 1)
}

/// Members of a request's `metadata` that hold the id of a conversation, the most telling first.
pub(crate) const SESSION_MEMBERS: [&str; 6] =
    ["session_id", "litellm_session_id", "sessionId", "thread_id", "conversation_id", "chat_id"];

/// The session inside Claude Code's `metadata.user_id`: `user_HASH_account_ID_session_ID`, or JSON with a `session_id`. None
/// in any other: a user has many sessions.
pub fn session_in_user_id(user_id: &str) -> Option<&str> {
    let session = match user_id.rsplit_once("_session_") {
        Some((_, session)) => session,
        None => {
            let (_, behind) = user_id.split_once("\"session_id\"")?;
            behind.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()?
        }
    };
    Some(session).filter(|session| is_id(session))
}

/// Returns true if a text may be the id of something.
pub(crate) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_CHARS && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn told(pairs: &[(&'static str, &'static str)]) -> Option<String> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers: HeaderMap = pairs.iter().map(pair).collect();
        session_in_headers(&headers).map(str::to_owned)
    }

    #[test]
    fn the_headers_of_known_agents_tell_the_session() {
        for name in [
            "x-pointsman-session",
            "x-claude-code-session-id",
            "session-id",
            "session_id",
            "x-session-id",
            "x-session-affinity",
            "x-opencode-session",
            "x-qwen-code-session-id",
            "helicone-session-id",
            "x-litellm-session-id",
            "thread-id",
            "x-amp-thread-id",
            "conversation_id",
            "x-conversation-id",
            "x-grok-conv-id",
            "x-openwebui-chat-id",
            "x-task-id",
            "x-kilocode-taskid",
        ] {
            assert_eq!(told(&[("accept", "*/*"), (name, " s-1 ")]).as_deref(), Some("s-1"), "{name}");
        }
    }

    #[test]
    fn ids_of_single_requests_and_users_tell_none() {
        for name in
            ["x-request-id", "x-client-request-id", "x-correlation-id", "user-id", "x-pointsman-label-session-id"]
        {
            assert_eq!(told(&[(name, "1")]), None, "{name}");
        }
        assert_eq!(told(&[("x-session-id", "")]), None);
    }

    #[test]
    fn the_most_telling_header_counts() {
        let all = [("x-task-id", "t"), ("conversation_id", "c"), ("session_id", "s"), ("x-pointsman-session", "p")];
        for (from, session) in [(0, "p"), (1, "p"), (2, "p")] {
            assert_eq!(told(&all[from..]).as_deref(), Some(session));
        }
        assert_eq!(told(&all[..3]).as_deref(), Some("s"));
        assert_eq!(told(&all[..2]).as_deref(), Some("c"));
        assert_eq!(told(&[("session-id", "first"), ("x-session-id", "second")]).as_deref(), Some("first"));
    }

    #[test]
    fn claude_codes_user_id_has_the_session() {
        for (user_id, session) in [
            ("user_5f_account__session_0c1d-2e", Some("0c1d-2e")),
            (r#"{"device_id":"d","account_uuid":"","session_id":"0c1d-2e"}"#, Some("0c1d-2e")),
            (r#"{"session_id": "x" }"#, Some("x")),
            ("user-17", None),
            ("a_session_", None),
            (r#"{"session_id":7}"#, None),
        ] {
            assert_eq!(session_in_user_id(user_id), session, "{user_id}");
        }
    }
}
