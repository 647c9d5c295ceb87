//! Estimate of a prompt's tokens by its bytes.

use crate::http::json;

/// Bytes of prompt JSON that count as one token. English has about four letters a token and CJK three bytes, so
/// that the estimate is near for both, and the braces around messages stand for the tokens a message costs anyhow.
pub const BYTES_PER_TOKEN: usize = 4;

/// Tokens counted for a picture, sound or file inside the prompt, instead of the length of its base64.
pub const TOKENS_PER_ATTACHMENT: usize = 1_000;

/// Shorter strings are taken for text without a look at them, in bytes.
const ATTACHMENT_MIN_BYTES: usize = 2_048;

/// Bytes of a long string that are examined to tell base64 from text.
const ATTACHMENT_PROBE_BYTES: usize = 256;

/// Estimated tokens of a prompt member: its JSON's bytes by [`BYTES_PER_TOKEN`], but base64 by the piece.
pub(super) fn weigh(value: &[u8]) -> usize {
    let mut text_bytes = value.len();
    let mut attachments = 0;
    if value.len() >= ATTACHMENT_MIN_BYTES {
        let mut at = 0;
        while let Some(open) = value.get(at..).and_then(|rest| memchr::memchr(b'"', rest)).map(|found| at + found) {
            at = json::skip_string(value, open);
            if at - open >= ATTACHMENT_MIN_BYTES && is_base64(&value[open + 1..at - 1]) {
                attachments += 1;
                text_bytes -= at - open;
            }
        }
    }
    text_bytes.div_ceil(BYTES_PER_TOKEN) + attachments * TOKENS_PER_ATTACHMENT
}

fn is_base64(text: &[u8]) -> bool {
    let probe = &text[..text.len().min(ATTACHMENT_PROBE_BYTES)];
    let payload = match memchr::memmem::find(probe, b";base64,") {
        Some(at) if probe.starts_with(b"data:") => &probe[at + b";base64,".len()..],
        _ => probe,
    };
    payload.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'\\'))
}
