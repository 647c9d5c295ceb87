//! Bodies with the beginning of the answer in them.

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::http::json;

/// The body with the beginning of the answer as an assistant's message at the end of `messages`, and with what the
/// backend's capabilities want said beside it.
pub(in crate::dialect) fn with_assistant_message(
    body: &Bytes,
    text: &str,
    can: &dyn Fn(&str) -> bool,
) -> Option<Bytes> {
    let mut message = Map::from_iter([("role".to_owned(), json!("assistant")), ("content".to_owned(), json!(text))]);
    for flag in ["prefix", "partial"].into_iter().filter(|flag| can(flag)) {
        message.insert(flag.to_owned(), Value::Bool(true));
    }
    let body = with_message(body, &Value::Object(message))?;
    Some(if can("continue_final_message") { insert(&body, json::skip_space(&body, 0) + 1, CONTINUE) } else { body })
}

/// The body with this text at the end of its `prompt`.
pub(in crate::dialect) fn append_to_prompt(body: &Bytes, text: &str) -> Option<Bytes> {
    let prompt = json::member(body, "prompt").filter(|p| p.len() >= 2 && p[0] == b'"' && p.ends_with(b"\""))?;
    let quoted = json!(text).to_string();
    Some(insert(body, end_of(body, prompt) - 1, &quoted[1..quoted.len() - 1]))
}

const CONTINUE: &str = r#""continue_final_message":true,"add_generation_prompt":false,"#;

/// The body with another message at the end of `messages`; none where the client itself ended with an assistant's.
fn with_message(body: &Bytes, message: &Value) -> Option<Bytes> {
    let messages = json::member(body, "messages").filter(|m| m.ends_with(b"]"))?;
    let mut at = json::Cursor::new(messages);
    let mut last = None;
    if at.enter(b'[') {
        while at.has_element() {
            last = Some(at.value());
        }
    }
    let role = json::member(last?, "role").and_then(json::text)?;
    if role == "assistant" {
        return None;
    }
    Some(insert(body, end_of(body, messages) - 1, &format!(",{message}")))
}

/// Finds where this part of the body ends in it.
fn end_of(body: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - body.as_ptr() as usize + part.len()
}

fn insert(body: &[u8], at: usize, text: &str) -> Bytes {
    let mut longer = BytesMut::with_capacity(body.len() + text.len());
    longer.extend_from_slice(&body[..at]);
    longer.extend_from_slice(text.as_bytes());
    longer.extend_from_slice(&body[at..]);
    longer.freeze()
}
