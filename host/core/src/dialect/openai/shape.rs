//! The shapes of OpenAI's whole answers.

use super::errors::{failed_choice, failed_response};
use crate::contract::Operation;
use crate::dialect::format::{Shown, elements_of, explains_empty, filled_length, filled_or_empty, holds_content};
use crate::http::json;

/// Paths without an operation of their own whose answers have a shape.
pub(super) const SHAPED: &[&str] = &[
    "/audio/transcriptions",
    "/audio/translations",
    "/images/edits",
    "/images/generations",
    "/images/variations",
    "/moderations",
    "/rerank",
    "/responses/input_tokens",
];

/// Reads the whole answer to a request of this operation at this path.
pub(super) fn shown<'a>(operation: Operation, path: &str, body: &'a [u8]) -> Shown<'a> {
    match operation {
        Operation::Chat | Operation::Completion => choices(body),
        Operation::Response => response(body),
        Operation::Embedding => embeddings(body),
        Operation::Message => Shown::Answer,
        _ => other(path, body),
    }
}

fn choices(body: &[u8]) -> Shown<'_> {
    let Some(list) = json::member(body, "choices").filter(|list| list.first() == Some(&b'[')) else {
        return Shown::Nothing("has no `choices`");
    };
    if let Some(failed) = failed_choice(list) {
        return Shown::Failed(failed);
    }
    let (mut answers, mut has_content) = (false, false);
    for choice in elements_of(body, "choices").into_iter().flatten() {
        for (name, value) in json::members(choice) {
            match name {
                b"message" | b"delta" if value.first() == Some(&b'{') => {
                    answers = true;
                    has_content |= holds_content(value);
                }
                b"text" if value.first() == Some(&b'"') => {
                    answers = true;
                    has_content |= filled_length(value) > 0;
                }
                b"finish_reason" => has_content |= explains_empty(value),
                _ => {}
            }
        }
    }
    if answers { filled_or_empty(has_content, body) } else { Shown::Nothing("has no message in its `choices`") }
}

/// A response that is made in the background has nothing in it yet.
fn response(body: &[u8]) -> Shown<'_> {
    if failed_response(body) {
        return Shown::Failed(body);
    }
    let status = json::member(body, "status").unwrap_or_default();
    if matches!(status, b"\"queued\"" | b"\"in_progress\"") {
        return Shown::Answer;
    }
    let is_filled = |output: &[u8]| holds_content(output) || explains_empty(status);
    match json::member(body, "output") {
        Some(output) if output.first() == Some(&b'[') => filled_or_empty(is_filled(output), body),
        Some(_) | None => Shown::Nothing("has no `output`"),
    }
}

fn embeddings(body: &[u8]) -> Shown<'_> {
    // A list of numbers, or one text; servers that run into NaN write null.
    let is_vector = |element: &[u8]| {
        let vector = json::member(element, "embedding").unwrap_or_default();
        json::is_filled(vector) && json::first_element(vector) != Some(b"null")
    };
    let mut count = 0;
    if elements_of(body, "data").is_some_and(|mut data| {
        data.all(|element| {
            count += 1;
            is_vector(element)
        })
    }) && count > 0
    {
        Shown::Answer
    } else {
        Shown::Nothing("has no embedding in its `data`")
    }
}

fn other<'a>(path: &str, body: &'a [u8]) -> Shown<'a> {
    let path = path.trim_end_matches('/');
    let has = |name: &str| json::member(body, name).is_some_and(json::is_filled);
    let answer_if = |is: bool, otherwise| if is { Shown::Answer } else { Shown::Nothing(otherwise) };
    match SHAPED.iter().find(|end| path.ends_with(*end)) {
        // Silence is transcribed as an empty text.
        Some(&("/audio/transcriptions" | "/audio/translations")) => {
            let has_text = json::member(body, "text").is_some_and(|text| text.first() == Some(&b'"'));
            answer_if(has_text || has("segments"), "has no `text`")
        }
        Some(&"/moderations") => answer_if(has("results"), "has no `results`"),
        // Text Embeddings Inference answers a bare list; where no document reaches the threshold, it is empty.
        Some(&"/rerank") => {
            let is_list = |list: &[u8]| list.first() == Some(&b'[');
            let has_list = |name: &str| json::member(body, name).is_some_and(is_list);
            answer_if(is_list(body.trim_ascii()) || has_list("results") || has_list("data"), "has no `results`")
        }
        Some(&"/responses/input_tokens") => answer_if(has("input_tokens"), "has no `input_tokens`"),
        Some(_) => answer_if(has("data") || has("images"), "has no picture in its `data`"),
        None => Shown::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_its_shape() {
        use Operation::{Chat, Completion, Embedding, Other, Response};
        for (operation, path, body, expected) in [
            (Chat, "", r#"{"choices":[{"message":{"role":"assistant","content":"x"}}]}"#, "answer"),
            (
                Chat,
                "",
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f"}}]}}]}"#,
                "answer",
            ),
            (Chat, "", r#"{"choices":[{"message":{"content":[{"type":"text","text":"x"}]}}]}"#, "answer"),
            (Chat, "", r#"{"choices":[{"message":{"content":[{"type":"text","text":""}]}}]}"#, "empty"),
            (
                Chat,
                "",
                r#"{"choices":[{"message":{"content":"","tool_calls":[{"id":"t","function":{"name":"","arguments":""}}]}}]}"#,
                "empty",
            ),
            (Chat, "", r#"{"choices":[{"message":{"content":"","reasoning_content":"hm"}}]}"#, "answer"),
            (Chat, "", r#"{"choices":[{"message":{"content":""}}],"usage":{"completion_tokens":1}}"#, "answer"),
            (
                Chat,
                "",
                r#"{"choices":[{"message":{"role":"assistant","content":""}}],"usage":{"completion_tokens":0}}"#,
                "empty",
            ),
            (Chat, "", r#"{"choices":[{"message":{"content":null,"refusal":null,"annotations":[]}}]}"#, "empty"),
            (Chat, "", r#"{"choices":[{"message":{"content":""}},{"message":{"content":"x"}}]}"#, "answer"),
            (Chat, "", r#"{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}"#, "empty"),
            (Chat, "", r#"{"choices":[{"message":{"content":""},"finish_reason":"length"}]}"#, "answer"),
            (Chat, "", r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#, "answer"),
            (Chat, "", r#"{"choices":[]}"#, "nothing"),
            (Chat, "", r#"{"choices":null}"#, "nothing"),
            (Chat, "", r#"{"choices":[{}]}"#, "nothing"),
            (Chat, "", "{}", "nothing"),
            (Chat, "", "[]", "nothing"),
            (Chat, "", "7", "nothing"),
            (Chat, "", r#"{"choices":[{"error":{"message":"m"},"message":{"content":"half"}}]}"#, "failed"),
            (Chat, "", r#"{"choices":[{"message":{"content":"half"},"finish_reason":"error"}]}"#, "failed"),
            (Completion, "", r#"{"choices":[{"text":"x"}]}"#, "answer"),
            (Completion, "", r#"{"choices":[{"text":""}]}"#, "empty"),
            (
                Response,
                "",
                r#"{"output":[{"type":"message","content":[{"text":"x"}]}],"status":"completed","error":null}"#,
                "answer",
            ),
            (Response, "", r#"{"output":[],"status":"in_progress"}"#, "answer"),
            (Response, "", r#"{"output":[],"status":"completed"}"#, "empty"),
            (Response, "", r#"{"output":[{"type":"message","role":"assistant","content":[]}]}"#, "empty"),
            (Response, "", r#"{"output":[{"type":"message","content":[{"type":"output_text","text":""}]}]}"#, "empty"),
            (Response, "", r#"{"output":[{"type":"reasoning","id":"rs","summary":[]}]}"#, "empty"),
            (Response, "", r#"{"output":[{"type":"function_call","name":"f","arguments":"{}"}]}"#, "answer"),
            (Response, "", r#"{"output":[],"status":"incomplete","incomplete_details":{"reason":"error"}}"#, "failed"),
            (Response, "", r#"{"output":[],"status":"incomplete"}"#, "answer"),
            (Response, "", r#"{"output":[{}],"status":"failed","error":{"code":"server_error"}}"#, "failed"),
            (Response, "", r#"{"id":"r"}"#, "nothing"),
            (Embedding, "", r#"{"data":[{"embedding":[0.1]}]}"#, "answer"),
            (Embedding, "", r#"{"data":[{"embedding":"AAAA"}]}"#, "answer"),
            (Embedding, "", r#"{"data":[]}"#, "nothing"),
            (Embedding, "", r#"{"data":[{"embedding":[null,null]}]}"#, "nothing"),
            (Embedding, "", r#"{"data":[{"embedding":[0.1]},{"error":"x"}]}"#, "nothing"),
            (Embedding, "", r#"{"data":[{"embedding":[]}]}"#, "nothing"),
            (Other, "/v1/moderations", r#"{"results":[{}]}"#, "answer"),
            (Other, "/v1/moderations", r#"{"results":[]}"#, "nothing"),
            (Other, "/v1/rerank", r#"[{"index":0,"score":0.5}]"#, "answer"),
            (Other, "/v1/rerank", "[]", "answer"),
            (Other, "/v1/rerank", r#"{"results":[]}"#, "answer"),
            (Other, "/v1/rerank", r#"{"data":[]}"#, "answer"),
            (Other, "/v1/rerank", r#"{"results":null}"#, "nothing"),
            (Other, "/v1/images/generations", r#"{"data":[{"url":"u"}]}"#, "answer"),
            (Other, "/v1/images/generations/", r#"{"created":1,"data":[]}"#, "nothing"),
            (Other, "/v1/audio/transcriptions", r#"{"text":""}"#, "answer"),
            (Other, "/v1/audio/transcriptions", "{}", "nothing"),
            (Other, "/v1/files", "{}", "answer"),
        ] {
            let found = match shown(operation, path, body.as_bytes()) {
                Shown::Answer => "answer",
                Shown::Empty => "empty",
                Shown::Failed(_) => "failed",
                Shown::Nothing(_) => "nothing",
            };
            assert_eq!(found, expected, "{operation:?} {path} {body}");
        }
    }
}
