//! Edits of a body whose other bytes stay as they are.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::http::json;

/// The body with this model in place of the one that it names.
pub(in crate::dialect) fn with_model(body: &Bytes, model: &str) -> Bytes {
    let asked = json::member(body, "model").filter(|asked| asked.first() == Some(&b'"'));
    let Some(asked) = asked else { return body.clone() };
    let quoted = serde_json::to_string(model).expect("a string is always JSON");
    if asked == quoted.as_bytes() {
        return body.clone();
    }
    let start = asked.as_ptr() as usize - body.as_ptr() as usize;
    apply(body, &[Some((start..start + asked.len(), Text::Owned(quoted)))])
}

/// The body with another name for one of its members.
pub(in crate::dialect) fn rename_member(body: &Bytes, from: &str, to: &'static str) -> Bytes {
    let Some((name, _)) = json::members(body).find(|(name, _)| *name == from.as_bytes()) else { return body.clone() };
    let start = name.as_ptr() as usize - body.as_ptr() as usize;
    apply(body, &[Some((start..start + name.len(), Text::Known(to)))])
}

/// Text that takes the place of a piece of a body.
pub(in crate::dialect) enum Text {
    Known(&'static str),
    Owned(String),
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Known(text) => text.as_bytes(),
            Text::Owned(text) => text.as_bytes(),
        }
    }
}

/// The body with these edits, which are in the order of their places: one copy, or the very same bytes where there is none.
pub(in crate::dialect) fn apply(body: &Bytes, edits: &[Option<(Range<usize>, Text)>]) -> Bytes {
    if edits.iter().all(Option::is_none) {
        return body.clone();
    }
    let added: usize = edits.iter().flatten().map(|(_, text)| text.as_bytes().len()).sum();
    let mut spliced = BytesMut::with_capacity(body.len() + added);
    let mut from = 0;
    for (span, text) in edits.iter().flatten() {
        spliced.extend_from_slice(&body[from..span.start]);
        spliced.extend_from_slice(text.as_bytes());
        from = span.end;
    }
    spliced.extend_from_slice(&body[from..]);
    spliced.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_body_gets_another_model_and_another_name_for_a_member() {
        let body = Bytes::from_static(br#"{"model":"a","messages":[{"model":"a","max_tokens":1}],"max_tokens":5}"#);
        let other = with_model(&body, "b\"c");
        assert_eq!(other, r#"{"model":"b\"c","messages":[{"model":"a","max_tokens":1}],"max_tokens":5}"#);
        assert_eq!(with_model(&body, "a").as_ptr(), body.as_ptr());
        let renamed = rename_member(&body, "max_tokens", "limit");
        assert_eq!(renamed, r#"{"model":"a","messages":[{"model":"a","max_tokens":1}],"limit":5}"#);
        assert_eq!(rename_member(&body, "missing", "x").as_ptr(), body.as_ptr());
    }
}
