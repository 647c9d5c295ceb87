//! Error messages of upstreams, made fit for logs and the journal: short, on one line, without secrets.

use std::borrow::Cow;

use crate::http::json;

/// The longest message kept, in characters.
pub const MAX_MESSAGE_CHARS: usize = 300;

/// Prefixes of API keys, at the providers that use them.
const KEY_PREFIXES: [&str; 13] =
    ["sk-", "sk_", "pk-", "nvapi-", "gsk_", "xai-", "hf_", "r8_", "pplx-", "fw_", "AIza", "csk-", "eyJ"];

/// An unbroken run of letters and digits this long, both in it, is taken for a key whatever its beginning.
const OPAQUE_RUN_CHARS: usize = 32;

/// The error inside a body: its message, and the words that classify it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorDetails<'a> {
    /// The message as it stands.
    pub message: Cow<'a, str>,
    /// Its type, or its status in words.
    pub kind: Cow<'a, str>,
    /// Code of the error; empty: none.
    pub code: Cow<'a, str>,
}

impl<'a> ErrorDetails<'a> {
    /// Reads the shapes in use: `{"error":{"message","type","code"|"status"}}`, `{"error":"..."}`,
    /// `{"message","type","code"}`, `{"detail":...}`, `{"errors":[...]}`, any of them as an array's first element, a choice
    /// that failed, and plain text.
    pub fn read(body: &'a [u8]) -> Self {
        let body = body.trim_ascii();
        let body = json::first_element(body).unwrap_or(body);
        if body.first() != Some(&b'{') {
            return Self { message: String::from_utf8_lossy(body), ..Self::default() };
        }
        let mut outer = Self::default();
        for (key, value) in json::members(body) {
            if key == b"error" && json::is_filled(value) && value[0] == b'{' {
                return Self::object(value);
            }
            if key == b"errors" && json::is_filled(value) {
                return Self::read(json::first_element(value).unwrap_or_default());
            }
            if key == b"base_resp" || key.ends_with(b"Exception") {
                return Self::object(value);
            }
            outer.member(key, value);
        }
        outer
    }

    fn object(error: &'a [u8]) -> Self {
        let mut said = Self::default();
        for (key, value) in json::members(error) {
            said.member(key, value);
        }
        said
    }

    fn member(&mut self, key: &[u8], value: &'a [u8]) {
        let slot = match key {
            b"message" => &mut self.message,
            b"error" | b"detail" | b"msg" | b"error_msg" | b"errmsg" | b"err_msg" | b"error_message"
            | b"errorMessage" | b"status_msg" | b"finish_reason" | b"stop_reason"
                if self.message.is_empty() =>
            {
                &mut self.message
            }
            b"type" => &mut self.kind,
            b"status" if self.kind.is_empty() => &mut self.kind,
            b"code" | b"statusCode" | b"status_code" | b"error_code" | b"errcode" => &mut self.code,
            _ => return,
        };
        if let Some(text) = json::text(value) {
            *slot = text;
        } else if key == b"detail" && json::is_filled(value) {
            *slot = String::from_utf8_lossy(value);
        }
    }
}

/// The message inside an error body, made fit to keep; the body itself where it has no such member.
pub fn of_body(body: &[u8]) -> String {
    presentable(&ErrorDetails::read(body).message)
}

/// This text within [`MAX_MESSAGE_CHARS`], without control characters and without anything that looks like a key.
pub fn presentable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_MESSAGE_CHARS));
    let mut after_bearer = false;
    // More than is kept, so that a key at the cut is still seen whole.
    let bounded: String =
        text.chars().take(4 * MAX_MESSAGE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    for piece in bounded.split_inclusive(|c: char| !is_key_char(c)) {
        let word = piece.trim_end_matches(|c: char| !is_key_char(c));
        if word.is_empty() {
            clean.push_str(piece);
            continue;
        }
        if looks_like_key(word) || after_bearer {
            clean.push_str("***");
            clean.push_str(&piece[word.len()..]);
        } else {
            clean.push_str(piece);
        }
        after_bearer = word.eq_ignore_ascii_case("bearer");
    }
    match clean.char_indices().nth(MAX_MESSAGE_CHARS) {
        None => clean,
        Some(_) => clean.chars().take(MAX_MESSAGE_CHARS - 1).chain(['\u{2026}']).collect(),
    }
}

/// Masked keys (`sk-ab***yz`) are still keys.
fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '.' | '+')
}

fn looks_like_key(word: &str) -> bool {
    let marked = KEY_PREFIXES.iter().any(|p| word.len() >= p.len() + 4 && word.starts_with(p));
    let opaque = word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
        run.len() >= OPAQUE_RUN_CHARS
            && run.bytes().any(|b| b.is_ascii_digit())
            && run.bytes().any(|b| b.is_ascii_alphabetic())
    });
    marked || opaque
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_shape_of_error_body_gives_its_message() {
        for (body, message) in [
            (r#"{"error":{"message":"no \"x\"","type":"t"}}"#, "no \"x\""),
            (r#"{"type":"error","error":{"type":"t","message":"m"}}"#, "m"),
            (r#"{"error":"bare"}"#, "bare"),
            (r#"{"object":"error","message":"top","code":404}"#, "top"),
            (r#"{"detail":"not found"}"#, "not found"),
            (r#"{"detail":[{"loc":["body"],"msg":"bad"}]}"#, r#"[{"loc":["body"],"msg":"bad"}]"#),
            (r#"[{"error":{"code":429,"message":"google","status":"RESOURCE_EXHAUSTED"}}]"#, "google"),
            ("upstream connect error\n", "upstream connect error"),
            (r#"{"error":{"message":"cut in the mid"#, "cut in the mid"),
            ("", ""),
        ] {
            assert_eq!(of_body(body.as_bytes()), message);
        }
    }

    #[test]
    fn keys_are_never_kept() {
        for (text, kept) in [
            ("Incorrect API key provided: sk-proj-abc123.", "Incorrect API key provided: ***"),
            ("key sk-ab***********yz, check", "key ***, check"),
            ("nvapi-Zx9_11aa", "***"),
            ("Authorization: Bearer abc", "Authorization: Bearer ***"),
            ("token \"gsk_12345678\"", "token \"***\""),
            ("0123456789abcdef0123456789abcdef0123456789abcdef", "***"),
            ("request req_011CSHoEeqs5C35K2UUqR7Fy", "request req_011CSHoEeqs5C35K2UUqR7Fy"),
            (
                "the key-value model meta-llama-3.2-90b-vision-instruct-turbo-fp8",
                "the key-value model meta-llama-3.2-90b-vision-instruct-turbo-fp8",
            ),
            ("see https://platform.example.com/account/limits", "see https://platform.example.com/account/limits"),
        ] {
            assert_eq!(presentable(text), kept);
        }
    }

    #[test]
    fn messages_are_short_and_on_one_line() {
        assert_eq!(presentable("a\r\nb\u{1b}[0m"), "a  b [0m");
        let long = presentable(&"\u{e9} ".repeat(5_000));
        assert_eq!(long.chars().count(), MAX_MESSAGE_CHARS);
        assert!(long.ends_with('\u{2026}'));
    }

    proptest! {
        #[test]
        fn any_text_is_made_presentable(text in "\\PC{0,400}", tail in "[A-Za-z0-9]{8,60}") {
            let clean = presentable(&format!("{text} sk-{tail}"));
            prop_assert!(clean.chars().count() <= MAX_MESSAGE_CHARS);
            let leaked = format!("sk-{tail}");
            prop_assert!(!clean.contains(&leaked));
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }
}
