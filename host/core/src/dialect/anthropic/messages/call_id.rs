//! Ids of tool calls.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A tool call's id as Anthropic takes it: letters, digits, `_` and `-`. The same id is always spelt the same.
pub(super) fn call_id(id: &str) -> Cow<'_, str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if id.bytes().all(fine) {
        return Cow::Borrowed(id);
    }
    let mut spelt = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        if fine(byte) {
            spelt.push(char::from(byte));
        } else {
            write!(spelt, "_x{byte:02x}").expect("a string takes all that is written");
        }
    }
    Cow::Owned(spelt)
}
