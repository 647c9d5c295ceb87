//! Errors by their shape: JSON that says that something failed, in place of an answer or beside half of one.
//!
//! Providers and the proxies before them have no common shape: `error` as an object, a text or a list; `success: false`;
//! a `message`, `detail` or `error_msg` at the top where an answer would stand.

use crate::http::json;

/// Names of members that hold the words of an error at the top of a body.
const WORDS: &[&[u8]] =
    &[b"message", b"detail", b"msg", b"error_msg", b"errmsg", b"err_msg", b"error_message", b"errorMessage", b"fault"];

/// Names of members that hold its code.
const CODES: &[&[u8]] =
    &[b"code", b"status", b"statusCode", b"status_code", b"error_code", b"errcode", b"err_code", b"errorCode", b"ret"];

/// Names of members that hold an answer, in any of the dialects.
const ANSWERS: &[&[u8]] =
    &[b"choices", b"output", b"content", b"data", b"results", b"result", b"embeddings", b"text", b"delta", b"response"];

/// Returns true if this JSON, an object or a list of such, is an error: a member `error` that says something, whatever
/// stands beside it; `"type":"error"` or `"object":"error"`; `"success":false`; or the words of an error and no answer.
pub fn is_error(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let body = json::first_element(body).unwrap_or(body);
    let (mut words, mut fine, mut answer) = (false, false, false);
    for (key, value) in json::members(body) {
        match key {
            b"error" | b"errors" if says_something(value) => return true,
            b"type" | b"object" if value == b"\"error\"" => return true,
            b"success" if value == b"false" => return true,
            b"base_resp" if is_failed_status(value) => return true,
            // Amazon names the error itself: `internalServerException`.
            _ if key.ends_with(b"Exception") && says_something(value) => return true,
            // Names of events: an answer's own, whatever else they carry.
            b"type" if json::raw_str(value).is_some_and(is_name_of_event) => answer = true,
            _ if WORDS.contains(&key) => words |= is_words(value),
            _ if CODES.contains(&key) => fine |= is_fine(value),
            _ if ANSWERS.contains(&key) => answer |= json::is_filled(value),
            _ => {}
        }
    }
    words && !fine && !answer
}

/// Returns true if the value of a member `error` is an error: not null, empty, false, 0, or an object of such.
pub(in crate::dialect) fn says_something(value: &[u8]) -> bool {
    match value.first() {
        Some(b'{') => json::members(value).any(|(_, inner)| says_something(inner)),
        Some(b'"') => !matches!(value, b"\"\"" | b"\"null\"" | b"\"none\"" | b"\"None\"" | b"\"false\""),
        Some(_) => json::is_filled(value) && !matches!(value, b"false" | b"0"),
        None => false,
    }
}

/// Returns true if this `base_resp` (MiniMax) has another status code than 0.
pub(in crate::dialect) fn is_failed_status(base_resp: &[u8]) -> bool {
    json::member(base_resp, "status_code").is_some_and(|code| !is_fine(code))
}

fn is_name_of_event(name: &[u8]) -> bool {
    name.starts_with(b"response.") || name.starts_with(b"message_") || name.starts_with(b"content_") || name == b"ping"
}

/// A text, or FastAPI's list of what is wrong.
fn is_words(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'"' | b'[')) && json::is_filled(value)
}

/// A code that says that all is well.
fn is_fine(value: &[u8]) -> bool {
    let bare = json::raw_str(value).unwrap_or(value);
    let is = |word: &&[u8]| bare.eq_ignore_ascii_case(word);
    [&b"0"[..], b"200", b"ok", b"success", b"succeeded", b"completed", b"in_progress", b"queued"].iter().any(is)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_is_known_by_its_shape() {
        for error in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"error":["m"]}"#,
            r#"{"error":true}"#,
            r#"[{"error":{"code":429}}]"#,
            r#"{"error":{"message":"half"},"choices":[{"message":{"content":"text"}}]}"#,
            r#"{"type":"error"}"#,
            r#"{"object":"error","message":"m"}"#,
            r#"{"success":false,"errors":[{"code":7,"message":"m"}],"result":null}"#,
            r#"{"code":20012,"message":"Model does not exist","data":null}"#,
            r#"{"detail":"Not Found"}"#,
            r#"{"detail":[{"loc":["body"],"msg":"bad"}]}"#,
            r#"{"statusCode":429,"message":"slow down"}"#,
            r#"{"error_code":336,"error_msg":"m"}"#,
            r#"{"message":"m"}"#,
            r#"{"base_resp":{"status_code":1013,"status_msg":"m"}}"#,
            r#"{"internalServerException":{"message":"m"}}"#,
        ] {
            assert!(is_error(error.as_bytes()), "{error}");
        }
        for fine in [
            r#"{"error":null,"choices":[{}]}"#,
            r#"{"error":{},"output":[1]}"#,
            r#"{"error":{"code":0,"message":""},"choices":[{}]}"#,
            r#"{"error":"","choices":[]}"#,
            r#"{"error":false}"#,
            r#"{"choices":[{"message":{"content":"\"error\":{}"}}]}"#,
            r#"{"type":"message_start","message":{"id":"m"}}"#,
            r#"{"code":0,"message":"success","data":null}"#,
            r#"{"message":"fine","data":[1]}"#,
            r#"{"base_resp":{"status_code":0,"status_msg":""},"choices":[{}]}"#,
            r#"{"type":"ping","message":"alive"}"#,
            "{}",
            "[]",
            "7",
            "",
        ] {
            assert!(!is_error(fine.as_bytes()), "{fine}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_error(&bytes);
        }

        #[test]
        fn an_error_beside_anything_is_an_error(name in "[a-z]{1,6}", text in "[a-z ]{1,12}") {
            let body = format!("{{\"{name}\":[1],\"error\":{{\"message\":\"a {text}\"}},\"choices\":[{{\"x\":1}}]}}");
            prop_assert!(is_error(body.as_bytes()), "{}", body);
        }
    }
}
