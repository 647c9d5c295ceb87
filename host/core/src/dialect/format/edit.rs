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

/// The body without the member at this path of names, and without an object that held nothing else; none where it has none.
pub(in crate::dialect) fn without_member(body: &Bytes, path: &[&str]) -> Option<Bytes> {
    let (last, outer) = path.split_last()?;
    let mut object: &[u8] = body;
    for name in outer {
        object = json::member(object, name)?;
    }
    let (name, value) = json::members(object).find(|(name, _)| *name == last.as_bytes())?;
    if !outer.is_empty() && json::members(object).count() == 1 {
        return without_member(body, outer);
    }
    let place = |part: &[u8]| part.as_ptr() as usize - body.as_ptr() as usize;
    // From the name's opening quote, and with the one comma that would be left over.
    let (mut begin, mut end) = (place(name) - 1, place(value) + value.len());
    let next = json::skip_space(body, end);
    if body.get(next) == Some(&b',') {
        end = json::skip_space(body, next + 1);
    } else if let Some(before) = body[..begin].trim_ascii_end().strip_suffix(b",") {
        begin = before.len();
    }
    Some(apply(body, &[Some((begin..end, Text::Known("")))]))
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

    #[test]
    fn a_member_is_taken_out_wherever_it_stands() {
        let body = Bytes::from_static(br#"{"a":1, "o":{"x":[1] , "y":2},"z":3}"#);
        for (path, without) in [
            (&["a"][..], r#"{"o":{"x":[1] , "y":2},"z":3}"#),
            (&["z"], r#"{"a":1, "o":{"x":[1] , "y":2}}"#),
            (&["o", "x"], r#"{"a":1, "o":{"y":2},"z":3}"#),
            (&["o", "y"], r#"{"a":1, "o":{"x":[1] },"z":3}"#),
        ] {
            assert_eq!(without_member(&body, path).unwrap(), without);
        }
        assert_eq!(without_member(&Bytes::from_static(b"{\"o\":{\"x\":1}}"), &["o", "x"]).unwrap(), "{}");
        assert_eq!((without_member(&body, &["x"]), without_member(&body, &["a", "x"])), (None, None));
    }
}
