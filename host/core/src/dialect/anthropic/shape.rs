//! The shapes of Anthropic's whole answers.

use crate::contract::Operation;
use crate::dialect::format::{Finish, Shown, explains_empty, filled_or_empty, holds_content};
use crate::http::json;

/// The path without an operation of its own whose answers have a shape.
pub(super) const COUNT_TOKENS: &str = "/messages/count_tokens";

/// Reads the whole answer to a request of this operation at this path.
pub(super) fn shown<'a>(operation: Operation, path: &str, body: &'a [u8]) -> Shown<'a> {
    if operation == Operation::Message {
        return message(body);
    }
    let is_count = path.trim_end_matches('/').ends_with(COUNT_TOKENS);
    if is_count && json::member(body, "input_tokens").is_none() {
        return Shown::Nothing("has no `input_tokens`");
    }
    Shown::Answer
}

fn message(body: &[u8]) -> Shown<'_> {
    let reason = json::member(body, "stop_reason").unwrap_or_default();
    if Finish::read(reason) == Finish::Failed {
        return Shown::Failed(body);
    }
    match json::member(body, "content") {
        Some(content) if matches!(content.first(), Some(b'[' | b'"')) => {
            filled_or_empty(holds_content(content) || explains_empty(reason), body)
        }
        Some(_) | None => Shown::Nothing("has no `content`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_content() {
        for (body, expected) in [
            (r#"{"content":[{"type":"text","text":"x"}]}"#, Shown::Answer),
            (r#"{"content":[{"type":"tool_use","id":"t","name":"f","input":{}}]}"#, Shown::Answer),
            (r#"{"content":[],"usage":{"output_tokens":2}}"#, Shown::Answer),
            (r#"{"content":[],"usage":{"output_tokens":0}}"#, Shown::Empty),
            (r#"{"content":[{"type":"text","text":""}]}"#, Shown::Empty),
            (r#"{"content":[],"stop_reason":"end_turn"}"#, Shown::Empty),
            (r#"{"content":[],"stop_reason":"refusal"}"#, Shown::Answer),
            (r#"{"content":[],"stop_reason":"max_tokens","usage":{"output_tokens":0}}"#, Shown::Answer),
            (r#"{"content":null}"#, Shown::Nothing("has no `content`")),
            ("{}", Shown::Nothing("has no `content`")),
        ] {
            assert_eq!(shown(Operation::Message, "/v1/messages", body.as_bytes()), expected, "{body}");
        }
        let failed = br#"{"content":[{"type":"text","text":"half"}],"stop_reason":"error"}"#;
        assert_eq!(shown(Operation::Message, "", failed), Shown::Failed(failed));
        assert_eq!(
            shown(Operation::Other, "/v1/messages/count_tokens", b"{}"),
            Shown::Nothing("has no `input_tokens`")
        );
        assert_eq!(shown(Operation::Other, "/v1/messages/count_tokens", br#"{"input_tokens":0}"#), Shown::Answer);
    }
}
